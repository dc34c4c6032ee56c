package copies

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcp        = kindSocket | unix.AF_INET<<4 | unix.SOCK_STREAM
	udp        = kindSocket | unix.AF_INET<<4 | unix.SOCK_DGRAM
	unixStream = kindSocket | unix.AF_UNIX<<4 | unix.SOCK_STREAM
	unixPacket = kindSocket | unix.AF_UNIX<<4 | unix.SOCK_SEQPACKET

	fileSize = 100_003 // odd, and not a multiple of a page
	pipeSize = 65_536  // the default capacity
)

func input(operation int, from Kind) Key {
	return Key{ClassCopy, Operation(operation), from, KindUser}
}

func output(operation int, to Kind) Key {
	return Key{ClassCopy, Operation(operation), KindUser, to}
}

func moved(operation int, from, to Kind) Key {
	return Key{ClassMoved, Operation(operation), from, to}
}

func calls(n, size uint64) Move { return Move{Calls: n, Bytes: size} }

// How many calls of `size` bytes move the whole file, and the last one that finds its end.
func callsFor(size uint64) uint64 { return (fileSize + size - 1) / size }

var knownAnswers = []knownAnswer{
	{
		name: "read and write with odd sizes",
		prepare: func(dir string) func() {
			in, out := openFile(dir, "in", fileSize), openFile(dir, "out", 0)
			return func() { readAll(in, 977); writeAll(out, fileSize, 4099) }
		},
		want: map[Key]Move{
			input(unix.SYS_READ, KindRegular):   calls(callsFor(977)+1, fileSize),
			output(unix.SYS_WRITE, KindRegular): calls(callsFor(4099), fileSize),
		},
	},
	{
		name: "pread and pwritev",
		prepare: func(dir string) func() {
			in, out := openFile(dir, "in", fileSize), openFile(dir, "out", 0)
			return func() {
				must1(unix.Pread(in, make([]byte, 5003), 99_000)) // 1003 bytes before the end
				must1(unix.Pwritev(out, vector(1, 4096, 7919), 13))
				must1(unix.Preadv(out, vector(10, 20_000), 3))
			}
		},
		want: map[Key]Move{
			input(unix.SYS_PREAD64, KindRegular):  calls(1, 1003),
			output(unix.SYS_PWRITEV, KindRegular): calls(1, 12_016),
			input(unix.SYS_PREADV, KindRegular):   calls(1, 12_026),
		},
	},
	{
		name: "readv and writev on a pipe",
		prepare: func(string) func() {
			r, w := newPipe()
			return func() {
				must1(unix.Writev(w, vector(3, 5000, 1)))
				must1(unix.Readv(r, vector(4999, 8000)))
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITEV, KindPipe): calls(1, 5004),
			input(unix.SYS_READV, KindPipe):   calls(1, 5004),
		},
	},
	{
		name: "EAGAIN and partial results",
		prepare: func(string) func() {
			r, w := newPipe()
			must(unix.SetNonblock(r, true))
			must(unix.SetNonblock(w, true))
			return func() {
				buffer := make([]byte, 100_000)
				expect(unix.EAGAIN, second(unix.Read(r, buffer)))
				must1(unix.Write(w, buffer)) // takes what fits
				expect(unix.EAGAIN, second(unix.Write(w, buffer)))
				expect(unix.EBADF, second(unix.Write(r, buffer)))
			}
		},
		want: map[Key]Move{
			input(unix.SYS_READ, KindPipe):   {Calls: 1, Failed: 1, Again: 1},
			output(unix.SYS_WRITE, KindPipe): {Calls: 3, Bytes: pipeSize, Failed: 2, Again: 1},
		},
	},
	{
		name: "sendfile to TCP",
		prepare: func(dir string) func() {
			in := openFile(dir, "in", fileSize)
			from, to := tcpPair()
			return func() {
				must1(unix.Sendfile(from, in, nil, fileSize))
				readExactly(to, fileSize)
			}
		},
		want: map[Key]Move{
			moved(unix.SYS_SENDFILE, KindRegular, tcp): calls(1, fileSize),
			input(unix.SYS_READ, tcp):                  {Bytes: fileSize},
		},
		unordered: true,
	},
	{
		name: "sendfile to a file",
		prepare: func(dir string) func() {
			in, out := openFile(dir, "in", fileSize), openFile(dir, "out", 0)
			return func() { must1(unix.Sendfile(out, in, nil, fileSize)) }
		},
		want: map[Key]Move{
			moved(unix.SYS_SENDFILE, KindRegular, KindRegular): calls(1, fileSize),
		},
		sites: siteDifference{inKernel: fileSize},
	},
	{
		name: "splice through a pipe",
		prepare: func(dir string) func() {
			in := openFile(dir, "in", fileSize)
			r, w := newPipe()
			from, to := tcpPair()
			return func() {
				must1(unix.Splice(in, nil, w, nil, 30_001, 0))
				for left := 30_001; left > 0; {
					left -= int(must1(unix.Splice(r, nil, from, nil, left, 0)))
				}
				readExactly(to, 30_001)
			}
		},
		want: map[Key]Move{
			moved(unix.SYS_SPLICE, KindRegular, KindPipe): {Bytes: 30_001},
			moved(unix.SYS_SPLICE, KindPipe, tcp):         {Bytes: 30_001},
			input(unix.SYS_READ, tcp):                     {Bytes: 30_001},
		},
		unordered: true,
	},
	{
		name: "tee",
		prepare: func(string) func() {
			r1, w1 := newPipe()
			r2, w2 := newPipe()
			return func() {
				must1(unix.Write(w1, make([]byte, 12_345)))
				must1(unix.Tee(r1, w2, 65_536, 0))
				readExactly(r1, 12_345)
				readExactly(r2, 12_345)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, KindPipe):        calls(1, 12_345),
			moved(unix.SYS_TEE, KindPipe, KindPipe): calls(1, 12_345),
			input(unix.SYS_READ, KindPipe):          calls(2, 24_690),
		},
	},
	{
		name: "vmsplice",
		prepare: func(string) func() {
			r, w := newPipe()
			return func() {
				must1(unix.Vmsplice(w, vectors(vector(4096, 1000)), 0))
				must1(unix.Vmsplice(r, vectors(vector(5096)), 0))
			}
		},
		want: map[Key]Move{
			moved(unix.SYS_VMSPLICE, KindUser, KindPipe): calls(1, 5096),
			input(unix.SYS_VMSPLICE, KindPipe):           calls(1, 5096),
		},
	},
	{
		name: "copy_file_range",
		prepare: func(dir string) func() {
			in, out := openFile(dir, "in", fileSize), openFile(dir, "out", 0)
			return func() { must1(unix.CopyFileRange(in, nil, out, nil, fileSize, 0)) }
		},
		want: map[Key]Move{
			moved(unix.SYS_COPY_FILE_RANGE, KindRegular, KindRegular): calls(1, fileSize),
		},
		sites: siteDifference{inKernel: fileSize},
	},
	{
		name: "sendmmsg and recvmmsg",
		prepare: func(string) func() {
			from, to := udpPair()
			return func() {
				manyMessages(unix.SYS_SENDMMSG, from, 0, 100, 1, 8999)
				manyMessages(unix.SYS_RECVMMSG, to, 0, 500, 500, 9000)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_SENDMMSG, udp): calls(1, 9100),
			input(unix.SYS_RECVMMSG, udp):  calls(1, 9100),
		},
	},
	{
		name: "MSG_TRUNC on datagrams",
		prepare: func(string) func() {
			from, to := udpPair()
			return func() {
				for range 3 {
					must1(unix.Write(from, make([]byte, 5000)))
				}
				receive(to, 1000, unix.MSG_TRUNC)           // returns 5000, copies 1000
				receiveMessage(to, unix.MSG_TRUNC, 700, 77) // returns 5000, copies 777
				manyMessages(unix.SYS_RECVMMSG, to, unix.MSG_TRUNC, 600)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, udp):   calls(3, 15_000),
			input(unix.SYS_RECVFROM, udp): calls(1, 1000),
			input(unix.SYS_RECVMSG, udp):  calls(1, 777),
			input(unix.SYS_RECVMMSG, udp): calls(1, 600),
		},
	},
	{
		name: "MSG_PEEK and MSG_TRUNC on TCP",
		prepare: func(string) func() {
			from, to := tcpPair()
			return func() {
				must1(unix.Write(from, make([]byte, 3000)))
				receive(to, 1234, unix.MSG_PEEK)
				receiveMessage(to, unix.MSG_PEEK, 100, 200)
				receive(to, 1000, unix.MSG_TRUNC) // dropped, not copied
				receive(to, 2000, 0)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, tcp):                   calls(1, 3000),
			{ClassPeek, unix.SYS_RECVFROM, tcp, KindUser}: calls(1, 1234),
			{ClassPeek, unix.SYS_RECVMSG, tcp, KindUser}:  calls(1, 300),
			{ClassVoid, unix.SYS_RECVFROM, tcp, KindUser}: calls(1, 1000),
			input(unix.SYS_RECVFROM, tcp):                 calls(1, 2000),
		},
	},
	{
		name: "Unix sockets",
		prepare: func(string) func() {
			stream := must1(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0))
			packet := must1(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0))
			return func() {
				must(unix.Sendto(stream[0], make([]byte, 40_000), 0, nil))
				readExactly(stream[1], 40_000)
				must1(unix.SendmsgN(packet[0], make([]byte, 333), nil, nil, 0))
				receiveMessage(packet[1], 0, 1000)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_SENDTO, unixStream):  {Bytes: 40_000},
			input(unix.SYS_READ, unixStream):     {Bytes: 40_000},
			output(unix.SYS_SENDMSG, unixPacket): {Bytes: 333},
			input(unix.SYS_RECVMSG, unixPacket):  {Bytes: 333},
		},
		unordered: true,
	},
	{
		name: "MSG_ZEROCOPY over loopback",
		prepare: func(string) func() {
			from, to := tcpPair()
			must(unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1))
			return func() {
				buffer := make([]byte, 20_000)
				for range 3 {
					must(unix.Sendto(from, buffer, unix.MSG_ZEROCOPY, nil))
					readExactly(to, len(buffer))
				}
				must(unix.Sendto(from, buffer[:5000], 0, nil))
				readExactly(to, 5000)
				readNotifications(from, 3)
			}
		},
		want: map[Key]Move{
			{ClassZeroCopy, unix.SYS_SENDTO, KindUser, tcp}:        {Bytes: 60_000},
			output(unix.SYS_SENDTO, tcp):                           {Bytes: 5000},
			input(unix.SYS_READ, tcp):                              {Bytes: 65_000},
			input(unix.SYS_RECVMSG, tcp):                           {},
			{ClassZeroCopyCopied, unix.SYS_RECVMSG, KindUser, tcp}: {Bytes: 60_000},
		},
		// The late copy is seen where it happens: between pages, in the kernel.
		sites:     siteDifference{userToKernel: -60_000, inKernel: 60_000},
		unordered: true,
	},
	{
		name: "MSG_ZEROCOPY without SO_ZEROCOPY",
		prepare: func(string) func() {
			from, to := tcpPair()
			return func() {
				must(unix.Sendto(from, make([]byte, 20_000), unix.MSG_ZEROCOPY, nil))
				readExactly(to, 20_000)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_SENDTO, tcp): {Bytes: 20_000},
			input(unix.SYS_READ, tcp):    {Bytes: 20_000},
		},
		unordered: true,
	},
	{
		name: "mmap and write",
		prepare: func(dir string) func() {
			in := openFile(dir, "in", fileSize)
			_, w := newPipe()
			return func() {
				mapping := must1(unix.Mmap(in, 0, fileSize, unix.PROT_READ, unix.MAP_SHARED))
				must1(unix.Write(w, mapping[:50_001]))
			}
		},
		want: map[Key]Move{
			{ClassMapped, unix.SYS_MMAP, KindRegular, KindUser}: calls(1, fileSize),
			output(unix.SYS_WRITE, KindPipe):                    calls(1, 50_001),
		},
	},
	{
		name: "devices without data",
		prepare: func(string) func() {
			zero := must1(unix.Open("/dev/zero", unix.O_RDONLY, 0))
			null := must1(unix.Open("/dev/null", unix.O_WRONLY, 0))
			return func() {
				buffer := make([]byte, 10_000)
				must1(unix.Read(zero, buffer))
				must1(unix.Write(null, buffer))
			}
		},
		want: map[Key]Move{
			{ClassVoid, unix.SYS_READ, KindVoid, KindUser}:  calls(1, 10_000),
			{ClassVoid, unix.SYS_WRITE, KindUser, KindVoid}: calls(1, 10_000),
		},
	},
	{
		name: "eventfd",
		prepare: func(string) func() {
			fd := must1(unix.Eventfd(0, 0))
			return func() {
				must1(unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}))
				must1(unix.Read(fd, make([]byte, 8)))
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, KindAnonymous): calls(1, 8),
			input(unix.SYS_READ, KindAnonymous):   calls(1, 8),
		},
		sites: siteDifference{userToKernel: -8}, // eventfd_write takes a number, not an iterator
	},
	{
		name: "O_DIRECT",
		prepare: func(dir string) func() {
			openFile(dir, "in", 65_536)
			in := must1(unix.Open(filepath.Join(dir, "in"), unix.O_RDONLY|unix.O_DIRECT, 0))
			buffer := must1(unix.Mmap(-1, 0, 65_536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE))
			return func() { must1(unix.Read(in, buffer)) }
		},
		want: map[Key]Move{
			{ClassDirect, unix.SYS_READ, KindRegular, KindUser}: calls(1, 65_536),
		},
		missing: func(dir string) string {
			fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_DIRECT, 0o600)
			if err != nil {
				return "the file system of the temporary directory has no O_DIRECT: " + err.Error()
			}
			unix.Close(fd)
			return ""
		},
	},
	{
		name: "process_vm_readv",
		prepare: func(string) func() {
			return func() {
				remote := make([]byte, 9001)
				must1(unix.ProcessVMReadv(os.Getpid(), vectors(vector(9001)),
					[]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&remote[0])), Len: len(remote)}}, 0))
			}
		},
		want: map[Key]Move{
			input(unix.SYS_PROCESS_VM_READV, KindProcess): calls(1, 9001),
		},
		sites: siteDifference{kernelToUser: -9001}, // no function to attach to
	},
	{
		name: "fork and exec in between",
		prepare: func(string) func() {
			r, w := newPipe()
			return func() {
				must1(unix.Write(w, make([]byte, 1000)))
				runInner("inner writer", w)
				readExactly(r, 8777)
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, KindPipe): {Bytes: 8777},
			input(unix.SYS_READ, KindPipe):   {Bytes: 8777},
		},
		unordered: true,
		ignore: func(k Key) bool { // the Go runtime reads a file under /sys when it starts
			return k.From == KindRegular || k.From == KindVoid
		},
		sites: siteDifference{inKernelUnknown: true}, // exec reads the head of the program
	},
	{
		name: "thread pool",
		prepare: func(dir string) func() {
			in := openFile(dir, "in", fileSize)
			_, w := newPipe()
			return func() {
				var threads sync.WaitGroup
				for i := range 16 {
					threads.Go(func() {
						buffer := make([]byte, 1001)
						must1(unix.Pread(in, buffer, int64(i)*5000))
						must1(unix.Write(w, buffer))
					})
				}
				threads.Wait()
			}
		},
		want: map[Key]Move{
			input(unix.SYS_PREAD64, KindRegular): calls(16, 16_016),
			output(unix.SYS_WRITE, KindPipe):     calls(16, 16_016),
		},
	},
	{
		name: "killed in the middle of a write",
		prepare: func(string) func() {
			_, w := newPipe()
			return func() { must1(unix.Write(w, make([]byte, 1_000_000))) }
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, KindPipe): calls(1, pipeSize),
		},
		killed: true,
	},
	{
		name: "io_uring read, write, send and receive",
		prepare: func(dir string) func() {
			ring := newRing()
			in, out := openFile(dir, "in", fileSize), openFile(dir, "out", 0)
			from, to := tcpPair()
			return func() {
				buffer := make([]byte, 30_000)
				ring.run(submission{opcode: uringRead, fd: in, buffer: buffer[:20_001]})
				ring.run(submission{opcode: uringWrite, fd: out, buffer: buffer[:9_999]})
				ring.run(submission{opcode: uringSend, fd: from, buffer: buffer[:7_001]})
				ring.run(submission{opcode: uringReceive, fd: to, buffer: buffer})
				ring.run(submission{opcode: uringRead, fd: -1, buffer: buffer})
			}
		},
		want: map[Key]Move{
			uringInput(uringRead, KindRegular):   calls(1, 20_001),
			uringInput(uringRead, KindClosed):    {Calls: 1, Failed: 1},
			uringOutput(uringWrite, KindRegular): calls(1, 9_999),
			uringOutput(uringSend, tcp):          calls(1, 7_001),
			uringInput(uringReceive, tcp):        calls(1, 7_001),
		},
		missing: func(string) string { return ringMissing() },
	},
	{
		name: "io_uring multishot receive",
		prepare: func(string) func() {
			ring := newRing()
			from, to := udpPair()
			ring.provideBuffers(1, 8, 4096)
			return func() {
				ring.submit(submission{opcode: uringReceive, fd: to, multishot: true, group: 1})
				for _, size := range []int{100, 2000, 4096} {
					must1(unix.Write(from, make([]byte, size)))
					ring.wait()
				}
			}
		},
		want: map[Key]Move{
			output(unix.SYS_WRITE, udp):   calls(3, 6196),
			uringInput(uringReceive, udp): calls(3, 6196),
		},
		missing: func(string) string { return ringMissing() },
	},
	{
		name: "io_uring zero-copy send over loopback",
		prepare: func(string) func() {
			ring := newRing()
			from, to := tcpPair()
			return func() {
				ring.submit(submission{opcode: uringSendZeroCopy, fd: from, buffer: make([]byte, 15_000), reportUsage: true})
				readExactly(to, 15_000)
				ring.wait() // the send
				ring.wait() // the notification
			}
		},
		want: map[Key]Move{
			{ClassZeroCopy, UringOperation(uringSendZeroCopy), KindUser, tcp}:       {Bytes: 15_000},
			{ClassZeroCopyCopied, UringOperation(uringSendZeroCopy), KindUser, tcp}: {Bytes: 15_000},
			input(unix.SYS_READ, tcp): {Bytes: 15_000},
		},
		sites:     siteDifference{userToKernel: -15_000, inKernel: 15_000},
		unordered: true,
		missing: func(string) string {
			if olderThan(6, 2) {
				return "io_uring reports copied zero-copy sends since Linux 6.2"
			}
			return ringMissing()
		},
	},
}

// innerPrograms run after an exec inside of a known answer.
var innerPrograms = map[string]func(){
	"inner writer": func() { must1(unix.Write(3, make([]byte, 7777))) },
	"inner ledger": func() {
		l := must1(Open(Options{Backend: Boundary}))
		info := must1(l.programs[0].Info())
		id, _ := info.ID()
		fmt.Println(id)
		must(unix.Pause())
	},
}

func runInner(name string, fd int) {
	must(os.Setenv(programVariable, name))
	process := must1(syscall.ForkExec("/proc/self/exe", []string{name}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, uintptr(fd)},
	}))
	var status unix.WaitStatus
	must1(unix.Wait4(process, &status, 0, nil))
	if status.ExitStatus() != 0 {
		panic("inner program failed")
	}
}

func second[T any](_ T, err error) error { return err }

func expect(want, got error) {
	if want != got {
		panic("expected " + want.Error())
	}
}

func openFile(dir, name string, size int) int {
	path := filepath.Join(dir, name)
	must(os.WriteFile(path, bytes.Repeat([]byte{'w'}, size), 0o600))
	return must1(unix.Open(path, unix.O_RDWR, 0))
}

func newPipe() (r, w int) {
	var fds [2]int
	must(unix.Pipe2(fds[:], unix.O_CLOEXEC))
	return fds[0], fds[1]
}

func readAll(fd, size int) {
	buffer := make([]byte, size)
	for must1(unix.Read(fd, buffer)) > 0 {
	}
}

func readExactly(fd, size int) {
	buffer := make([]byte, size)
	for size > 0 {
		size -= must1(unix.Read(fd, buffer[:size]))
	}
}

func writeAll(fd, total, size int) {
	buffer := make([]byte, size)
	for total > 0 {
		total -= must1(unix.Write(fd, buffer[:min(size, total)]))
	}
}

// tcpPair is two ends of a connection over loopback, with buffers that hold every test's bytes.
func tcpPair() (client, server int) {
	listener := boundSocket(unix.SOCK_STREAM)
	must(unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20))
	must(unix.Listen(listener, 1))
	client = must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	must(unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
	must(unix.Connect(client, must1(unix.Getsockname(listener))))
	server, _, err := unix.Accept(listener)
	must(err)
	return client, server
}

func udpPair() (from, to int) {
	to = boundSocket(unix.SOCK_DGRAM)
	from = must1(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	must(unix.Connect(from, must1(unix.Getsockname(to))))
	return from, to
}

func boundSocket(kind int) int {
	fd := must1(unix.Socket(unix.AF_INET, kind, 0))
	must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	return fd
}

// vector is a slice of buffers of these sizes.
func vector(sizes ...int) [][]byte {
	buffers := make([][]byte, len(sizes))
	for i, size := range sizes {
		buffers[i] = bytes.Repeat([]byte{'v'}, size)
	}
	return buffers
}

func vectors(buffers [][]byte) []unix.Iovec {
	result := make([]unix.Iovec, len(buffers))
	for i, buffer := range buffers {
		result[i].Base = &buffer[0]
		result[i].SetLen(len(buffer))
	}
	return result
}

func receive(fd, size, flags int) {
	_, _, err := unix.Recvfrom(fd, make([]byte, size), flags)
	must(err)
}

func receiveMessage(fd, flags int, sizes ...int) {
	_, _, _, _, err := unix.RecvmsgBuffers(fd, vector(sizes...), nil, flags)
	must(err)
}

type messageOfMany struct {
	header unix.Msghdr
	length uint32
	_      uint32
}

// manyMessages sends or receives one message of each size in one call.
func manyMessages(call uintptr, fd, flags int, sizes ...int) {
	messages := make([]messageOfMany, len(sizes))
	for i, size := range sizes {
		v := vectors(vector(size))
		messages[i].header.Iov = &v[0]
		messages[i].header.SetIovlen(1)
	}
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), uintptr(flags), 0, 0)
	if errno != 0 || int(n) != len(messages) {
		panic(errno)
	}
}

// readNotifications reads the error queue until that many zero-copy sends were reported.
func readNotifications(fd, sends int) {
	for control := make([]byte, 256); sends > 0; {
		must1(unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 5000))
		_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE)
		must(err)
		message := must1(unix.ParseSocketControlMessage(control[:n]))[0]
		report := (*unix.SockExtendedErr)(unsafe.Pointer(&message.Data[0]))
		sends -= int(report.Data-report.Info) + 1
	}
}

func olderThan(major, minor int) bool {
	var name unix.Utsname
	must(unix.Uname(&name))
	var version [2]int
	field := 0
	for _, c := range name.Release {
		if c == '.' {
			if field++; field == 2 {
				break
			}
			continue
		}
		version[field] = version[field]*10 + int(c-'0')
	}
	return version[0] < major || version[0] == major && version[1] < minor
}
