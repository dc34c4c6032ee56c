//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

/* A counted number of bytes goes from one TCP connection to another without
 * going through user space. See doc.go for the design. */

#include <linux/bpf.h>
#include <linux/errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "tcp_types.h"

#define MAX_TRANSFERS 8192
#define EVENTS_SIZE 65536

/* What the parser returns to stop reading the connection: what it was shown
 * stays in the connection's queue. The socket then has this error. */
#define REFUSE (-ECANCELED)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff {
	unsigned int len;
	char cb[48];
};

/* A message of the kernel's stream parser: a part of the buffer. */
struct strp_msg {
	int full_len;
	int offset;
};

struct _strp_msg {
	struct strp_msg strp;
};

struct sk_skb_cb {
	struct _strp_msg strp;
};

#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym;

enum outcome { MOVING, DONE, TARGET_GONE };

/* What is to be moved from one source. */
struct transfer {
	__u64 target; /* socket cookie */
	__u64 left;   /* bytes */
	__u64 redirected;
	__u32 held_limit; /* bytes redirected that the target's peer has not acknowledged */
	__u32 start;      /* target's next sequence number before the first byte */
	__u32 started;
	enum outcome outcome;
};

struct counts {
	__u64 redirected_bytes;
	__u64 redirected_messages;
	__u64 refusals;
};

/* Sockets by their cookies. A socket is in at most one of the two maps. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_TRANSFERS);
	__type(key, __u64);
	__type(value, __u64);
} sources SEC(".maps"), targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TRANSFERS);
	__type(key, __u64); /* the source's cookie */
	__type(value, struct transfer);
} transfers SEC(".maps");

/* Cookies of sources whose transfer ended. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_SIZE);
} ended SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

static struct counts *count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static struct strp_msg *message(struct sk_buff *skb)
{
	struct sk_skb_cb *cb = bpf_rdonly_cast(skb->cb, bpf_core_type_id_kernel(struct sk_skb_cb));

	return &cb->strp.strp;
}

static void end(__u64 source, struct transfer *t, enum outcome outcome)
{
	t->outcome = outcome;
	bpf_ringbuf_output(&ended, &source, sizeof(source), 0);
}

/* room says how many bytes the target may still be given. */
static __u32 room(struct transfer *t, struct tcp_sock *target)
{
	__u32 held;

	if (!t->started) {
		t->start = target->write_seq;
		t->started = 1;
	}
	held = (__u32)t->redirected - (target->snd_una - t->start);
	return held < t->held_limit ? t->held_limit - held : 0;
}

/* target_room is room, or -1 if the target can't be written to any more. */
static long target_room(struct transfer *t)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &t->target);
	struct tcp_sock *target;
	long bytes = -1;

	if (!sk)
		return -1;
	target = bpf_skc_to_tcp_sock(sk);
	if (target && (sk->state == BPF_TCP_ESTABLISHED || sk->state == BPF_TCP_CLOSE_WAIT))
		bytes = room(t, target);
	bpf_sk_release(sk);
	return bytes;
}

/* parse says where the next message ends. What it returns never exceeds what is
 * there, so that the kernel never waits for more, and never exceeds the receive
 * buffer, which the kernel refuses. */
SEC("sk_skb/stream_parser")
int parse(struct __sk_buff *skb)
{
	struct sk_buff *buffer = bpf_cast_to_kern_ctx(skb);
	__u32 available = buffer->len - message(buffer)->offset;
	__u64 source = bpf_get_socket_cookie(skb);
	struct transfer *t = bpf_map_lookup_elem(&transfers, &source);
	struct tcp_sock *own = skb->sk ? bpf_skc_to_tcp_sock(skb->sk) : NULL;
	struct counts *c = count();
	long most;

	if (!t || !own || !c)
		return REFUSE;
	if (!t->left)
		return REFUSE;
	most = target_room(t);
	if (most < 0) {
		if (t->outcome == MOVING)
			end(source, t, TARGET_GONE);
		return REFUSE;
	}
	if (most == 0) {
		c->refusals++;
		return REFUSE;
	}
	if (most > t->left)
		most = t->left;
	if (most > own->inet_conn.icsk_inet.sk.sk_rcvbuf)
		most = own->inet_conn.icsk_inet.sk.sk_rcvbuf;
	return most < available ? most : available;
}

SEC("sk_skb/stream_verdict")
int redirect(struct __sk_buff *skb)
{
	struct sk_buff *buffer = bpf_cast_to_kern_ctx(skb);
	__u32 length = message(buffer)->full_len;
	__u64 source = bpf_get_socket_cookie(skb);
	struct transfer *t = bpf_map_lookup_elem(&transfers, &source);
	struct counts *c = count();

	if (!t || !c)
		return SK_DROP;
	if (bpf_sk_redirect_hash(skb, &targets, &t->target, 0) != SK_PASS) {
		end(source, t, TARGET_GONE);
		return SK_DROP;
	}
	t->left -= length;
	t->redirected += length;
	c->redirected_bytes += length;
	c->redirected_messages++;
	if (!t->left)
		end(source, t, DONE);
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
