/* SPDX-License-Identifier: GPL-2.0 */
/* Following targets across fork, exec and exit. */
#ifndef WAGGLE_COPIES_FOLLOW_H
#define WAGGLE_COPIES_FOLLOW_H

#include "ledger.bpf.h"

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

#endif
