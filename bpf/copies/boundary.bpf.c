//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Backend `boundary`: what crosses between user space and the kernel, counted
 * from tracepoints alone. doc.go defines what counts as a copy.
 *
 * A system call is read at its return only: the registers still hold its
 * arguments, the result says how much was done, and the user memory that
 * describes it (vectors, message headers) was just touched by the kernel. That
 * is half the cost of looking at both ends.
 */
#include "ledger.bpf.h"

#include <asm/unistd_64.h>

char LICENSE[] SEC("license") = "GPL";

/* What happened to the bytes. Mirrored by Class in moves.go. */
enum class {
	CLASS_CALL,            /* a system call that moves no file data */
	CLASS_COPY,            /* copied by the CPU across the boundary */
	CLASS_PEEK,            /* the same, and they stay queued (MSG_PEEK) */
	CLASS_MOVED,           /* from file to file, never in user space */
	CLASS_MAPPED,          /* mapped into user space */
	CLASS_DIRECT,          /* O_DIRECT: the device reads or writes user memory */
	CLASS_VOID,            /* no data at all: null, zero, dropped by MSG_TRUNC */
	CLASS_ZEROCOPY,        /* sent from user memory in place */
	CLASS_ZEROCOPY_COPIED, /* ... of which the kernel reported a copy after all */
	CLASS_ZEROCOPY_KEPT,   /* ... of which the kernel reported no copy */
};

/* An end of a move. Mirrored by Kind in moves.go. */
enum kind {
	KIND_USER,
	KIND_REGULAR,
	KIND_PIPE,
	KIND_BLOCK,
	KIND_CHARACTER,
	KIND_VOID,      /* /dev/null, /dev/zero, /dev/full */
	KIND_ANONYMOUS, /* eventfd, timerfd, epoll, ... */
	KIND_OTHER,
	KIND_PROCESS,   /* another process's memory */
	KIND_CLOSED,    /* a descriptor that was closed before the call returned */
	KIND_UNKNOWN,
	KIND_SOCKET = 0x1000, /* | family << 4 | type */
};

#define OPERATION_URING 0x8000 /* marks an io_uring opcode among system calls */

struct move_key {
	__u8 role;
	__u8 class;
	__u16 operation;
	__u16 from;
	__u16 to;
};

struct move {
	__u64 calls;
	__u64 bytes;
	__u64 failed; /* calls that returned an error ... */
	__u64 again;  /* ... of which EAGAIN */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct move_key);
	__type(value, struct move);
} moves SEC(".maps");

/* Counters of a role that are not tied to a file. Mirrored by Activity in Go. */
struct activity {
	__u64 system_calls;
	__u64 voluntary_switches;
	__u64 involuntary_switches;
	__u64 wakeups;
	__u64 file_faults;
	__u64 anonymous_faults;
	__u64 unresolved_faults;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_ROLES);
	__type(key, __u32);
	__type(value, struct activity);
} activities SEC(".maps");

static __always_inline struct activity *activity_of(__u16 role)
{
	__u32 index = role;

	return bpf_map_lookup_elem(&activities, &index);
}

/* Not on the stack: it is 512 bytes for all nested functions together. */
static const struct move no_move = {};

static __always_inline void add(struct move_key *key, __u64 calls, __u64 bytes)
{
	struct move *m = bpf_map_lookup_elem(&moves, key);

	if (!m) {
		bpf_map_update_elem(&moves, key, &no_move, BPF_NOEXIST);
		m = bpf_map_lookup_elem(&moves, key);
		if (!m) {
			COUNT_LOSS(entries);
			return;
		}
	}
	m->calls += calls;
	m->bytes += bytes;
}

#define EAGAIN 11

static __always_inline void add_failure(struct move_key *key, __s64 result)
{
	struct move *m;

	add(key, 1, 0);
	m = bpf_map_lookup_elem(&moves, key);
	if (!m)
		return;
	m->failed++;
	if (result == -EAGAIN)
		m->again++;
}

/* One call that moved `result` bytes, or failed with that error. */
static __always_inline void add_call(struct move_key *key, __s64 result)
{
	if (result < 0)
		add_failure(key, result);
	else
		add(key, 1, result);
}

/* ---- Which file a descriptor names ---- */

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define O_DIRECT 040000
#define FMODE_WRITE 2
#define ANON_INODE_FS_MAGIC 0x09041934
#define MEMORY_DEVICE(minor) (1 << 20 | (minor))

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1

struct file_facts {
	struct sock *sock; /* of a socket */
	__u16 kind;
	bool direct;
	bool writable;
};

static __always_inline __u16 socket_kind(struct file *file, struct sock **sock)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *found = BPF_CORE_READ(socket, sk);
	__u16 family, type;

	family = BPF_CORE_READ(found, __sk_common.skc_family);
	type = BPF_CORE_READ(socket, type);
	*sock = found;
	return KIND_SOCKET | (family & 0xff) << 4 | (type & 0xf);
}

static __always_inline __u16 character_kind(struct inode *inode)
{
	switch (BPF_CORE_READ(inode, i_rdev)) {
	case MEMORY_DEVICE(3): /* null */
	case MEMORY_DEVICE(5): /* zero */
	case MEMORY_DEVICE(7): /* full */
		return KIND_VOID;
	}
	return KIND_CHARACTER;
}

static __noinline void describe_file(struct file *file, struct file_facts *facts)
{
	struct inode *inode;
	unsigned int flags;

	inode = BPF_CORE_READ(file, f_inode);
	flags = BPF_CORE_READ(file, f_flags);
	facts->writable = BPF_CORE_READ(file, f_mode) & FMODE_WRITE;
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case S_IFSOCK:
		facts->kind = socket_kind(file, &facts->sock);
		return;
	case S_IFIFO:
		facts->kind = KIND_PIPE;
		return;
	case S_IFREG:
		facts->kind = KIND_REGULAR;
		facts->direct = flags & O_DIRECT;
		/* Since 6.16 anonymous inodes call themselves regular files. */
		if (BPF_CORE_READ(inode, i_sb, s_magic) == ANON_INODE_FS_MAGIC)
			facts->kind = KIND_ANONYMOUS;
		return;
	case S_IFBLK:
		facts->kind = KIND_BLOCK;
		facts->direct = flags & O_DIRECT;
		return;
	case S_IFCHR:
		facts->kind = character_kind(inode);
		return;
	case 0:
		facts->kind = KIND_ANONYMOUS;
		return;
	}
	facts->kind = KIND_OTHER;
}

static __always_inline void describe_fd(__u64 fd, struct file_facts *facts)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slots;
	struct file *file = NULL;
	__u32 index = fd;

	__builtin_memset(facts, 0, sizeof(*facts));
	facts->kind = KIND_CLOSED;
	if (index >= BPF_CORE_READ(table, max_fds))
		return;
	slots = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &slots[index]);
	if (file)
		describe_file(file, facts);
}

/* ---- Plain transfers between user memory and one file ---- */

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

/* ---- Messages ---- */

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

/* ---- Zero-copy sends, and what became of them ---- */

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

/* ---- Moves that stay in the kernel, and mappings ---- */

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

/* ---- System calls ---- */

/* The kernel's struct pt_regs of x86-64 from r10 on: an ABI (ptrace shows it). */
struct call_registers {
	__u64 r10, r9, r8, ax, cx, dx, si, di, number, ip, cs;
};
#define OFFSET_OF_R10 (7 * 8)
#define CS_OF_32_BIT_PROGRAMS 0x23

SEC("raw_tp/sys_exit")
int account_system_call(struct bpf_raw_tracepoint_args *ctx)
{
	struct move_key key = {};
	struct call_registers r;
	struct activity *activity;
	__s64 result = ctx->args[1];
	__u16 role;

	if (!current_role(&role))
		return 0;
	activity = activity_of(role);
	if (!activity)
		return 0;
	activity->system_calls++;
	if (bpf_probe_read_kernel(&r, sizeof(r), (void *)ctx->args[0] + OFFSET_OF_R10))
		return 0;
	if ((r.cs & 0xffff) == CS_OF_32_BIT_PROGRAMS) {
		COUNT_LOSS(compat);
		return 0;
	}
	key.role = role;
	key.operation = r.number;

	switch (r.number) {
	case __NR_read:
	case __NR_pread64:
	case __NR_readv:
	case __NR_preadv:
	case __NR_preadv2:
		add_input(&key, r.di, result);
		return 0;
	case __NR_write:
	case __NR_pwrite64:
	case __NR_writev:
	case __NR_pwritev:
	case __NR_pwritev2:
		add_output(&key, r.di, result);
		return 0;
	case __NR_recvfrom:
		add_receive(&key, r.di, r.r10, result, r.dx);
		return 0;
	case __NR_recvmsg:
		add_receive_message(&key, r.di, r.si, r.dx, result);
		return 0;
	case __NR_recvmmsg:
		add_receive_many(&key, r.di, r.si, r.r10, result);
		return 0;
	case __NR_sendto:
		add_send(&key, r.di, r.r10, result);
		return 0;
	case __NR_sendmsg:
		add_send(&key, r.di, r.dx, result);
		return 0;
	case __NR_sendmmsg:
		add_send_many(&key, r.di, r.si, r.r10, result);
		return 0;
	case __NR_sendfile:
		add_moved(&key, r.si, r.di, result);
		return 0;
	case __NR_splice:
	case __NR_copy_file_range:
		add_moved(&key, r.di, r.dx, result);
		return 0;
	case __NR_tee:
		add_moved(&key, r.di, r.si, result);
		return 0;
	case __NR_vmsplice:
		add_vmsplice(&key, r.di, result);
		return 0;
	case __NR_mmap:
		add_mapping(&key, r.si, r.r10, r.r8, result);
		return 0;
	case __NR_process_vm_readv:
		key.from = KIND_PROCESS;
		key.class = CLASS_COPY;
		add_call(&key, result);
		return 0;
	case __NR_process_vm_writev:
		key.to = KIND_PROCESS;
		key.class = CLASS_COPY;
		add_call(&key, result);
		return 0;
	}
	/* Other calls return addresses and flags too: an error is a small negative. */
	if (result < 0 && result >= -MAX_ERRNO)
		add_failure(&key, result);
	else
		add(&key, 1, 0);
	return 0;
}

/* ---- io_uring ---- */

/* Set before loading: until 6.13 the tracepoint passed the completion by value. */
const volatile bool completion_by_value = false;

enum uring_opcode {
	URING_READV = 1,
	URING_WRITEV = 2,
	URING_READ_FIXED = 4,
	URING_WRITE_FIXED = 5,
	URING_SENDMSG = 9,
	URING_RECVMSG = 10,
	URING_READ = 22,
	URING_WRITE = 23,
	URING_SEND = 26,
	URING_RECV = 27,
	URING_SPLICE = 30,
	URING_TEE = 33,
	URING_SEND_ZC = 47,
	URING_SENDMSG_ZC = 48,
	URING_READ_MULTISHOT = 49,
	URING_READV_FIXED = 58,
	URING_WRITEV_FIXED = 59,
};

#define REQ_F_FIXED_FILE 1
#define CQE_F_MORE 2
#define CQE_F_NOTIF 8
#define NOTIF_USAGE_ZC_COPIED (1U << 31)

/* Requests that may complete more than once, by their user_data. */
struct in_flight_key {
	__u64 ring;
	__u64 user_data;
};

struct in_flight {
	__u64 bytes; /* of a zero-copy send */
	__u16 role;
	__u16 kind;
	__u8 opcode;
	__u8 unused[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct in_flight_key);
	__type(value, struct in_flight);
} in_flight SEC(".maps");

static __always_inline bool completes_repeatedly(__u8 opcode)
{
	switch (opcode) {
	case URING_RECV:
	case URING_RECVMSG:
	case URING_READ_MULTISHOT:
	case URING_SEND_ZC:
	case URING_SENDMSG_ZC:
		return true;
	}
	return false;
}

SEC("raw_tp/io_uring_submit_req")
int remember_request(struct bpf_raw_tracepoint_args *ctx)
{
	struct io_kiocb *request = (void *)ctx->args[0];
	struct in_flight_key key = {};
	struct in_flight value = {};
	struct file_facts facts;
	__u16 role;

	if (!current_role(&role))
		return 0;
	value.role = role;
	value.opcode = BPF_CORE_READ(request, opcode);
	if (!completes_repeatedly(value.opcode))
		return 0;
	key.ring = (__u64)BPF_CORE_READ(request, ctx);
	key.user_data = BPF_CORE_READ(request, cqe.user_data);
	value.kind = KIND_UNKNOWN;
	if (!(BPF_CORE_READ(request, flags) & REQ_F_FIXED_FILE)) {
		describe_fd(BPF_CORE_READ(request, cqe.fd), &facts);
		value.kind = facts.kind;
	}
	if (bpf_map_update_elem(&in_flight, &key, &value, BPF_ANY))
		COUNT_LOSS(in_flight);
	return 0;
}

/* Fills class and ends of a completed operation from its opcode and file. */
static __always_inline void describe_operation(struct move_key *key, __u8 opcode,
					       const struct file_facts *facts)
{
	key->operation = OPERATION_URING | opcode;
	switch (opcode) {
	case URING_READ:
	case URING_READV:
	case URING_READ_FIXED:
	case URING_READV_FIXED:
	case URING_READ_MULTISHOT:
	case URING_RECV:
	case URING_RECVMSG:
		key->from = facts->kind;
		key->class = class_of(facts);
		return;
	case URING_WRITE:
	case URING_WRITEV:
	case URING_WRITE_FIXED:
	case URING_WRITEV_FIXED:
	case URING_SEND:
	case URING_SENDMSG:
		key->to = facts->kind;
		key->class = class_of(facts);
		return;
	case URING_SEND_ZC:
	case URING_SENDMSG_ZC:
		key->to = facts->kind;
		key->class = CLASS_ZEROCOPY;
		return;
	case URING_SPLICE:
	case URING_TEE:
		/* The request only keeps its output file. */
		key->from = KIND_UNKNOWN;
		key->to = facts->kind;
		key->class = CLASS_MOVED;
		return;
	}
	key->class = CLASS_CALL;
}

static __always_inline bool request_role(struct io_kiocb *request, __u16 *role)
{
	struct io_kiocb___with_task *older = (void *)request;
	struct task_struct *task;

	if (bpf_core_field_exists(older->task))
		task = BPF_CORE_READ(older, task);
	else
		task = BPF_CORE_READ(request, tctx, task);
	return process_role(BPF_CORE_READ(task, tgid), role) || current_cgroup_role(role);
}

static __always_inline void add_completion(struct move_key *key, __s32 result)
{
	if (key->class == CLASS_CALL && result >= 0)
		result = 0;
	add_call(key, result);
}

/* A later completion of one request: the kernel passes no request with it. */
static __noinline void complete_again(struct in_flight_key *at, __s32 result, __u32 flags)
{
	struct in_flight *request;
	struct move_key key = {};
	struct file_facts facts = {};

	request = bpf_map_lookup_elem(&in_flight, at);
	if (!request)
		return;
	key.role = request->role;
	facts.kind = request->kind;
	describe_operation(&key, request->opcode, &facts);
	if (flags & CQE_F_NOTIF) {
		/* A report of 0 also stands for "not asked to report". */
		if (result & NOTIF_USAGE_ZC_COPIED) {
			key.class = CLASS_ZEROCOPY_COPIED;
			add(&key, 1, request->bytes);
		}
	} else {
		add_completion(&key, result);
	}
	if (!(flags & CQE_F_MORE))
		bpf_map_delete_elem(&in_flight, at);
}

static __noinline void complete_request(struct io_kiocb *request, struct in_flight_key *at,
				       __s32 result, __u32 flags)
{
	struct move_key key = {};
	struct file_facts facts = {};
	struct in_flight *known;
	struct file *file;
	__u8 opcode;
	__u16 role;

	if (!request_role(request, &role))
		return;
	opcode = BPF_CORE_READ(request, opcode);
	facts.kind = KIND_CLOSED;
	file = BPF_CORE_READ(request, file);
	if (file)
		describe_file(file, &facts);
	key.role = role;
	describe_operation(&key, opcode, &facts);
	add_completion(&key, result);
	if (!completes_repeatedly(opcode))
		return;
	if (!(flags & CQE_F_MORE)) {
		bpf_map_delete_elem(&in_flight, at);
		return;
	}
	known = bpf_map_lookup_elem(&in_flight, at);
	if (known && result > 0) {
		known->bytes = result;
		known->kind = facts.kind;
	}
}

SEC("raw_tp/io_uring_complete")
int account_completion(struct bpf_raw_tracepoint_args *ctx)
{
	struct in_flight_key at = { .ring = ctx->args[0] };
	struct io_kiocb *request = (void *)ctx->args[1];
	struct {
		__u64 user_data;
		__s32 result;
		__u32 flags;
	} completion = {};

	if (completion_by_value) {
		completion.user_data = ctx->args[2];
		completion.result = ctx->args[3];
		completion.flags = ctx->args[4];
	} else if (bpf_probe_read_kernel(&completion, sizeof(completion), (void *)ctx->args[2])) {
		return 0;
	}
	at.user_data = completion.user_data;
	if (!request || (completion.flags & CQE_F_NOTIF))
		complete_again(&at, completion.result, completion.flags);
	else
		complete_request(request, &at, completion.result, completion.flags);
	return 0;
}

/* ---- Following processes ---- */

/* Threads that start a process on the ledger's behalf: their next children are targets. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ROLES);
	__type(key, __u32);
	__type(value, struct target);
} starters SEC(".maps");

SEC("raw_tp/sched_process_fork")
int follow_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (void *)ctx->args[1];
	__u32 child_tgid = BPF_CORE_READ(child, tgid);
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tgid = id >> 32, tid = id;
	struct target *target;

	if (child_tgid == tgid)
		return 0; /* a thread: counted with its process */
	target = bpf_map_lookup_elem(&starters, &tid);
	if (!target)
		target = bpf_map_lookup_elem(&targets, &tgid);
	if (target && bpf_map_update_elem(&targets, &child_tgid, target, BPF_ANY))
		COUNT_LOSS(processes);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int follow_exec(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct target *target = bpf_map_lookup_elem(&targets, &tgid);

	if (target)
		target->waits_for_exec = 0;
	return 0;
}

SEC("raw_tp/sched_process_exit")
int follow_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if (BPF_CORE_READ(task, signal, live.counter) == 0)
		bpf_map_delete_elem(&targets, &tgid);
	return 0;
}

/* ---- Scheduling and page faults ---- */

SEC("raw_tp/sched_switch")
int account_switch(struct bpf_raw_tracepoint_args *ctx)
{
	/* As the kernel counts: voluntary is who gave up the CPU and can't run. */
	bool voluntary = !ctx->args[0] && ctx->args[3];
	struct activity *activity;
	__u16 role;

	if (!current_role(&role))
		return 0;
	activity = activity_of(role);
	if (!activity)
		return 0;
	if (voluntary)
		activity->voluntary_switches++;
	else
		activity->involuntary_switches++;
	return 0;
}

/* The role of a task other than the running one, by its control group. */
static __always_inline bool cgroup_role_of(struct task_struct *task, __u16 *role)
{
	__u32 zero = 0;
	struct cgroup_targets *c = bpf_map_lookup_elem(&cgroups, &zero);
	struct cgroup *group;

	if (!c || !c->count)
		return false;
	group = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	for (int i = 0; i < MAX_CGROUPS && i < c->count; i++) {
		struct cgroup *ancestor = NULL;
		__u32 level = c->entry[i].level;

		if (level > BPF_CORE_READ(group, level))
			continue;
		bpf_core_read(&ancestor, sizeof(ancestor), &group->ancestors[level]);
		if (BPF_CORE_READ(ancestor, kn, id) == c->entry[i].id) {
			*role = c->entry[i].role;
			return true;
		}
	}
	return false;
}

SEC("raw_tp/sched_waking")
int account_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct activity *activity;
	__u16 role;

	if (!process_role(BPF_CORE_READ(task, tgid), &role) && !cgroup_role_of(task, &role))
		return 0;
	activity = activity_of(role);
	if (activity)
		activity->wakeups++;
	return 0;
}

struct fault {
	bool in_file;
};

static long look_at_area(struct task_struct *task, struct vm_area_struct *area,
			 struct fault *fault)
{
	fault->in_file = area->vm_file != NULL;
	return 0;
}

#define FIRST_KERNEL_ADDRESS (1UL << 63)

static __always_inline int account_fault(__u64 address)
{
	struct fault fault = {};
	struct activity *activity;
	__u16 role;

	if (address >= FIRST_KERNEL_ADDRESS || !current_role(&role))
		return 0;
	activity = activity_of(role);
	if (!activity)
		return 0;
	if (bpf_find_vma(bpf_get_current_task_btf(), address, look_at_area, &fault, 0))
		activity->unresolved_faults++;
	else if (fault.in_file)
		activity->file_faults++;
	else
		activity->anonymous_faults++;
	return 0;
}

SEC("raw_tp/page_fault_user")
int account_user_fault(struct bpf_raw_tracepoint_args *ctx)
{
	return account_fault(ctx->args[0]);
}

/* The kernel touching user memory on behalf of a call: write() from a mapping. */
SEC("raw_tp/page_fault_kernel")
int account_kernel_fault(struct bpf_raw_tracepoint_args *ctx)
{
	return account_fault(ctx->args[0]);
}
