//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Answers lookup datagrams in the driver (XDP).
//
// A request names a whole path by the hashes of its components. The program
// walks them through its tables and sends the answer back from where the
// request came in. What it can't answer goes up the stack unchanged, to the UDP
// server that owns the port. Its answers are the same bytes as that server's:
// the tables hold attributes and locations in their wire form.
//
// Consistency. User space changes the tables only between two increments of
// `generation`, which is odd meanwhile. A walk reads it before its first table
// access and again after its last, and is believed only if it was even and has
// not moved: so everything that was read was in the tables at one moment, and
// no element was recycled under the walk. The answer is put together aside and
// overwrites the request only then.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/stat.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_COMPONENTS 16
#define MAX_GROUPS 16
#define MAX_INLINE 1024
#define LOCATION_SIZE 216

#define REQUEST_MAGIC 0x514c4757 /* "WGLQ" */
#define ANSWER_MAGIC 0x414c4757	 /* "WGLA" */
#define WIRE_VERSION 1
#define WANT_LOCATION 1
#define WANT_INLINE 2
#define KNOWN_FLAGS (WANT_LOCATION | WANT_INLINE)

/* Answers from here start with another TTL than the stack's (64), by which a
 * curious client can tell who answered. */
#define ANSWER_TTL 255

/* The first fragment, or a later one: "more fragments" or a fragment offset. */
#define IP_FRAGMENTED 0x3fff

enum status { OK, NOT_FOUND, NOT_DIRECTORY, DENIED };

/* Outcomes that are counted, and what is done with the packet. The order is
 * that of outcomes.go. */
enum outcome {
	ANSWERED,	   /* sent back from here */
	OTHER_TRAFFIC,	   /* not a datagram for this port at this address: passed */
	PASS_HEADERS,	   /* for this port, but fragmented, with IP options, of a wrong length, or from nowhere */
	PASS_CHECKSUM,	   /* damaged on its way: the stack drops it */
	PASS_MALFORMED,	   /* not a request that this side understands */
	PASS_SESSION,	   /* session not in the table */
	PASS_ENTRY,	   /* directory entry not in the table */
	PASS_INODE,	   /* inode not in the table */
	PASS_LOCATION,	   /* location not in the table */
	PASS_INLINE,	   /* a small file's bytes not in the table */
	PASS_SYMLINK,	   /* a symbolic link before the path's end */
	PASS_CHANGING,	   /* the tables changed during the walk */
	PASS_NO_ROOM,	   /* the packet could not be cut to the answer's size */
	OUTCOMES,
};

struct request {
	__u32 magic;
	__u8 version;
	__u8 components;
	__u16 flags;
	__u64 id;
	__u64 session;
	__u64 start;
	__u32 chunk_index;
	__u32 reserved;
	__u8 names[MAX_COMPONENTS][16];
};

struct attributes {
	__u64 inode;
	__u64 size;
	__s64 modified_ns;
	__s64 changed_ns;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 links;
	__u64 version;
	__u32 chunk_size;
	__u16 replication;
	__u16 inline_size;
};

struct location {
	__u64 words[LOCATION_SIZE / 8];
};

struct answer {
	__u32 magic;
	__u8 version;
	__u8 status;
	__u16 walked;
	__u64 id;
	struct attributes attributes;
	struct location location;
	__u8 content[MAX_INLINE];
	__u64 fence; /* not sent: see full_barrier */
};
#define ANSWER_SIZE 296

struct session {
	__u32 uid;
	__u32 gid;
	__u32 group_count;
	__u32 groups[MAX_GROUPS];
};

struct entry_key {
	__u64 parent;
	__u8 hash[16];
};

struct location_key {
	__u64 inode;
	__u64 index;
};

/* Behind a request for a small file's bytes comes padding of the size of the
 * largest of them, so that the answer fits where the request was. */
#define PADDING MAX_INLINE

/* A small file's bytes, in three sizes so that a million short files don't take
 * a gigabyte. */
struct content_small {
	__u8 bytes[128];
};
struct content_middle {
	__u8 bytes[512];
};
struct content_large {
	__u8 bytes[MAX_INLINE];
};

/* Sizes are set by user space before the maps are made. */
#define TABLE(name, map_type, key_type, value_type)                                                                    \
	struct {                                                                                                       \
		__uint(type, map_type);                                                                                \
		__uint(max_entries, 1);                                                                                \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")

TABLE(sessions, BPF_MAP_TYPE_HASH, __u64, struct session);
TABLE(entries, BPF_MAP_TYPE_LRU_HASH, struct entry_key, __u64);
TABLE(inodes, BPF_MAP_TYPE_LRU_HASH, __u64, struct attributes);
TABLE(locations, BPF_MAP_TYPE_LRU_HASH, struct location_key, struct location);
TABLE(contents_small, BPF_MAP_TYPE_LRU_HASH, __u64, struct content_small);
TABLE(contents_middle, BPF_MAP_TYPE_LRU_HASH, __u64, struct content_middle);
TABLE(contents_large, BPF_MAP_TYPE_LRU_HASH, __u64, struct content_large);
TABLE(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct answer);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} generation SEC(".maps");

/* Where the server listens. An address of zeros stands for any. */
volatile const __be16 server_port;
volatile const __be32 server_ipv4;
volatile const __u64 server_ipv6[2];
/* The hardware address of the interface; zeros on loopback. */
volatile const __u8 server_mac[ETH_ALEN];

static __always_inline void count(__u32 outcome)
{
	__u64 *n = bpf_map_lookup_elem(&outcomes, &outcome);
	if (n)
		(*n)++;
}

static __always_inline int pass(enum outcome outcome)
{
	count(outcome);
	return XDP_PASS;
}

/* Permissions, as in the last three bits of a mode. */
#define MAY_READ 4
#define MAY_SEARCH 1

/* Whether the mode of what has these attributes allows the session to. */
static __always_inline int may(const struct session *session, const struct attributes *a, __u32 want)
{
	__u32 mode = a->mode;

	if (session->uid == 0)
		return 1;
	if (session->uid == a->uid)
		return mode >> 6 & want;
	if (session->gid == a->gid)
		return mode >> 3 & want;
	for (int i = 0; i < MAX_GROUPS; i++) {
		if (i < session->group_count && session->groups[i] == a->gid)
			return mode >> 3 & want;
	}
	return mode & want;
}

/* Copies a small file's bytes to the answer. Returns 0 if they are not here. */
static __always_inline int add_content(struct answer *answer, __u64 inode, __u32 size)
{
	if (size <= sizeof(struct content_small)) {
		struct content_small *c = bpf_map_lookup_elem(&contents_small, &inode);
		if (!c)
			return 0;
		__builtin_memcpy(answer->content, c, sizeof(*c));
	} else if (size <= sizeof(struct content_middle)) {
		struct content_middle *c = bpf_map_lookup_elem(&contents_middle, &inode);
		if (!c)
			return 0;
		__builtin_memcpy(answer->content, c, sizeof(*c));
	} else {
		struct content_large *c = bpf_map_lookup_elem(&contents_large, &inode);
		if (!c)
			return 0;
		__builtin_memcpy(answer->content, c, sizeof(*c));
	}
	return 1;
}

/* Walks the request's path and fills the answer but for its head. Returns
 * ANSWERED, or why user space has to answer. */
static __always_inline enum outcome walk(struct request *request, struct answer *answer, __u32 *content_size)
{
	__u64 session_id = request->session;
	struct session *session = bpf_map_lookup_elem(&sessions, &session_id);
	if (!session)
		return PASS_SESSION;

	struct entry_key key = {};
	__u64 inode = request->start;
	struct attributes *attributes;
	enum status status = OK;
	int i;

	answer->walked = 0;
	for (i = 0; i < MAX_COMPONENTS; i++) {
		if (i >= request->components)
			break;
		attributes = bpf_map_lookup_elem(&inodes, &inode);
		if (!attributes)
			return PASS_INODE;
		if (S_ISLNK(attributes->mode))
			return PASS_SYMLINK;
		if (!S_ISDIR(attributes->mode)) {
			status = NOT_DIRECTORY;
			break;
		}
		if (!may(session, attributes, MAY_SEARCH)) {
			status = DENIED;
			break;
		}
		key.parent = inode;
		__builtin_memcpy(key.hash, request->names[i], sizeof(key.hash));
		__u64 *child = bpf_map_lookup_elem(&entries, &key);
		if (!child)
			return PASS_ENTRY;
		if (!*child) {
			status = NOT_FOUND;
			break;
		}
		inode = *child;
		answer->walked = i + 1;
	}

	answer->status = status;
	*content_size = 0;
	__builtin_memset(&answer->location, 0, sizeof(answer->location));
	if (status != OK) {
		__builtin_memset(&answer->attributes, 0, sizeof(answer->attributes));
		return ANSWERED;
	}
	attributes = bpf_map_lookup_elem(&inodes, &inode);
	if (!attributes)
		return PASS_INODE;
	/* A file's owner may always use it: permission was checked at its open. */
	if (S_ISREG(attributes->mode) && request->flags && session->uid != attributes->uid &&
	    !may(session, attributes, MAY_READ)) {
		answer->status = DENIED;
		__builtin_memset(&answer->attributes, 0, sizeof(answer->attributes));
		return ANSWERED;
	}
	answer->attributes = *attributes;
	if (!S_ISREG(attributes->mode))
		return ANSWERED;

	__u32 size = attributes->inline_size;
	if (size > MAX_INLINE)
		return PASS_INLINE;
	if ((request->flags & WANT_LOCATION) && !size) {
		struct location_key location_key = {.inode = inode, .index = request->chunk_index};
		struct location *location = bpf_map_lookup_elem(&locations, &location_key);
		if (!location)
			return PASS_LOCATION;
		answer->location = *location;
	}
	if ((request->flags & WANT_INLINE) && size) {
		if (!add_content(answer, inode, size))
			return PASS_INLINE;
		*content_size = size;
	}
	return ANSWERED;
}

static __always_inline __u64 read_generation(void)
{
	__u32 zero = 0;
	__u64 *g = bpf_map_lookup_elem(&generation, &zero);
	return g ? *(volatile __u64 *)g : 1;
}

/* Keeps the walk between the two reads of the generation: an atomic operation
 * that returns a value is a full barrier. It is on this CPU's own memory, so
 * that CPUs don't fight for a cache line. */
static __always_inline void full_barrier(struct answer *answer)
{
	__sync_fetch_and_add(&answer->fence, 1);
}

static __always_inline enum outcome answer_request(struct request *request, struct answer *answer, __u32 *content_size)
{
	if (request->magic != REQUEST_MAGIC || request->version != WIRE_VERSION || request->reserved ||
	    request->components > MAX_COMPONENTS || (request->flags & ~KNOWN_FLAGS))
		return PASS_MALFORMED;
	/* A request has one form only: names that are not in use are zero. */
	for (int i = 0; i < MAX_COMPONENTS; i++) {
		__u64 *name = (__u64 *)request->names[i];
		if (i >= request->components && (name[0] | name[1]))
			return PASS_MALFORMED;
	}

	__u64 before = read_generation();
	if (before & 1)
		return PASS_CHANGING;
	full_barrier(answer);
	enum outcome outcome = walk(request, answer, content_size);
	if (outcome != ANSWERED)
		return outcome;
	full_barrier(answer);
	if (read_generation() != before)
		return PASS_CHANGING;

	answer->magic = ANSWER_MAGIC;
	answer->version = WIRE_VERSION;
	answer->id = request->id;
	return ANSWERED;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The sum of the UDP pseudo-header over IPv4 or IPv6 addresses, which follow
 * one another in both headers. */
static __always_inline __u64 sum_pseudo_header(void *addresses, __u32 size, __u32 udp_length)
{
	return (__u64)(__u32)bpf_csum_diff(0, 0, addresses, size, 0) + bpf_htons(udp_length) + bpf_htons(IPPROTO_UDP);
}

/* Whether a request's UDP checksum is right. One that was sent from this very
 * kernel may hold no more than the sum of the pseudo-header, to be completed by
 * hardware that it never reaches. */
static __always_inline int checksum_is_right(struct udphdr *udp, __u64 pseudo_header, int padded, void *end)
{
	__be32 *padding = (__be32 *)((void *)(udp + 1) + sizeof(struct request));
	__u64 all = pseudo_header + (__u32)bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp) + sizeof(struct request), 0);

	/* bpf_csum_diff takes 512 bytes at most. The verifier of Linux 6.1 has forgotten
	 * that the padding was found to be there, and the compiler must not know that it
	 * is told again. */
	if (padded) {
		asm volatile("" : "+r"(padding));
		if ((void *)padding + PADDING > end)
			return 0;
		all += (__u32)bpf_csum_diff(0, 0, padding, PADDING / 2, 0);
		all += (__u32)bpf_csum_diff(0, 0, padding + PADDING / 8, PADDING / 2, 0);
	}
	return fold(all) == 0xffff || udp->check == fold(pseudo_header);
}

/* Sums the answer for the UDP checksum, which IPv6 demands. What stands behind
 * the content in its table is zeros, so it may be summed along. */
static __always_inline __u64 sum_answer(struct answer *answer, __u32 content_size)
{
	__u64 sum = (__u32)bpf_csum_diff(0, 0, (__be32 *)answer, ANSWER_SIZE, 0);
	__be32 *content = (__be32 *)answer->content;

	if (content_size > sizeof(struct content_middle)) {
		/* bpf_csum_diff takes 512 bytes at most. */
		sum += (__u32)bpf_csum_diff(0, 0, content, MAX_INLINE / 2, 0);
		sum += (__u32)bpf_csum_diff(0, 0, content + MAX_INLINE / 8, MAX_INLINE / 2, 0);
	} else if (content_size > sizeof(struct content_small)) {
		sum += (__u32)bpf_csum_diff(0, 0, content, sizeof(struct content_middle), 0);
	} else if (content_size) {
		sum += (__u32)bpf_csum_diff(0, 0, content, sizeof(struct content_small), 0);
	}
	return sum;
}

/* The loopback device has this number in every network namespace. */
#define LOOPBACK 1

/* Whether somebody can be at an address and port that a request says it comes
 * from. The stack drops what comes from others, or can't answer it. */
static __always_inline int is_sender_ipv4(struct xdp_md *ctx, __be32 address, __be16 port)
{
	__u32 first = bpf_ntohl(address) >> 24;

	return port && first && first < 224 && (first != 127 || ctx->ingress_ifindex == LOOPBACK);
}

static __always_inline int is_sender_ipv6(struct xdp_md *ctx, struct in6_addr *address, __be16 port)
{
	__u64 *words = (__u64 *)address;

	return port && address->s6_addr[0] != 0xff && (words[0] || ctx->ingress_ifindex == LOOPBACK);
}

/* Whether an address can be one host's: the answer comes from it. */
static __always_inline int is_host_ipv4(__be32 address)
{
	return bpf_ntohl(address) >> 24 < 224;
}

/* Whether a frame is for this very interface, and from a single other one. An
 * interface also gets what is for all, and in a bridge or in promiscuous mode
 * what is for others. */
static __always_inline int is_for_us(struct ethhdr *ethernet)
{
	for (int i = 0; i < ETH_ALEN; i++) {
		if (ethernet->h_dest[i] != server_mac[i])
			return 0;
	}
	return !(ethernet->h_source[0] & 1);
}

static __always_inline void swap_ethernet(struct ethhdr *ethernet)
{
	__u8 address[ETH_ALEN];

	__builtin_memcpy(address, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, address, ETH_ALEN);
}

static __always_inline void answer_udp(struct udphdr *udp, __u32 payload)
{
	__be16 port = udp->source;

	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(sizeof(*udp) + payload);
	udp->check = 0;
}

/* Writes the answer into the packet. The verifier of Linux 6.1 has lost the
 * bounds of the content's size by then, and the compiler, which has not, would
 * leave out a test of them. */
static __always_inline long store_answer(struct xdp_md *ctx, __u32 offset, struct answer *answer, __u64 content_size)
{
	barrier_var(content_size);
	if (content_size > MAX_INLINE)
		return -1;
	return bpf_xdp_store_bytes(ctx, offset, answer, ANSWER_SIZE + content_size);
}

static __always_inline int answer_ipv4(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct request *request = (void *)(udp + 1);

	if ((void *)(request + 1) > end)
		return pass(OTHER_TRAFFIC);
	if (ip->protocol != IPPROTO_UDP || udp->dest != server_port || (server_ipv4 && ip->daddr != server_ipv4) ||
	    !is_host_ipv4(ip->daddr))
		return pass(OTHER_TRAFFIC);
	int padded = request->flags & WANT_INLINE;
	__u32 length = sizeof(*udp) + sizeof(*request) + (padded ? PADDING : 0);
	if (padded && (void *)(request + 1) + PADDING > end)
		return pass(PASS_HEADERS);
	if (ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(IP_FRAGMENTED)) ||
	    udp->len != bpf_htons(length) || ip->tot_len != bpf_htons(sizeof(*ip) + length) ||
	    !is_sender_ipv4(ctx, ip->saddr, udp->source))
		return pass(PASS_HEADERS);
	if (fold((__u32)bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0)) != 0xffff)
		return pass(PASS_CHECKSUM);
	/* Over IPv4 a checksum of zero says that there is none. */
	if (udp->check && !checksum_is_right(udp, sum_pseudo_header(&ip->saddr, 8, length), padded, end))
		return pass(PASS_CHECKSUM);

	__u32 zero = 0, content_size = 0;
	struct answer *answer = bpf_map_lookup_elem(&scratch, &zero);
	if (!answer)
		return pass(PASS_NO_ROOM);
	enum outcome outcome = answer_request(request, answer, &content_size);
	if (outcome != ANSWERED)
		return pass(outcome);

	__u32 payload = ANSWER_SIZE + (content_size & 2047);
	if (payload > ANSWER_SIZE + MAX_INLINE)
		return pass(PASS_NO_ROOM);
	long frame = sizeof(*ethernet) + sizeof(*ip) + sizeof(*udp) + payload;
	if (bpf_xdp_adjust_tail(ctx, frame - (end - data)))
		return pass(PASS_NO_ROOM);

	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	ip = (void *)(ethernet + 1);
	udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end)
		return XDP_ABORTED;
	swap_ethernet(ethernet);
	__be32 address = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = address;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*udp) + payload);
	ip->ttl = ANSWER_TTL;
	ip->check = 0;
	ip->check = ~fold((__u32)bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
	answer_udp(udp, payload);
	if (store_answer(ctx, sizeof(*ethernet) + sizeof(*ip) + sizeof(*udp), answer, content_size))
		return XDP_ABORTED;
	count(ANSWERED);
	return XDP_TX;
}

static __always_inline int answer_ipv6(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct ipv6hdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct request *request = (void *)(udp + 1);

	if ((void *)(request + 1) > end)
		return pass(OTHER_TRAFFIC);
	/* Extension headers make the next header something else than UDP. */
	if (ip->nexthdr != IPPROTO_UDP || udp->dest != server_port)
		return pass(OTHER_TRAFFIC);
	__u64 *destination = (__u64 *)&ip->daddr;
	if ((server_ipv6[0] | server_ipv6[1]) &&
	    (destination[0] != server_ipv6[0] || destination[1] != server_ipv6[1]))
		return pass(OTHER_TRAFFIC);
	if (ip->daddr.s6_addr[0] == 0xff) /* multicast */
		return pass(OTHER_TRAFFIC);
	int padded = request->flags & WANT_INLINE;
	__u32 length = sizeof(*udp) + sizeof(*request) + (padded ? PADDING : 0);
	if (padded && (void *)(request + 1) + PADDING > end)
		return pass(PASS_HEADERS);
	if (ip->version != 6 || udp->len != bpf_htons(length) || ip->payload_len != udp->len ||
	    !is_sender_ipv6(ctx, &ip->saddr, udp->source))
		return pass(PASS_HEADERS);
	if (!checksum_is_right(udp, sum_pseudo_header(&ip->saddr, 32, length), padded, end))
		return pass(PASS_CHECKSUM);

	__u32 zero = 0, content_size = 0;
	struct answer *answer = bpf_map_lookup_elem(&scratch, &zero);
	if (!answer)
		return pass(PASS_NO_ROOM);
	enum outcome outcome = answer_request(request, answer, &content_size);
	if (outcome != ANSWERED)
		return pass(outcome);

	__u32 payload = ANSWER_SIZE + (content_size & 2047);
	if (payload > ANSWER_SIZE + MAX_INLINE)
		return pass(PASS_NO_ROOM);
	__u64 sum = sum_answer(answer, content_size);
	long frame = sizeof(*ethernet) + sizeof(*ip) + sizeof(*udp) + payload;
	if (bpf_xdp_adjust_tail(ctx, frame - (end - data)))
		return pass(PASS_NO_ROOM);

	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	ip = (void *)(ethernet + 1);
	udp = (void *)(ip + 1);
	if ((void *)(udp + 1) > end)
		return XDP_ABORTED;
	swap_ethernet(ethernet);
	struct in6_addr address = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = address;
	answer_udp(udp, payload);
	ip->payload_len = udp->len;
	ip->hop_limit = ANSWER_TTL;
	sum += sum_pseudo_header(&ip->saddr, 32, sizeof(*udp) + payload);
	sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)udp, sizeof(*udp), 0);
	udp->check = ~fold(sum);
	if (!udp->check)
		udp->check = 0xffff;
	if (store_answer(ctx, sizeof(*ethernet) + sizeof(*ip) + sizeof(*udp), answer, content_size))
		return XDP_ABORTED;
	count(ANSWERED);
	return XDP_TX;
}

SEC("xdp")
int answer_lookups(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end || !is_for_us(ethernet))
		return pass(OTHER_TRAFFIC);
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return answer_ipv4(ctx);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return answer_ipv6(ctx);
	return pass(OTHER_TRAFFIC);
}

char _license[] SEC("license") = "Dual BSD/GPL";
