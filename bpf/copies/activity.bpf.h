/* SPDX-License-Identifier: GPL-2.0 */
/* Context switches, wake-ups and page faults. */
#ifndef WAGGLE_COPIES_ACTIVITY_H
#define WAGGLE_COPIES_ACTIVITY_H

#include "moves.bpf.h"

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

#endif
