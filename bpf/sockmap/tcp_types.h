/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

/* The parts of the kernel's socket types that the programs read. CO-RE puts in
 * the running kernel's offsets. Include after <linux/bpf.h>. */
#ifndef WAGGLE_SOCKMAP_TCP_TYPES_H
#define WAGGLE_SOCKMAP_TCP_TYPES_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct sock {
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	int sk_rcvbuf;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 snd_una;
};

#pragma clang attribute pop

#endif
