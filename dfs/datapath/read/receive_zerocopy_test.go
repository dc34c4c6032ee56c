package read

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/bpf/afxdp/afxdptest"
	"waggle/dfs/wire"
)

// zeroCopyReceive is the part of struct tcp_zerocopy_receive that every kernel
// with it knows (linux/tcp.h).
type zeroCopyReceive struct {
	address  uint64
	length   uint32 // in: of the mapping; out: bytes that were mapped
	skipHint uint32 // out: bytes that must be copied first
}

// receiveMapped takes total bytes from a connection, as many as can be by mapping
// the pages that they came in.
func receiveMapped(conn *net.TCPConn, total int) (mapped, copied int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	const window = 1 << 20
	buf := make([]byte, window)
	var memory uintptr
	failed := raw.Read(func(fd uintptr) bool {
		if memory == 0 {
			var errno unix.Errno
			memory, _, errno = unix.Syscall6(unix.SYS_MMAP, 0, window, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
			if errno != 0 {
				memory, err = 0, fmt.Errorf("map a TCP socket: %w", errno)
				return true
			}
		}
		for mapped+copied < total {
			z := zeroCopyReceive{address: uint64(memory), length: uint32(min(window, total-mapped-copied))}
			size := uint32(unsafe.Sizeof(z))
			_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_TCP, unix.TCP_ZEROCOPY_RECEIVE,
				uintptr(unsafe.Pointer(&z)), uintptr(unsafe.Pointer(&size)), 0)
			if errno != 0 {
				err = fmt.Errorf("TCP_ZEROCOPY_RECEIVE: %w", errno)
				return true
			}
			mapped += int(z.length)
			if z.length == 0 && z.skipHint == 0 {
				return false
			}
			if z.skipHint == 0 {
				continue
			}
			n, failed := unix.Read(int(fd), buf[:min(int(z.skipHint), window, total-mapped-copied)])
			if failed == unix.EAGAIN {
				return false
			}
			if failed != nil || n == 0 {
				err = fmt.Errorf("read what is not mapped: %d bytes: %w", n, failed)
				return true
			}
			copied += n
		}
		return true
	})
	if memory != 0 {
		unix.Syscall(unix.SYS_MUNMAP, memory, window, 0)
	}
	if err == nil {
		err = failed
	}
	return mapped, copied, err
}

// The experiment behind the entry of TCP_ZEROCOPY_RECEIVE in KNOWN_ISSUES.md. Pages
// can be mapped that hold nothing else than a page of the stream and belong to
// nobody: no page cache, no larger page. That is what MSG_ZEROCOPY on one machine is
// copied into after all, so here mapping works, between hosts too.
func TestZeroCopyReceiveMapsWholePagesOfNobody(t *testing.T) {
	const total = 8 << 20
	t.Run("local", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		mapped := mapAll(t, listener, func() (net.Conn, error) { return net.Dial("tcp", listener.Addr().String()) }, total)
		require.Greater(t, mapped, total/2)
	})
	t.Run("hosts", func(t *testing.T) {
		h := afxdptest.New(t)
		var listener net.Listener
		h.In(t, 1, func() {
			var err error
			listener, err = net.Listen("tcp4", afxdptest.Address(1).String()+":0")
			require.NoError(t, err)
		})
		mapped := mapAll(t, listener, func() (conn net.Conn, err error) {
			h.In(t, 0, func() { conn, err = net.Dial("tcp4", listener.Addr().String()) })
			return conn, err
		}, total)
		require.Positive(t, mapped)
	})
}

// mapAll has total bytes sent with MSG_ZEROCOPY and says how many could be mapped.
func mapAll(t *testing.T, listener net.Listener, dial func() (net.Conn, error), total int) int {
	defer listener.Close()
	sent := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			err = sendZeroCopy(conn.(*net.TCPConn), total)
		}
		sent <- err
	}()
	client, err := dial()
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.SetDeadline(time.Now().Add(10*time.Second)))
	mapped, copied, err := receiveMapped(client.(*net.TCPConn), total)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.Equal(t, total, mapped+copied)
	t.Logf("%d of %d bytes mapped", mapped, total)
	return mapped
}

// What most read paths send lies in the page cache or in parts of larger pages.
func TestWhatZeroCopyReceiveMapsOfAnswers(t *testing.T) {
	const answers, length = 8, 1 << 20
	file, _, mapping := replica(t, length)
	header := make([]byte, wire.HeaderSize+4*length/wire.BlockSize)
	eachPath(t, func(t *testing.T, p Path) {
		if p.About().EBPF {
			t.Skip("the socket's own receive queue, which is mapped from, is not used")
		}
		site := open(t, p)
		server, client := site.connect(t)
		sender := site.sender(t, server)
		defer sender.Close()
		sent := make(chan error, 1)
		go func() {
			for range answers {
				if err := sender.Prepare(Range{File: file, Length: length, Mapping: mapping}); err != nil {
					sent <- err
					return
				}
				if err := sender.Send(header); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		require.NoError(t, client.SetDeadline(time.Now().Add(10*time.Second)))
		total := 0
		for range answers {
			_, err := io.CopyN(io.Discard, client, int64(len(header)))
			require.NoError(t, err)
			mapped, copied, err := receiveMapped(client, length)
			require.NoError(t, err)
			require.Equal(t, length, mapped+copied)
			total += mapped
		}
		require.NoError(t, <-sent)
		t.Logf("%d of %d bytes mapped", total, answers*length)
		switch p.About().Name {
		case "zerocopy", "iouring-zc":
			require.Positive(t, total)
		default:
			require.Zero(t, total)
		}
	})
}

func sendZeroCopy(conn *net.TCPConn, total int) error {
	memory, err := unix.Mmap(-1, 0, total, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(memory)
	s, err := newSocket(conn)
	if err != nil {
		return err
	}
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1) }); err != nil || failed != nil {
		return failed
	}
	at := 0
	err = s.sendAll(total, func(fd int) (int, error) {
		n, err := unix.SendmsgN(fd, memory[at:min(total, at+64<<10)], nil, nil, unix.MSG_ZEROCOPY)
		if err == unix.ENOBUFS {
			return 0, unix.EAGAIN
		}
		at += max(n, 0)
		return n, err
	})
	runtime.KeepAlive(memory)
	return err
}
