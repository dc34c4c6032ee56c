/* SPDX-License-Identifier: GPL-2.0 */
/* The tables of backend `boundary`: what was moved by whom, and what else a role did. */
#ifndef WAGGLE_COPIES_MOVES_H
#define WAGGLE_COPIES_MOVES_H

#include "ledger.bpf.h"

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

#endif
