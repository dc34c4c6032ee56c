/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What both backends of the copy ledger share: whose copies are counted, and
 * the tables they are counted in. doc.go says what each number means.
 */
#ifndef WAGGLE_COPIES_LEDGER_H
#define WAGGLE_COPIES_LEDGER_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel_types.h"

#define MAX_ROLES 64
#define MAX_CGROUPS 16

/* A tracked process: its role, and whether counting waits for its exec. */
struct target {
	__u16 role;
	__u8 waits_for_exec;
	__u8 unused;
};

/* Processes by thread group id. The size is set before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

/* Control groups whose tasks, and those of their descendants, are counted. */
struct cgroup_target {
	__u64 id;
	__u32 level;
	__u16 role;
	__u16 unused;
};

struct cgroup_targets {
	__u32 count;
	__u32 unused;
	struct cgroup_target entry[MAX_CGROUPS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgroup_targets);
} cgroups SEC(".maps");

/* What the ledger could not count, so that no loss is silent. */
struct losses {
	__u64 processes; /* forked children that found the table of targets full */
	__u64 entries;   /* calls that found a table of counters full */
	__u64 in_flight; /* io_uring requests and zero-copy sends not remembered */
	__u64 unread;    /* calls whose arguments in user memory could not be read */
	__u64 compat;    /* calls of 32-bit programs: counted, their bytes are not */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct losses);
} lost SEC(".maps");

#define COUNT_LOSS(what)                                              \
	do {                                                          \
		__u32 zero = 0;                                       \
		struct losses *l = bpf_map_lookup_elem(&lost, &zero); \
		if (l)                                                \
			l->what++;                                    \
	} while (0)

/* The role of the running task's control group, among those registered. */
static __always_inline bool current_cgroup_role(__u16 *role)
{
	__u32 zero = 0;
	struct cgroup_targets *c = bpf_map_lookup_elem(&cgroups, &zero);

	if (!c || !c->count)
		return false;
	for (int i = 0; i < MAX_CGROUPS && i < c->count; i++) {
		if (bpf_get_current_ancestor_cgroup_id(c->entry[i].level) == c->entry[i].id) {
			*role = c->entry[i].role;
			return true;
		}
	}
	return false;
}

static __always_inline bool process_role(__u32 tgid, __u16 *role)
{
	struct target *t = bpf_map_lookup_elem(&targets, &tgid);

	if (!t || t->waits_for_exec)
		return false;
	*role = t->role;
	return true;
}

/* The role of the running task; false when nobody asked to count it. */
static __always_inline bool current_role(__u16 *role)
{
	return process_role(bpf_get_current_pid_tgid() >> 32, role) ||
	       current_cgroup_role(role);
}

#endif
