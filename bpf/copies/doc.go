// Package copies is the copy ledger: it counts the bytes that the CPU copies for processes
// and control groups, without changing them, and beside it the system calls, context
// switches, wake-ups and page faults that moving data cost.
//
//	ledger, err := copies.Open(copies.Options{})
//	defer ledger.Close()
//	err = ledger.Start("server", exec.Command("server"))  // or AddProcess, AddCgroup
//	before, err := ledger.Snapshot()
//	...
//	after, err := ledger.Snapshot()
//	trial := after.Minus(before).Roles["server"]
//	fmt.Println(trial.Crossed(copies.KernelToUser))
//
// # What a copy is
//
// A byte is copied when the CPU reads it from one place in memory and writes it to another.
// The ledger counts payload: bytes of files, pipes and sockets. It leaves out the arguments
// of system calls (paths, structures, addresses, control messages), results such as
// directory entries, DMA by devices, and copies that a program makes in its own memory.
//
// Backend [Boundary] counts copies that cross between user space and the kernel, by what
// the kernel answers to each call. Every row of the ledger ([Key]) says which operation
// moved bytes from where to where, and what class of move it was:
//
//   - [ClassCopy]: one CPU copy a byte. read, pread64, readv, preadv, preadv2, recvfrom,
//     recvmsg, recvmmsg: kernel to user. write, pwrite64, writev, pwritev, pwritev2, sendto,
//     sendmsg, sendmmsg: user to kernel. vmsplice out of a pipe: kernel to user.
//     process_vm_readv and process_vm_writev copy once between two user memories and count
//     for the side that the calling process is on. The bytes are those of the result, so
//     partial results count with what was done, and a failed call (EAGAIN too) counts as a
//     call without bytes. A multi-message call is the sum over its messages.
//   - [ClassPeek]: the same with MSG_PEEK. It is a copy like any other; its own class shows
//     that the bytes will be copied again.
//   - [ClassMoved]: sendfile, splice, tee, copy_file_range, vmsplice into a pipe. The bytes
//     don't cross the boundary. The kernel may still copy them inside (sendfile to a file
//     does, to a TCP socket does not): only backend sites sees that.
//   - [ClassMapped]: mmap of a file. The bytes are the length of the mapping, touched or not.
//     FileFaults says how often a page had to be found; the kernel maps up to 16 at a time.
//   - [ClassDirect]: O_DIRECT on a regular file or block device: the device accesses user
//     memory. A file system that quietly falls back to the page cache is not noticed.
//   - [ClassVoid]: /dev/null, /dev/zero, /dev/full, and TCP bytes dropped by MSG_TRUNC: the
//     result has a length, but nothing is copied.
//   - [ClassZeroCopy]: sends with MSG_ZEROCOPY on a socket with SO_ZEROCOPY (else the kernel
//     ignores the flag and the row is a ClassCopy), and io_uring's SEND_ZC: the kernel uses
//     the user's pages in place.
//   - [ClassZeroCopyCopied], [ClassZeroCopyKept]: what the kernel reported about these sends
//     later. Copied ones count as user to kernel: the copy happened, only later. Reports are
//     read from the error queue as the program reads it; a program that doesn't read it (or,
//     with io_uring, doesn't ask for usage reports) leaves this unknown.
//   - [ClassCall]: every other system call, and other io_uring operations: no bytes.
//
// A datagram cut by its buffer counts with what fitted, also under MSG_TRUNC, which makes
// the kernel return its whole length.
//
// io_uring operations are counted by their completions, under the opcode they were
// submitted with, and for the process that submitted them. Not seen: requests that suppress
// their completion (IOSQE_CQE_SKIP_SUCCESS). splice and tee over io_uring know only their
// output file. The file of a multishot request on a registered descriptor is unknown.
//
// Backend [Sites] counts the same, and beside it at the kernel's functions that copy, where
// each copy is user to kernel, kernel to user, or in the kernel, with the functions that
// called. [Counts.Copied] then takes its sums from there. What the two see differently:
//
//   - A zero-copy send that was copied after all is a copy in the kernel (skb_copy_ubufs).
//   - sendfile and copy_file_range to a file copy in the kernel. Packet headers that were moved
//     (pskb_expand_head, skb_copy_bits) are in there too.
//   - io_uring's fixed buffers are kernel memory to these functions.
//   - Not among them, for no function can be attached to: process_vm_readv and _writev, writes
//     to an eventfd, netlink and vsock sends, btrfs and FUSE writes, AF_XDP, FUSE's own copies.
//     Compare with the rows, which both backends have.
//   - Copies in interrupts count for the task that was interrupted.
//
// The kind of file is looked up when the call returns. If another thread closed or replaced
// the descriptor meanwhile, the bytes are right and the kind is "closed", or the new file's.
//
// # Calls, switches, wake-ups, faults
//
// SystemCalls counts returns: a call that never returns (exit_group, or running when the
// snapshot is taken) is not in it. A voluntary switch is a thread giving up its CPU to wait;
// an involuntary one is preemption. A wake-up is one try to make a thread of the role
// runnable. Faults are page faults at addresses in user space, also when the kernel touches
// user memory for a call.
//
// # Whom it counts
//
// [Ledger.Start] counts a command from its exec on; [Ledger.AddProcess] a running process
// from now on; both with all descendants, across fork and exec. [Ledger.AddCgroup] counts
// whatever runs in a control group. Filtering happens in the kernel. Calls of 32-bit programs
// are counted without their bytes. [Losses] says what was noticed but could not be counted:
// when it is zero, the numbers are complete.
//
// # Cost
//
// Programs run on the return of every system call of the machine, on context switches,
// wake-ups and page faults. What belongs to no target is dropped after one hash lookup.
// Counters are per CPU; nothing is sent to user space until a snapshot is taken.
// BenchmarkCost measures it.
//
// Needs x86-64, Linux 6.1 or newer with BTF, the initial process namespace, and CAP_BPF with
// CAP_PERFMON (or root); Sites also a kernel that lets programs attach to its functions.
package copies
