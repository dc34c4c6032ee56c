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
#define CHECKED_WORDS 8

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

enum outcome { MOVING, DONE, TARGET_GONE, UNEXPECTED_HEADER };

/* What is to be moved from one source. */
struct transfer {
	__u64 target; /* socket cookie */
	__u64 left;   /* bytes */
	__u64 redirected;
	__u32 held_limit; /* bytes redirected that the target's peer has not acknowledged */
	__u32 start;      /* target's next sequence number before the first byte */
	__u32 started;
	__u32 header;      /* bytes still to be passed to user space before the body */
	__u32 resident;    /* what follows the body is passed to user space, not refused */
	__u32 redirecting; /* the message just parsed is part of the body */
	enum outcome outcome;
	__u32 checked; /* words at the header's start that must be as expected */
	__u64 expected[CHECKED_WORDS];
	__u64 mask[CHECKED_WORDS];
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

/* Sources whose transfer somebody waits for, and the ends of these transfers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TRANSFERS);
	__type(key, __u64);
	__type(value, __u8);
} awaited SEC(".maps");

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

/* How many ends found no room in the ring. Who reads it wakes everybody then. */
volatile __u64 missed_ends;

/* end says so only to who waits. The exchange is a full barrier: either it sees
 * that somebody waits, or who starts to wait sees the outcome. An end that finds
 * no room is tried again after it was counted: either there is room now, or the
 * ring is still to be read, by somebody who then sees the count. */
static void end(__u64 source, struct transfer *t, enum outcome outcome)
{
	__sync_lock_test_and_set((__u32 *)&t->outcome, outcome);
	if (bpf_map_lookup_elem(&awaited, &source)) {
		if (bpf_ringbuf_output(&ended, &source, sizeof(source), 0)) {
			__sync_fetch_and_add(&missed_ends, 1);
			bpf_ringbuf_output(&ended, &source, sizeof(source), 0);
		}
	}
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

/* header_expected compares the start of the message that begins at offset. */
static bool header_expected(struct __sk_buff *skb, __u32 offset, struct transfer *t)
{
	__u64 header[CHECKED_WORDS] = {};
	__u32 words = t->checked;

	if (words == 0 || words > CHECKED_WORDS)
		return false;
	if (bpf_skb_load_bytes(skb, offset, header, words * sizeof(header[0])))
		return false;
	for (int i = 0; i < CHECKED_WORDS; i++)
		if ((header[i] ^ t->expected[i]) & t->mask[i])
			return false;
	return true;
}

/* check_header ends the transfer if the answer is not the expected one. It
 * returns false if more of the header is needed to tell. */
static bool check_header(struct __sk_buff *skb, __u32 offset, __u32 available, __u64 source, struct transfer *t)
{
	if (!t->checked)
		return true;
	if (available < t->checked * sizeof(t->mask[0]))
		return false;
	if (!header_expected(skb, offset, t)) {
		t->header = t->left = 0;
		end(source, t, UNEXPECTED_HEADER);
	}
	t->checked = 0;
	return true;
}

/* next_of_body is how much more of the body the target may be given. Nobody can
 * read a header from a source that refuses, so a resident one never does. */
static long next_of_body(__u64 source, struct transfer *t)
{
	struct counts *c = count();
	long most = target_room(t);

	if (most < 0 && t->outcome == MOVING)
		end(source, t, TARGET_GONE);
	if (t->resident)
		return most < 0 ? 0 : t->left;
	if (most == 0 && c)
		c->refusals++;
	if (most <= 0)
		return 0;
	return most < t->left ? most : t->left;
}

/* next_message is how much of what is available is one message: at most so much
 * of the header or the body. 0 asks for more of the header, REFUSE for an end. */
static long next_message(struct __sk_buff *skb, __u32 offset, __u32 available, __u64 source, struct transfer *t)
{
	long body = 0;

	t->redirecting = 0;
	if (!check_header(skb, offset, available, source, t))
		return 0;
	if (t->header)
		return t->header;
	if (t->left)
		body = next_of_body(source, t);
	if (body > 0) {
		t->redirecting = 1;
		return body;
	}
	if (t->resident)
		return available;
	return REFUSE;
}

/* parse says where the next message ends. Except for a header's start it never
 * asks for more than is there, so that the kernel does not wait for more, nor
 * for more than the receive buffer, which the kernel refuses. */
SEC("sk_skb/stream_parser")
int parse(struct __sk_buff *skb)
{
	struct sk_buff *buffer = bpf_cast_to_kern_ctx(skb);
	__u32 offset = message(buffer)->offset;
	__u32 available = buffer->len - offset;
	__u64 source = bpf_get_socket_cookie(skb);
	struct transfer *t = bpf_map_lookup_elem(&transfers, &source);
	struct tcp_sock *own = skb->sk ? bpf_skc_to_tcp_sock(skb->sk) : NULL;
	long length;

	if (!t || !own)
		return REFUSE;
	length = next_message(skb, offset, available, source, t);
	if (length > available)
		length = available;
	if (length > own->inet_conn.icsk_inet.sk.sk_rcvbuf)
		length = own->inet_conn.icsk_inet.sk.sk_rcvbuf;
	return length;
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
	if (!t->redirecting) {
		t->header -= length < t->header ? length : t->header;
		return SK_PASS;
	}
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
