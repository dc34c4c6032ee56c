//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

/* A connection of which both ends live in this kernel hands what is sent at one
 * end straight to the receive queue of the other. See doc.go for the design. */

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "tcp_types.h"

#define AF_INET 2
#define MAX_PORTS 16
#define MAX_CONNECTIONS 16384 /* replaced by user space before loading */

extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym;

/* One end of a connection, as that end sees it. Addresses alone do not name a
 * connection, because two network namespaces can use the same ones: the first
 * sequence number in each direction does. */
struct end {
	__u32 local_ip[4]; /* IPv4 as ::ffff:a.b.c.d */
	__u32 remote_ip[4];
	__u32 local_port; /* host order */
	__u32 remote_port;
	__u32 sent_first;
	__u32 received_first;
};

/* Which way bytes go: the index of their counters. */
enum direction { ANSWERS, REQUESTS };

struct counts {
	__u64 redirected_bytes;
	__u64 redirected_messages;
	__u64 passed_remote_bytes;
	__u64 passed_full_bytes;
	__u64 passed_undrained_bytes;
	__u64 failed_bytes;
};

struct joined {
	struct end end;
	enum direction direction;
};

/* Set by user space before loading. */
const volatile __u32 port_count;
const volatile __u32 ports[MAX_PORTS];
const volatile __u32 only_mark;
const volatile __u32 queue_limit; /* bytes */

/* The ends that asked for the connection, and those that accepted it. They are
 * two maps because a program attached to a map serves all its sockets, and
 * requests are redirected only on demand. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct end);
	__type(value, __u64);
} askers SEC(".maps"), answerers SEC(".maps");

/* Where the kernel keeps each end that joined. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct end);
	__type(value, __u64);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct joined);
} joined SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

static void end_of(struct bpf_sock_ops *ops, struct end *e)
{
	if (ops->family == AF_INET) {
		e->local_ip[2] = e->remote_ip[2] = bpf_htonl(0xffff);
		e->local_ip[3] = ops->local_ip4;
		e->remote_ip[3] = ops->remote_ip4;
		barrier(); /* or the compiler merges the branches' loads into one the verifier refuses */
	} else {
		for (int i = 0; i < 4; i++) {
			e->local_ip[i] = ops->local_ip6[i];
			e->remote_ip[i] = ops->remote_ip6[i];
		}
	}
	e->local_port = ops->local_port;
	e->remote_port = bpf_ntohl(ops->remote_port);
	e->sent_first = ops->snd_nxt;
	e->received_first = ops->rcv_nxt;
}

static void other_end(const struct end *e, struct end *other)
{
	__builtin_memcpy(other->local_ip, e->remote_ip, sizeof(other->local_ip));
	__builtin_memcpy(other->remote_ip, e->local_ip, sizeof(other->remote_ip));
	other->local_port = e->remote_port;
	other->remote_port = e->local_port;
	other->sent_first = e->received_first;
	other->received_first = e->sent_first;
}

static bool port_chosen(__u32 port)
{
	for (__u32 i = 0; i < MAX_PORTS && i < port_count; i++)
		if (ports[i] == port)
			return true;
	return false;
}

/* remember makes the end known to the programs. The address must be in place
 * before the socket can be redirected to. */
static bool remember(struct bpf_sock_ops *ops, struct bpf_sock *sk, struct end *e, enum direction d)
{
	struct joined *j = bpf_sk_storage_get(&joined, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	__u64 address = (__u64)bpf_skc_to_tcp_sock(sk);

	if (!j || !address || bpf_map_update_elem(&addresses, e, &address, BPF_NOEXIST))
		return false;
	j->end = *e;
	j->direction = d;
	bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
	return true;
}

static void asker_established(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct end e = {};

	end_of(ops, &e);
	if (!port_chosen(e.remote_port) || (only_mark && sk->mark != only_mark))
		return;
	if (remember(ops, sk, &e, REQUESTS))
		bpf_sock_hash_update(ops, &askers, &e, BPF_NOEXIST);
}

/* An answerer joins only a connection whose asker is known here: the asker's end
 * is always established first. */
static void answerer_established(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct end e = {}, asker = {};

	end_of(ops, &e);
	other_end(&e, &asker);
	if (!port_chosen(e.local_port) || !bpf_map_lookup_elem(&addresses, &asker))
		return;
	if (remember(ops, sk, &e, ANSWERS))
		bpf_sock_hash_update(ops, &answerers, &e, BPF_NOEXIST);
}

SEC("sockops")
int track(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct joined *j;

	if (!sk)
		return 1;
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		asker_established(ops, sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		answerer_established(ops, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		j = bpf_sk_storage_get(&joined, sk, 0, 0);
		if (j && ops->args[1] == BPF_TCP_CLOSE)
			bpf_map_delete_elem(&addresses, &j->end);
		break;
	}
	return 1;
}

static long redirect(struct sk_msg_md *msg, struct end *to, enum direction d)
{
	if (d == ANSWERS)
		return bpf_msg_redirect_hash(msg, &askers, to, BPF_F_INGRESS);
	return bpf_msg_redirect_hash(msg, &answerers, to, BPF_F_INGRESS);
}

/* The receiver reads what was redirected before what came by TCP, so a redirect
 * is right only when it has read all that was ever sent to it by TCP. Its queue
 * is not bounded by the kernel: above the limit, TCP's flow control is used. */
SEC("sk_msg")
int verdict(struct sk_msg_md *msg)
{
	struct joined *j = msg->sk ? bpf_sk_storage_get(&joined, msg->sk, 0, 0) : NULL;
	struct end to = {};
	__u32 d = j ? j->direction : ANSWERS;
	struct counts *c = bpf_map_lookup_elem(&counters, &d);
	struct tcp_sock *own, *peer;
	__u64 *address;

	if (!j || !c)
		return SK_PASS;
	other_end(&j->end, &to);
	address = bpf_map_lookup_elem(&addresses, &to);
	own = bpf_skc_to_tcp_sock(msg->sk);
	if (!address || !own) {
		c->passed_remote_bytes += msg->size;
		return SK_PASS;
	}
	peer = bpf_rdonly_cast((void *)*address, bpf_core_type_id_kernel(struct tcp_sock));
	if (peer->copied_seq != own->write_seq) {
		c->passed_undrained_bytes += msg->size;
		return SK_PASS;
	}
	if ((__u32)peer->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter >= queue_limit) {
		c->passed_full_bytes += msg->size;
		return SK_PASS;
	}
	if (redirect(msg, &to, d) != SK_PASS) {
		c->failed_bytes += msg->size;
		return SK_PASS;
	}
	c->redirected_bytes += msg->size;
	c->redirected_messages++;
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
