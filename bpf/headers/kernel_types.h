/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few kernel structures that Waggle's BPF programs look into, with only
 * the fields they use. Every access is a CO-RE relocation: the loader puts in
 * the offsets of the running kernel's BTF, so order, padding and missing
 * fields here don't matter. Names and types must match the kernel's.
 *
 * Written by hand instead of a dumped vmlinux.h (135,000 lines): what is not
 * listed here is not relied on. Checked on Linux 6.1 and 6.18.
 *
 * A structure that changed between kernels appears once more with a suffix
 * ___NAME, which CO-RE ignores: struct io_kiocb___with_task.
 *
 * Include after <linux/bpf.h>.
 */
#ifndef WAGGLE_KERNEL_TYPES_H
#define WAGGLE_KERNEL_TYPES_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* Files */

struct super_block {
	unsigned long s_magic;
};

struct inode {
	__u16 i_mode;
	__u32 i_rdev;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct vm_area_struct {
	struct file *vm_file;
};

/* Tasks and control groups */

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[0];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	int tgid;
	struct files_struct *files;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

/* Sockets */

struct sock_common {
	unsigned short skc_family;
	unsigned long skc_flags;
};

enum sock_flags {
	SOCK_ZEROCOPY,
};

struct sock {
	struct sock_common __sk_common;
	atomic_t sk_zckey;
};

struct socket {
	short type;
	struct sock *sk;
};

struct sk_buff {
	unsigned int len;
	unsigned int data_len;
	unsigned int tail;
};

/* Iterators over the memory that a copy reads or writes */

enum iter_type {
	ITER_IOVEC,
	ITER_UBUF,
	ITER_PIPE,
	ITER_DISCARD,
};

struct iov_iter {
	__u8 iter_type;
};

struct msghdr {
	struct iov_iter msg_iter;
	unsigned int msg_flags;
	void *msg_ubuf;
};

/* io_uring */

struct io_cqe {
	__u64 user_data;
	int fd;
};

struct io_uring_task {
	struct task_struct *task;
};

struct io_ring_ctx;

struct io_kiocb {
	struct file *file;
	__u8 opcode;
	unsigned int flags; /* 64 bits wide since 6.8: read as the low half */
	struct io_cqe cqe;
	struct io_ring_ctx *ctx;
	struct io_uring_task *tctx;
};

/* Until 6.12 a request pointed to its task directly. */
struct io_kiocb___with_task {
	struct task_struct *task;
};

/* Registers of a task at a system call, on x86-64 */

struct pt_regs {
	unsigned long r10, r8, dx, si, di, orig_ax, cs;
};

#pragma clang attribute pop

/* Since Linux 6.2: makes an address a pointer that a program may follow without
 * a helper. It costs nothing: the kernel replaces the call by a move. */
extern void *bpf_rdonly_cast(const void *address, __u32 btf_id) __ksym __weak;

/* A field of the kernel structure at an address; zero if nothing is there. */
#define READ(type, address, field)                                                                \
	(bpf_rdonly_cast ?                                                                        \
		 ((type *)bpf_rdonly_cast(address, bpf_core_type_id_kernel(type)))->field :       \
		 BPF_CORE_READ((type *)(address), field))

#endif
