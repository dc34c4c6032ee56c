//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Gives each TCP socket of a control group's processes a congestion control, before
// the socket sends anything. See congestion.go.

#include <linux/bpf.h>
#include <linux/tcp.h>

#include <bpf/bpf_helpers.h>

#define SOL_TCP 6
#define NAME_SIZE 16 /* TCP_CA_NAME_MAX */

const volatile char wanted[NAME_SIZE]; /* set by user space before loading */

/* How many sockets could not be given it. */
__u64 refused;

SEC("sockops")
int set_congestion(struct bpf_sock_ops *ops)
{
	char name[NAME_SIZE];

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB: /* what it accepts inherits from it */
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB: /* of a listener that was there before */
		break;
	default:
		return 1;
	}
	for (int i = 0; i < NAME_SIZE; i++)
		name[i] = wanted[i];
	if (bpf_setsockopt(ops, SOL_TCP, TCP_CONGESTION, name, sizeof(name)))
		__sync_fetch_and_add(&refused, 1);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
