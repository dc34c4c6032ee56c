/* SPDX-License-Identifier: GPL-2.0 */
/* How each kind of system call is accounted, from its arguments and its result. */
#ifndef WAGGLE_COPIES_TRANSFERS_H
#define WAGGLE_COPIES_TRANSFERS_H

#include "files.bpf.h"

/* Plain transfers between user memory and one file */

static __always_inline __u8 class_of(const struct file_facts *facts)
{
	if (facts->kind == KIND_VOID)
		return CLASS_VOID;
	return facts->direct ? CLASS_DIRECT : CLASS_COPY;
}

static __noinline void add_input(struct move_key *key, __u64 fd, __s64 result)
{
	struct file_facts facts;

	describe_fd(fd, &facts);
	key->from = facts.kind;
	key->class = class_of(&facts);
	add_call(key, result);
}

static __noinline void add_output(struct move_key *key, __u64 fd, __s64 result)
{
	struct file_facts facts;

	describe_fd(fd, &facts);
	key->to = facts.kind;
	key->class = class_of(&facts);
	add_call(key, result);
}

/* Messages */

#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define MSG_ZEROCOPY 0x4000000
#define MAX_VECTOR 1024 /* the kernel's UIO_MAXIOV: it refuses more */

struct user_vector {
	__u64 base;
	__u64 length;
};

struct user_message {
	__u64 name;
	__u32 name_length;
	__u32 unused;
	__u64 vector;
	__u64 vector_length;
	__u64 control;
	__u64 control_length;
	__u32 flags;
	__u32 unused2;
};

struct user_message_of_many {
	struct user_message message;
	__u32 length; /* filled in by the kernel */
	__u32 unused;
};

static __always_inline bool is_internet_stream(__u16 kind)
{
	return kind == (KIND_SOCKET | AF_INET << 4 | SOCK_STREAM) ||
	       kind == (KIND_SOCKET | AF_INET6 << 4 | SOCK_STREAM);
}

/* MSG_TRUNC makes a TCP socket drop bytes instead of copying them. */
static __always_inline __u8 receive_class(__u16 kind, __u64 flags)
{
	if ((flags & MSG_TRUNC) && !(flags & MSG_ERRQUEUE) && is_internet_stream(kind))
		return CLASS_VOID;
	return flags & MSG_PEEK ? CLASS_PEEK : CLASS_COPY;
}

struct vector_sum {
	__u64 vector;
	__u64 length;
};

static long add_vector_length(__u32 index, struct vector_sum *sum)
{
	struct user_vector v;

	if (bpf_probe_read_user(&v, sizeof(v), (void *)(sum->vector + index * sizeof(v)))) {
		COUNT_LOSS(unread);
		return 1;
	}
	sum->length += v.length;
	return 0;
}

static __noinline __u64 capacity_of(struct user_message *m)
{
	struct vector_sum sum = {};

	sum.vector = m->vector;
	bpf_loop(m->vector_length > MAX_VECTOR ? MAX_VECTOR : m->vector_length,
		 add_vector_length, &sum, 0);
	return sum.length;
}

/* Zero-copy sends, and what became of them */

struct zerocopy_key {
	__u64 sock;
	__u32 id; /* the kernel numbers the zero-copy sends of a socket */
	__u32 unused;
};

/* Bytes of each send until its notification is read; the oldest is forgotten. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct zerocopy_key);
	__type(value, __u64);
} zerocopy_sends SEC(".maps");

#define SO_EE_ORIGIN_ZEROCOPY 5
#define SO_EE_CODE_ZEROCOPY_COPIED 1
#define MAX_NOTIFIED_SENDS 8192
#define MAX_CONTROL_MESSAGES 4

struct control_header {
	__u64 length;
	__s32 level;
	__s32 type;
};

struct extended_error {
	__u32 error;
	__u8 origin;
	__u8 type;
	__u8 code;
	__u8 unused;
	__u32 info; /* first send ... */
	__u32 data; /* ... and last send that this notification is about */
};

static __always_inline bool sends_zerocopy(const struct file_facts *facts, __u64 flags)
{
	struct sock *sock = facts->sock;
	unsigned long bits;

	if (!(flags & MSG_ZEROCOPY) || !sock)
		return false;
	/* Without SO_ZEROCOPY the kernel ignores the flag and copies. */
	bits = BPF_CORE_READ(sock, __sk_common.skc_flags);
	return bits & (1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY));
}

/* Remembers the send that is `back` sends before the socket's next one. */
static __always_inline void remember_zerocopy(struct sock *sock, __u32 back, __u64 bytes)
{
	struct zerocopy_key key = {
		.sock = (__u64)sock,
		.id = BPF_CORE_READ(sock, sk_zckey.counter) - back,
	};

	if (bpf_map_update_elem(&zerocopy_sends, &key, &bytes, BPF_ANY))
		COUNT_LOSS(in_flight);
}

struct notified_sends {
	struct zerocopy_key next;
	__u64 bytes;
};

static long forget_zerocopy(__u32 index, struct notified_sends *n)
{
	__u64 *bytes = bpf_map_lookup_elem(&zerocopy_sends, &n->next);

	if (bytes) {
		n->bytes += *bytes;
		bpf_map_delete_elem(&zerocopy_sends, &n->next);
	} else {
		COUNT_LOSS(in_flight);
	}
	n->next.id++;
	return 0;
}

static __always_inline void add_notification(struct move_key *key, struct sock *sock,
				       struct extended_error *e)
{
	struct notified_sends n = {};
	__u32 count;

	count = e->data - e->info + 1;
	n.next.sock = (__u64)sock;
	n.next.id = e->info;
	bpf_loop(count > MAX_NOTIFIED_SENDS ? MAX_NOTIFIED_SENDS : count, forget_zerocopy, &n, 0);
	key->to = key->from;
	key->from = KIND_USER;
	key->class = e->code & SO_EE_CODE_ZEROCOPY_COPIED ? CLASS_ZEROCOPY_COPIED :
							    CLASS_ZEROCOPY_KEPT;
	add(key, count, n.bytes);
}

/* Looks for zero-copy notifications in the control data of one message. */
static __noinline void read_notifications(struct move_key *key, struct sock *sock,
					 struct user_message *m)
{
	__u64 at, end;

	at = m->control;
	end = m->control + m->control_length;
	for (int i = 0; i < MAX_CONTROL_MESSAGES; i++) {
		struct control_header header;
		struct extended_error e;
		struct move_key notified = *key;

		if (at + sizeof(header) + sizeof(e) > end)
			return;
		if (bpf_probe_read_user(&header, sizeof(header), (void *)at) ||
		    bpf_probe_read_user(&e, sizeof(e), (void *)(at + sizeof(header)))) {
			COUNT_LOSS(unread);
			return;
		}
		/* IP_RECVERR is 11 of level 0, IPV6_RECVERR is 25 of level 41. */
		if (((header.level == 0 && header.type == 11) ||
		     (header.level == 41 && header.type == 25)) &&
		    e.origin == SO_EE_ORIGIN_ZEROCOPY)
			add_notification(&notified, sock, &e);
		at += (header.length + 7) & ~7UL;
	}
}

static __noinline void add_receive(struct move_key *key, __u64 fd, __u64 flags,
					__s64 result, __u64 capacity)
{
	struct file_facts facts;

	describe_fd(fd, &facts);
	key->from = facts.kind;
	key->class = receive_class(facts.kind, flags);
	/* A truncated datagram reports its whole length: no more than fits was copied. */
	if ((flags & MSG_TRUNC) && result > 0 && result > capacity)
		result = capacity;
	add_call(key, result);
}

static __noinline void add_receive_message(struct move_key *key, __u64 fd, __u64 address,
					  __u64 flags, __s64 result)
{
	struct user_message m = {};
	struct file_facts facts;

	if ((flags & (MSG_TRUNC | MSG_ERRQUEUE)) && result >= 0 &&
	    bpf_probe_read_user(&m, sizeof(m), (void *)address))
		COUNT_LOSS(unread);
	add_receive(key, fd, flags, result, flags & MSG_TRUNC ? capacity_of(&m) : 0);
	if (!(flags & MSG_ERRQUEUE) || result < 0)
		return;
	describe_fd(fd, &facts);
	read_notifications(key, facts.sock, &m);
}

static __noinline void add_send(struct move_key *key, __u64 fd, __u64 flags, __s64 result)
{
	struct file_facts facts;

	describe_fd(fd, &facts);
	key->to = facts.kind;
	key->class = CLASS_COPY;
	if (sends_zerocopy(&facts, flags)) {
		key->class = CLASS_ZEROCOPY;
		if (result > 0)
			remember_zerocopy(facts.sock, 1, result);
	}
	add_call(key, result);
}

/* The messages of one recvmmsg or sendmmsg. */
struct many {
	struct move_key key;
	struct sock *sock;
	__u64 address;
	__u64 bytes;
	__u64 flags;
	__u32 count;
	bool zerocopy;
};

static long add_one_of_many(__u32 index, struct many *many)
{
	struct user_message_of_many m;
	__u64 bytes;

	if (bpf_probe_read_user(&m, sizeof(m), (void *)(many->address + index * sizeof(m)))) {
		COUNT_LOSS(unread);
		return 1;
	}
	bytes = m.length;
	if (many->flags & MSG_TRUNC) {
		__u64 capacity = capacity_of(&m.message);

		if (bytes > capacity)
			bytes = capacity;
	}
	if (many->flags & MSG_ERRQUEUE)
		read_notifications(&many->key, many->sock, &m.message);
	if (many->zerocopy && bytes)
		remember_zerocopy(many->sock, many->count - index, bytes);
	many->bytes += bytes;
	return 0;
}

static __always_inline void add_many(struct many *many, __s64 result)
{
	if (result < 0) {
		add_failure(&many->key, result);
		return;
	}
	many->count = result;
	bpf_loop(result > MAX_VECTOR ? MAX_VECTOR : result, add_one_of_many, many, 0);
	add(&many->key, 1, many->bytes);
}

static __noinline void add_receive_many(struct move_key *key, __u64 fd, __u64 address,
					__u64 flags, __s64 result)
{
	struct many many = { .address = address, .flags = flags };
	struct file_facts facts;

	describe_fd(fd, &facts);
	key->from = facts.kind;
	key->class = receive_class(facts.kind, flags);
	many.key = *key;
	many.sock = facts.sock;
	add_many(&many, result);
}

static __noinline void add_send_many(struct move_key *key, __u64 fd, __u64 address,
				     __u64 flags, __s64 result)
{
	struct many many = { .address = address };
	struct file_facts facts;

	describe_fd(fd, &facts);
	many.zerocopy = sends_zerocopy(&facts, flags);
	key->to = facts.kind;
	key->class = many.zerocopy ? CLASS_ZEROCOPY : CLASS_COPY;
	many.key = *key;
	many.sock = facts.sock;
	add_many(&many, result);
}

/* Moves that stay in the kernel, and mappings */

static __noinline void add_moved(struct move_key *key, __u64 in, __u64 out, __s64 result)
{
	struct file_facts facts;

	describe_fd(in, &facts);
	key->from = facts.kind;
	describe_fd(out, &facts);
	key->to = facts.kind;
	key->class = CLASS_MOVED;
	add_call(key, result);
}

/* vmsplice lends user pages to a pipe, but copies out of one. */
static __noinline void add_vmsplice(struct move_key *key, __u64 fd, __s64 result)
{
	struct file_facts facts;

	describe_fd(fd, &facts);
	if (facts.writable) {
		key->to = facts.kind;
		key->class = CLASS_MOVED;
	} else {
		key->from = facts.kind;
		key->class = CLASS_COPY;
	}
	add_call(key, result);
}

#define MAP_ANONYMOUS 0x20
#define MAX_ERRNO 4095

static __noinline void add_mapping(struct move_key *key, __u64 length, __u64 flags, __u64 fd,
				  __s64 result)
{
	struct file_facts facts;

	if (flags & MAP_ANONYMOUS) {
		add(key, 1, 0);
		return;
	}
	describe_fd(fd, &facts);
	key->from = facts.kind;
	key->class = CLASS_MAPPED;
	if (result < 0 && result >= -MAX_ERRNO)
		add_failure(key, result);
	else
		add(key, 1, length);
}

#endif
