/* SPDX-License-Identifier: GPL-2.0 */
/* io_uring: operations are counted by their completions. */
#ifndef WAGGLE_COPIES_URING_H
#define WAGGLE_COPIES_URING_H

#include "files.bpf.h"

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

#endif
