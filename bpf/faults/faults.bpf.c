//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Makes a link lose, duplicate, corrupt and hold back packets, at a TCX hook of
// an interface. What happens to a packet depends on nothing but its rule's seed
// and how many packets the rule has seen before, so that it can be replayed.
// model.go says the same in Go.
//
// A packet that is held back leaves through an interface of its own, the detour,
// where user space keeps it for a while; it comes back in there, and is sent on
// as if nothing had happened. Marks tell such packets, and duplicates, from new
// ones.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAGMENT_OFFSET 0x1fff

/* TCX_NEXT: the interface's other programs, or the stack, go on with the packet. */
#define NEXT (-1)

/* Marks of packets that are under way here. */
#define DECIDED 0xfa017001 /* the program has seen it: let it pass */
#define HELD 0xfa017002	   /* on its way into the detour */

/* What is drawn for a packet; the order is that of model.go. */
enum { DROP, CORRUPT, DUPLICATE, HOLD, PLACE };

#define CUT 1
#define FIX_CHECKSUM 2

struct addresses {
	__u8 from[16];
	__u8 to[16];
};

struct rule {
	__u64 seed;
	/* Thresholds: of 2^32 packets so many. */
	__u64 drop, corrupt, duplicate, hold;
	__u64 flags;
	/* What has happened. */
	__u64 packets, cut, dropped, corrupted, duplicated, held;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct addresses);
	__type(value, struct rule);
	__uint(max_entries, 4096);
} rules SEC(".maps");

/* Set before the program is loaded. */
const volatile __u32 interface_index;
const volatile __u32 detour_index;
const volatile __u64 direction; /* BPF_F_INGRESS, or 0 for egress */

/* Where the parts of a packet are; offsets are from its first byte. */
struct packet {
	struct addresses between;
	__u32 checksum; /* of the transport, 0 if the payload can't be told */
	__u32 payload, end;
};

static __always_inline void find_payload(struct __sk_buff *skb, struct packet *p, __u32 transport, __u8 protocol)
{
	if (protocol == IPPROTO_TCP) {
		struct tcphdr tcp;

		if (bpf_skb_load_bytes(skb, transport, &tcp, sizeof(tcp)))
			return;
		p->payload = transport + tcp.doff * 4;
		p->checksum = transport + __builtin_offsetof(struct tcphdr, check);
	} else if (protocol == IPPROTO_UDP) {
		p->payload = transport + sizeof(struct udphdr);
		p->checksum = transport + __builtin_offsetof(struct udphdr, check);
	}
}

/* Returns 0 for a packet that is no IP. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return 0;
		p->between.from[10] = p->between.from[11] = p->between.to[10] = p->between.to[11] = 0xff;
		__builtin_memcpy(p->between.from + 12, &ip.saddr, 4);
		__builtin_memcpy(p->between.to + 12, &ip.daddr, 4);
		p->end = ETH_HLEN + bpf_ntohs(ip.tot_len); /* a frame may be padded */
		if (!(ip.frag_off & bpf_htons(FRAGMENT_OFFSET)))
			find_payload(skb, p, ETH_HLEN + ip.ihl * 4, ip.protocol);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return 0;
		__builtin_memcpy(p->between.from, &ip.saddr, 16);
		__builtin_memcpy(p->between.to, &ip.daddr, 16);
		p->end = ETH_HLEN + sizeof(ip) + bpf_ntohs(ip.payload_len);
		find_payload(skb, p, ETH_HLEN + sizeof(ip), ip.nexthdr);
	} else {
		return 0;
	}
	if (p->end > skb->len)
		p->end = skb->len;
	return 1;
}

/* The rule with the most exact addresses. All zeros stand for any. */
static __always_inline struct rule *find_rule(const struct addresses *exact)
{
	struct addresses k = *exact;
	struct rule *r = bpf_map_lookup_elem(&rules, &k);

	if (r)
		return r;
	__builtin_memset(k.to, 0, sizeof(k.to));
	r = bpf_map_lookup_elem(&rules, &k);
	if (r)
		return r;
	__builtin_memset(k.from, 0, sizeof(k.from));
	__builtin_memcpy(k.to, exact->to, sizeof(k.to));
	r = bpf_map_lookup_elem(&rules, &k);
	if (r)
		return r;
	__builtin_memset(k.to, 0, sizeof(k.to));
	return bpf_map_lookup_elem(&rules, &k);
}

#define GOLDEN 0x9e3779b97f4a7c15ULL

/* The finalizer of SplitMix64. */
static __always_inline __u64 mix(__u64 x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static __always_inline __u64 draw(__u64 seed, __u64 packet, __u64 what)
{
	return mix(mix(seed + GOLDEN * (packet + 1)) + GOLDEN * (what + 1));
}

static __always_inline int falls_below(__u64 drawn, __u64 threshold)
{
	return (drawn >> 32) < threshold;
}

/* Changes one byte of the payload. Returns 1 if that was possible. */
static __always_inline int corrupt(struct __sk_buff *skb, const struct packet *p, const struct rule *r, __u64 place)
{
	if (!p->checksum || p->payload >= p->end)
		return 0;
	__u32 length = p->end - p->payload;
	__u32 at = (__u32)place % length;
	__u8 before, after;

	if (bpf_skb_load_bytes(skb, p->payload + at, &before, 1))
		return 0;
	after = before ^ (1 + (place >> 32) % 255);
	if (!(r->flags & FIX_CHECKSUM))
		return !bpf_skb_store_bytes(skb, p->payload + at, &after, 1, 0);
	if (bpf_skb_store_bytes(skb, p->payload + at, &after, 1, BPF_F_RECOMPUTE_CSUM))
		return 0;
	/* The checksum is over 16-bit words. The payload begins with a whole one. The
	 * kernel leaves a checksum alone that is yet to be computed. */
	__u32 shift = at % 2 ? 8 : 0;

	bpf_l4_csum_replace(skb, p->checksum, (__u32)before << shift, (__u32)after << shift, BPF_F_MARK_MANGLED_0 | 2);
	return 1;
}

SEC("tcx/egress")
int inject(struct __sk_buff *skb)
{
	if (skb->mark == DECIDED) {
		skb->mark = 0;
		return NEXT;
	}
	struct packet p = {};

	if (!parse(skb, &p))
		return NEXT;
	struct rule *r = find_rule(&p.between);

	if (!r)
		return NEXT;
	__u64 n = __sync_fetch_and_add(&r->packets, 1);

	if (r->flags & CUT) {
		__sync_fetch_and_add(&r->cut, 1);
		return TC_ACT_SHOT;
	}
	if (falls_below(draw(r->seed, n, DROP), r->drop)) {
		__sync_fetch_and_add(&r->dropped, 1);
		return TC_ACT_SHOT;
	}
	if (falls_below(draw(r->seed, n, CORRUPT), r->corrupt) && corrupt(skb, &p, r, draw(r->seed, n, PLACE)))
		__sync_fetch_and_add(&r->corrupted, 1);
	if (falls_below(draw(r->seed, n, DUPLICATE), r->duplicate)) {
		__u32 mark = skb->mark;

		skb->mark = DECIDED;
		if (!bpf_clone_redirect(skb, interface_index, direction))
			__sync_fetch_and_add(&r->duplicated, 1);
		skb->mark = mark;
	}
	if (falls_below(draw(r->seed, n, HOLD), r->hold)) {
		__sync_fetch_and_add(&r->held, 1);
		skb->mark = HELD;
		return bpf_redirect(detour_index, 0);
	}
	return NEXT;
}

/* Keeps out of the detour what the kernel itself sends there. */
SEC("tcx/egress")
int enter_detour(struct __sk_buff *skb)
{
	return skb->mark == HELD ? NEXT : TC_ACT_SHOT;
}

SEC("tcx/ingress")
int leave_detour(struct __sk_buff *skb)
{
	skb->mark = DECIDED;
	return bpf_redirect(interface_index, direction);
}

char _license[] SEC("license") = "Dual BSD/GPL";
