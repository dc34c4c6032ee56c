//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Sends datagrams back from the driver (XDP), cut to the size that they ask for.
// All that happens to them is what the way there and back needs: headers are
// turned round, lengths and the header's checksum are made right.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* The first fragment, or a later one: "more fragments" or a fragment offset. */
#define IP_FRAGMENTED 0x3fff

/* The front of a datagram. */
struct request {
	__u64 id; /* the sender's own */
	__le32 size; /* bytes of the datagram that come back, this header's among them */
} __attribute__((packed));

/* Where the datagrams go that are sent back. */
volatile const __be32 address;
volatile const __be16 port;

/* How many were sent back. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} reflected SEC(".maps");

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

static __always_inline void turn_round(struct ethhdr *ethernet, struct iphdr *ip, struct udphdr *udp)
{
	__u8 hardware[ETH_ALEN];
	__be32 host = ip->saddr;
	__be16 from = udp->source;

	__builtin_memcpy(hardware, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, hardware, ETH_ALEN);
	ip->saddr = ip->daddr;
	ip->daddr = host;
	udp->source = udp->dest;
	udp->dest = from;
}

SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct request *request = (void *)(udp + 1);

	if ((void *)(request + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(IP_FRAGMENTED)) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	if (ip->daddr != address || udp->dest != port)
		return XDP_PASS;
	__u64 whole = bpf_ntohs(ip->tot_len), length = sizeof(*ip) + sizeof(*udp) + (__u64)request->size;
	if (whole != sizeof(*ip) + bpf_ntohs(udp->len) || whole > end - (void *)ip)
		return XDP_PASS;
	if (request->size < sizeof(*request) || length > whole)
		return XDP_PASS;

	turn_round(ethernet, ip, udp);
	udp->len = bpf_htons(length - sizeof(*ip));
	udp->check = 0; /* over IPv4: there is none */
	ip->tot_len = bpf_htons(length);
	ip->check = 0;
	ip->check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
	if (bpf_xdp_adjust_tail(ctx, (long)(sizeof(*ethernet) + length) - (end - data)))
		return XDP_ABORTED;
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&reflected, &zero);
	if (n)
		(*n)++;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
