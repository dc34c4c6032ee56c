package copies

import (
	"fmt"
	"strings"
)

// Class says what happened to bytes. The values are those of enum class in moves.bpf.h.
type Class uint8

const (
	ClassCall           Class = iota // a system call that moves no file data
	ClassCopy                        // copied by the CPU across the boundary
	ClassPeek                        // the same, and they stay queued (MSG_PEEK)
	ClassMoved                       // from file to file without entering user space
	ClassMapped                      // mapped into user space, not copied
	ClassDirect                      // O_DIRECT: the device accesses user memory
	ClassVoid                        // no data behind it: /dev/null, /dev/zero, dropped by MSG_TRUNC
	ClassZeroCopy                    // sent from user memory in place (MSG_ZEROCOPY, SEND_ZC)
	ClassZeroCopyCopied              // of these, reported as copied after all
	ClassZeroCopyKept                // of these, reported as not copied
)

var classNames = [...]string{"call", "copy", "peek", "moved", "mapped", "direct", "void",
	"zerocopy", "zerocopy-copied", "zerocopy-kept"}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class-%d", uint8(c))
}

// Kind is one end of a move: user memory, or a kind of file. The values are those of enum
// kind in moves.bpf.h.
type Kind uint16

const (
	KindUser      Kind = iota // the calling process's memory
	KindRegular               // a regular file
	KindPipe                  // a pipe or FIFO
	KindBlock                 // a block device
	KindCharacter             // a character device: terminal, /dev/urandom, ...
	KindVoid                  // /dev/null, /dev/zero, /dev/full
	KindAnonymous             // eventfd, timerfd, epoll, ...
	KindOther                 // directory, symbolic link
	KindProcess               // another process's memory
	KindClosed                // a descriptor that was closed before the call returned
	KindUnknown               // not to be found out
	kindSocket    Kind = 0x1000
)

// SocketKind is the Kind of sockets of an address family (AF_...) and type (SOCK_...).
func SocketKind(family, socketType int) Kind {
	return kindSocket | Kind(family&0xff)<<4 | Kind(socketType&0xf)
}

// IsSocket tells whether the end is a socket of any family.
func (k Kind) IsSocket() bool { return k&kindSocket != 0 }

var (
	kindNames = [...]string{"user", "regular", "pipe", "block", "character", "void", "anonymous",
		"other", "process", "closed", "unknown"}
	socketKindNames = map[Kind]string{
		SocketKind(2, 1): "tcp", SocketKind(10, 1): "tcp6",
		SocketKind(2, 2): "udp", SocketKind(10, 2): "udp6",
	}
	familyNames = map[Kind]string{1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet",
		38: "alg", 40: "vsock", 44: "xdp"}
	socketTypeNames = map[Kind]string{1: "stream", 2: "datagram", 3: "raw", 5: "seqpacket"}
)

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	if name, ok := socketKindNames[k]; ok {
		return name
	}
	family, socketType := k>>4&0xff, k&0xf
	return nameOr(familyNames, family, "family") + "-" + nameOr(socketTypeNames, socketType, "type")
}

func nameOr(names map[Kind]string, k Kind, prefix string) string {
	if name, ok := names[k]; ok {
		return name
	}
	return fmt.Sprintf("%s%d", prefix, uint16(k))
}

// Operation is a system call number, or an io_uring opcode (see [UringOperation]).
type Operation uint16

const uringOperation Operation = 0x8000

// UringOperation is the Operation of an io_uring opcode (IORING_OP_...).
func UringOperation(opcode uint8) Operation { return uringOperation | Operation(opcode) }

// IsSystemCall is false for operations that were submitted to an io_uring.
func (o Operation) IsSystemCall() bool { return o&uringOperation == 0 }

var uringNames = strings.Fields(`nop readv writev fsync read_fixed write_fixed poll_add poll_remove
	sync_file_range sendmsg recvmsg timeout timeout_remove accept async_cancel link_timeout connect
	fallocate openat close files_update statx read write fadvise madvise send recv openat2 epoll_ctl
	splice provide_buffers remove_buffers tee shutdown renameat unlinkat mkdirat symlinkat linkat
	msg_ring fsetxattr setxattr fgetxattr getxattr socket uring_cmd send_zc sendmsg_zc read_multishot
	waitid futex_wait futex_wake futex_waitv fixed_fd_install ftruncate bind listen recv_zc epoll_wait
	readv_fixed writev_fixed pipe`)

func (o Operation) String() string {
	if opcode := int(o &^ uringOperation); !o.IsSystemCall() {
		if opcode < len(uringNames) {
			return "uring:" + uringNames[opcode]
		}
		return fmt.Sprintf("uring:%d", opcode)
	}
	if name, ok := systemCallNames[uint16(o)]; ok {
		return name
	}
	return fmt.Sprintf("call-%d", uint16(o))
}

// Direction is between which sides the CPU copied bytes.
type Direction uint8

const (
	NotCopied Direction = iota
	UserToKernel
	KernelToUser
	InKernel // only backend sites sees these
)

func (d Direction) String() string {
	return [...]string{"not copied", "user to kernel", "kernel to user", "in kernel"}[d]
}

// A Key names one row of the ledger: who did what to bytes between which ends.
type Key struct {
	Class     Class
	Operation Operation
	From, To  Kind
}

// Direction of a row whose bytes the CPU copied, else NotCopied.
func (k Key) Direction() Direction {
	switch k.Class {
	case ClassCopy, ClassPeek:
		// process_vm_readv and _writev copy once, between two user memories.
		if k.To == KindUser {
			return KernelToUser
		}
		return UserToKernel
	case ClassZeroCopyCopied:
		return UserToKernel
	}
	return NotCopied
}

// A Move is what a row counted. Laid out as struct move in moves.bpf.h.
type Move struct {
	Calls  uint64 // calls, or completions, or (for notifications of zero-copy) sends
	Bytes  uint64
	Failed uint64 // of the calls, those that returned an error ...
	Again  uint64 // ... of which EAGAIN
}

func (m *Move) add(o Move) {
	m.Calls += o.Calls
	m.Bytes += o.Bytes
	m.Failed += o.Failed
	m.Again += o.Again
}

func (m Move) minus(o Move) Move {
	return Move{m.Calls - o.Calls, m.Bytes - o.Bytes, m.Failed - o.Failed, m.Again - o.Again}
}
