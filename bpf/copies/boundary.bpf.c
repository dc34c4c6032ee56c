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
#include <asm/unistd_64.h>

#include "activity.bpf.h"
#include "follow.bpf.h"
#include "transfers.bpf.h"
#include "uring.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#define CS_OF_32_BIT_PROGRAMS 0x23

#define REGISTER(name) READ(struct pt_regs, (void *)ctx->args[0], name)

SEC("raw_tp/sys_exit")
int account_system_call(struct bpf_raw_tracepoint_args *ctx)
{
	struct move_key key = {};
	struct activity *activity;
	__s64 result = ctx->args[1];
	__u64 number;
	__u16 role;

	if (!current_role(&role))
		return 0;
	activity = activity_of(role);
	if (!activity)
		return 0;
	activity->system_calls++;
	if ((REGISTER(cs) & 0xffff) == CS_OF_32_BIT_PROGRAMS) {
		COUNT_LOSS(compat);
		return 0;
	}
	key.role = role;
	number = REGISTER(orig_ax);
	key.operation = number;

	switch (number) {
	case __NR_read:
	case __NR_pread64:
	case __NR_readv:
	case __NR_preadv:
	case __NR_preadv2:
		add_input(&key, REGISTER(di), result);
		return 0;
	case __NR_write:
	case __NR_pwrite64:
	case __NR_writev:
	case __NR_pwritev:
	case __NR_pwritev2:
		add_output(&key, REGISTER(di), result);
		return 0;
	case __NR_recvfrom:
		add_receive(&key, REGISTER(di), REGISTER(r10), result, REGISTER(dx));
		return 0;
	case __NR_recvmsg:
		add_receive_message(&key, REGISTER(di), REGISTER(si), REGISTER(dx), result);
		return 0;
	case __NR_recvmmsg:
		add_receive_many(&key, REGISTER(di), REGISTER(si), REGISTER(r10), result);
		return 0;
	case __NR_sendto:
		add_send(&key, REGISTER(di), REGISTER(r10), result);
		return 0;
	case __NR_sendmsg:
		add_send(&key, REGISTER(di), REGISTER(dx), result);
		return 0;
	case __NR_sendmmsg:
		add_send_many(&key, REGISTER(di), REGISTER(si), REGISTER(r10), result);
		return 0;
	case __NR_sendfile:
		add_moved(&key, REGISTER(si), REGISTER(di), result);
		return 0;
	case __NR_splice:
	case __NR_copy_file_range:
		add_moved(&key, REGISTER(di), REGISTER(dx), result);
		return 0;
	case __NR_tee:
		add_moved(&key, REGISTER(di), REGISTER(si), result);
		return 0;
	case __NR_vmsplice:
		add_vmsplice(&key, REGISTER(di), result);
		return 0;
	case __NR_mmap:
		add_mapping(&key, REGISTER(si), REGISTER(r10), REGISTER(r8), result);
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
