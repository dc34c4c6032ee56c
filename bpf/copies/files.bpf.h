/* SPDX-License-Identifier: GPL-2.0 */
/* Which file a descriptor names, as far as the ledger wants to know. */
#ifndef WAGGLE_COPIES_FILES_H
#define WAGGLE_COPIES_FILES_H

#include "moves.bpf.h"

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
	bool writable; /* of a pipe */
};

static __always_inline __u16 socket_kind(struct file *file, struct sock **sock)
{
	struct socket *socket = READ(struct file, file, private_data);
	struct sock *found = READ(struct socket, socket, sk);
	__u16 family, type;

	family = READ(struct sock, found, __sk_common.skc_family);
	type = READ(struct socket, socket, type);
	*sock = found;
	return KIND_SOCKET | (family & 0xff) << 4 | (type & 0xf);
}

static __always_inline __u16 character_kind(struct inode *inode)
{
	switch (READ(struct inode, inode, i_rdev)) {
	case MEMORY_DEVICE(3): /* null */
	case MEMORY_DEVICE(5): /* zero */
	case MEMORY_DEVICE(7): /* full */
		return KIND_VOID;
	}
	return KIND_CHARACTER;
}

/* Since 6.16 anonymous inodes call themselves regular files. */
static __always_inline bool is_anonymous(struct inode *inode)
{
	struct super_block *super = READ(struct inode, inode, i_sb);

	return READ(struct super_block, super, s_magic) == ANON_INODE_FS_MAGIC;
}

static __noinline void describe_file(struct file *file, struct file_facts *facts)
{
	struct inode *inode = READ(struct file, file, f_inode);

	switch (READ(struct inode, inode, i_mode) & S_IFMT) {
	case S_IFSOCK:
		facts->kind = socket_kind(file, &facts->sock);
		return;
	case S_IFIFO:
		facts->kind = KIND_PIPE;
		facts->writable = READ(struct file, file, f_mode) & FMODE_WRITE;
		return;
	case S_IFREG:
		facts->kind = KIND_REGULAR;
		facts->direct = READ(struct file, file, f_flags) & O_DIRECT;
		if (is_anonymous(inode))
			facts->kind = KIND_ANONYMOUS;
		return;
	case S_IFBLK:
		facts->kind = KIND_BLOCK;
		facts->direct = READ(struct file, file, f_flags) & O_DIRECT;
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
	/* The running task is a pointer that may be followed without a helper, as far as types reach. */
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = task->files->fdt;
	struct file *file = NULL;
	__u32 index = fd;

	__builtin_memset(facts, 0, sizeof(*facts));
	facts->kind = KIND_CLOSED;
	if (index >= table->max_fds)
		return;
	bpf_probe_read_kernel(&file, sizeof(file), &table->fd[index]);
	if (file)
		describe_file(file, facts);
}

#endif
