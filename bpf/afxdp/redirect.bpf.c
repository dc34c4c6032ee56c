//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Hands the datagrams for one UDP port to AF_XDP sockets, and leaves everything
// else alone. A datagram that came in on a queue without a socket goes up the
// stack, like one with IP options or of more than one fragment.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The first fragment, or a later one: "more fragments" or a fragment offset. */
#define IP_FRAGMENTED 0x3fff

/* Set before the program is loaded; both as they stand in a packet. */
const volatile __u32 address;
const volatile __u16 port;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32); /* the receive queue */
	__type(value, __u32);
	__uint(max_entries, 1);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} redirected SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || ip->daddr != address ||
	    ip->frag_off & bpf_htons(IP_FRAGMENTED) || udp->dest != port)
		return XDP_PASS;

	int action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
	if (action == XDP_REDIRECT) {
		__u32 zero = 0;
		__u64 *count = bpf_map_lookup_elem(&redirected, &zero);

		if (count)
			(*count)++;
	}
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
