//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Backend `sites`: what the kernel's own copying functions copied, and who
 * called them, from programs at their return (fexit).
 *
 * The innermost functions (_copy_to_iter, copy_page_from_iter_atomic, ...) live
 * in the kernel's lib/, which is built without hooks: neither fentry nor the
 * kprobes that BPF can attach to reach them on a stock kernel (they need
 * CONFIG_KPROBE_EVENTS_ON_NOTRACE). So these are the functions just above:
 * each hands all its bytes to one of those, and none calls another one here,
 * but for pskb_expand_head and skb_copy_bits, which copy other bytes.
 *
 * Kprobes would do as well, but a return probe is taken for as long as the
 * function sleeps, and there are few: readers waiting in pipe_read would make
 * others go uncounted.
 */
#include "ledger.bpf.h"

#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

/* Mirrored by Direction in moves.go. */
enum direction {
	NOT_COPIED,
	USER_TO_KERNEL,
	KERNEL_TO_USER,
	IN_KERNEL,
};

struct site_key {
	__u8 role;
	__u8 site;
	__u8 direction;
	__u8 unused;
	__s32 stack;
};

struct site_count {
	__u64 calls;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct site_key);
	__type(value, struct site_count);
} site_counts SEC(".maps");

#define STACK_DEPTH 12

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 4096);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

static const struct site_count no_copies = {};

static __always_inline void add(void *ctx, __u8 direction, __s64 bytes)
{
	struct site_key key = { .direction = direction };
	struct site_count *count;
	__u16 role;

	if (bytes <= 0 || direction == NOT_COPIED || !current_role(&role))
		return;
	key.role = role;
	key.site = bpf_get_attach_cookie(ctx); /* the loader's number of the function */
	key.stack = bpf_get_stackid(ctx, &stacks, 0);
	count = bpf_map_lookup_elem(&site_counts, &key);
	if (!count) {
		bpf_map_update_elem(&site_counts, &key, &no_copies, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&site_counts, &key);
	}
	if (!count) {
		COUNT_LOSS(entries);
		return;
	}
	count->calls++;
	count->bytes += bytes;
}

/* Kernels differ in which types there are, and in their numbers. */
#define HAS_TYPE(type, name)                                   \
	(bpf_core_enum_value_exists(enum iter_type, name) &&   \
	 (type) == bpf_core_enum_value(enum iter_type, name))

/* Where bytes go between the kernel and what an iterator describes. */
static __always_inline __u8 direction_of(struct iov_iter *iterator, __u8 if_user)
{
	__u8 type = BPF_CORE_READ(iterator, iter_type);

	if (HAS_TYPE(type, ITER_IOVEC) || HAS_TYPE(type, ITER_UBUF))
		return if_user;
	/* Until 6.4 reading into a pipe took references to pages. */
	if (HAS_TYPE(type, ITER_PIPE) || HAS_TYPE(type, ITER_DISCARD))
		return NOT_COPIED;
	return IN_KERNEL;
}

/* Files: functions (request, iterator) that return how many bytes they copied. */
#define COUNT_ITERATED(function, direction)                                               \
	SEC("fexit/" #function)                                                           \
	int BPF_PROG(function, void *request, struct iov_iter *iterator, __s64 n) \
	{                                                                                 \
		add(ctx, direction_of(iterator, direction), n);                           \
		return 0;                                                                 \
	}

COUNT_ITERATED(shmem_file_read_iter, KERNEL_TO_USER)
COUNT_ITERATED(seq_read_iter, KERNEL_TO_USER)
COUNT_ITERATED(eventfd_read, KERNEL_TO_USER)
COUNT_ITERATED(tty_read, KERNEL_TO_USER)
COUNT_ITERATED(pipe_read, KERNEL_TO_USER) /* until 6.14 */
COUNT_ITERATED(anon_pipe_read, KERNEL_TO_USER)
COUNT_ITERATED(pipe_write, USER_TO_KERNEL) /* until 6.14 */
COUNT_ITERATED(anon_pipe_write, USER_TO_KERNEL)
COUNT_ITERATED(generic_perform_write, USER_TO_KERNEL)

SEC("fexit/filemap_read")
int BPF_PROG(filemap_read, void *request, struct iov_iter *iterator, __s64 before, __s64 n)
{
	add(ctx, direction_of(iterator, KERNEL_TO_USER), n - before);
	return 0;
}

/* Sockets */

SEC("fexit/skb_copy_datagram_from_iter")
int BPF_PROG(skb_copy_datagram_from_iter, struct sk_buff *packet, int offset,
	     struct iov_iter *iterator, int length, int error)
{
	if (!error)
		add(ctx, direction_of(iterator, USER_TO_KERNEL), length);
	return 0;
}

/*
 * UDP copies a packet in one piece without calling a function that can be
 * attached to, so it is counted by its receive functions; for one in several
 * pieces they call skb_copy_datagram_iter, which then must not count.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* thread */
	__type(value, __u8);
} receiving_udp SEC(".maps");

#define COUNT_UDP(function)                                                                    \
	SEC("fentry/" #function)                                                               \
	int BPF_PROG(start_##function)                                                         \
	{                                                                                      \
		__u32 thread = bpf_get_current_pid_tgid();                                     \
		__u8 mark = 1;                                                                 \
		__u16 role;                                                                    \
                                                                                               \
		if (current_role(&role) &&                                                     \
		    bpf_map_update_elem(&receiving_udp, &thread, &mark, BPF_ANY))              \
			COUNT_LOSS(entries);                                                   \
		return 0;                                                                      \
	}                                                                                      \
                                                                                               \
	SEC("fexit/" #function)                                                                \
	int BPF_PROG(function, struct sock *sock, struct msghdr *message, __u64 length,        \
		     int flags, int *address_length, int n)                                    \
	{                                                                                      \
		__u32 thread = bpf_get_current_pid_tgid();                                     \
                                                                                               \
		/* MSG_TRUNC returns the whole length of what was cut */                       \
		if (!bpf_map_delete_elem(&receiving_udp, &thread) && n > 0)                    \
			add(ctx, direction_of(&message->msg_iter, KERNEL_TO_USER),             \
			    n < length ? n : length);                                          \
		return 0;                                                                      \
	}

COUNT_UDP(udp_recvmsg)
COUNT_UDP(udpv6_recvmsg)

SEC("fexit/skb_copy_datagram_iter")
int BPF_PROG(skb_copy_datagram_iter, struct sk_buff *packet, int offset, struct iov_iter *iterator,
	     int length, int error)
{
	__u32 thread = bpf_get_current_pid_tgid();

	if (!error && !bpf_map_lookup_elem(&receiving_udp, &thread))
		add(ctx, direction_of(iterator, KERNEL_TO_USER), length);
	return 0;
}

#define MSG_ZEROCOPY 0x4000000
#define MSG_SPLICE_PAGES 0x8000000

static __always_inline bool sends_in_place(struct sock *sock, struct msghdr *message)
{
	unsigned int flags = BPF_CORE_READ(message, msg_flags);
	unsigned long bits = BPF_CORE_READ(sock, __sk_common.skc_flags);

	if ((flags & MSG_SPLICE_PAGES) || BPF_CORE_READ(message, msg_ubuf))
		return true;
	return (flags & MSG_ZEROCOPY) &&
	       (bits & (1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY)));
}

SEC("fexit/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked, struct sock *sock, struct msghdr *message, __u64 size, int n)
{
	if (!sends_in_place(sock, message))
		add(ctx, direction_of(&message->msg_iter, USER_TO_KERNEL), n);
	return 0;
}

SEC("fexit/ip_generic_getfrag")
int BPF_PROG(ip_generic_getfrag, struct msghdr *message, char *to, int offset, int length, int odd,
	     struct sk_buff *packet, int error)
{
	if (!error)
		add(ctx, direction_of(&message->msg_iter, USER_TO_KERNEL), length);
	return 0;
}

SEC("fexit/sk_msg_recvmsg")
int BPF_PROG(sk_msg_recvmsg, struct sock *sock, void *psock, struct msghdr *message, int length,
	     int flags, int n)
{
	add(ctx, direction_of(&message->msg_iter, KERNEL_TO_USER), n);
	return 0;
}

/* Returns 0 or, since 6.12, how many bytes it copied. */
SEC("fexit/sk_msg_memcopy_from_iter")
int BPF_PROG(sk_msg_memcopy_from_iter, struct sock *sock, struct iov_iter *iterator, void *message,
	     __u32 bytes, int result)
{
	add(ctx, direction_of(iterator, USER_TO_KERNEL), result ? result : bytes);
	return 0;
}

/* vmsplice out of a pipe */
SEC("fexit/pipe_to_user")
int BPF_PROG(pipe_to_user, void *pipe, void *buffer, void *description, int n)
{
	add(ctx, KERNEL_TO_USER, n);
	return 0;
}

/* Inside the kernel */

/* A zero-copy send that could not stay one: all fragments become the kernel's own. */
SEC("fexit/skb_copy_ubufs")
int BPF_PROG(skb_copy_ubufs, struct sk_buff *packet, unsigned int gfp, int error)
{
	if (!error)
		add(ctx, IN_KERNEL, packet->data_len);
	return 0;
}

SEC("fexit/skb_copy_bits")
int BPF_PROG(skb_copy_bits, struct sk_buff *packet, int offset, void *to, int length, int error)
{
	if (!error)
		add(ctx, IN_KERNEL, length);
	return 0;
}

/* Copies the linear part, which moved back by `headroom`. */
SEC("fexit/pskb_expand_head")
int BPF_PROG(pskb_expand_head, struct sk_buff *packet, int headroom, int tailroom,
	     unsigned int gfp, int error)
{
	if (!error)
		add(ctx, IN_KERNEL, (__s64)packet->tail - headroom);
	return 0;
}
