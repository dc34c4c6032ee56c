package uring

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func newRing(t *testing.T) *Ring {
	t.Helper()
	r, err := New(8)
	if err != nil {
		t.Skipf("no io_uring here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func buffer(t *testing.T, size int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	return b
}

// pair is both ends of a TCP connection over loopback.
func pair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func descriptor(t *testing.T, c *net.TCPConn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(f uintptr) { fd = int(f) }))
	return fd
}

func file(t *testing.T, content []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(name, content, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestALinkedReadAndSend(t *testing.T) {
	r, b := newRing(t), buffer(t, 8192)
	from, to := pair(t)
	content := bytes.Repeat([]byte("waggle."), 1000)
	require.NoError(t, r.RegisterBuffer(b))
	require.NoError(t, r.RegisterFile(descriptor(t, from)))
	for range 100 { // more often than the ring has slots
		r.ReadFixed(1, file(t, content), b[:7000], 0, true)
		r.Send(2, b[:7000])
		done, err := r.Enter(2, nil)
		require.NoError(t, err)
		require.Equal(t, []Completion{{User: 1, N: 7000}, {User: 2, N: 7000}}, done)
		got := make([]byte, 7000)
		_, err = io.ReadFull(to, got)
		require.NoError(t, err)
		require.Equal(t, content, got)
	}
}

func TestAShortReadCancelsItsLink(t *testing.T) {
	r, b := newRing(t), buffer(t, 8192)
	from, _ := pair(t)
	require.NoError(t, r.RegisterBuffer(b))
	require.NoError(t, r.RegisterFile(descriptor(t, from)))
	r.ReadFixed(1, file(t, []byte("short")), b[:7000], 0, true)
	r.Send(2, b[:7000])
	done, err := r.Enter(2, nil)
	require.NoError(t, err)
	require.Equal(t, []Completion{{User: 1, N: 5}, {User: 2, Err: unix.ECANCELED}}, done)
}

func TestZeroCopySendSaysWhetherItCopied(t *testing.T) {
	r, b := newRing(t), buffer(t, 65536)
	from, to := pair(t)
	require.NoError(t, r.RegisterBuffer(b))
	require.NoError(t, r.RegisterFile(descriptor(t, from)))
	copy(b, bytes.Repeat([]byte("z"), len(b)))
	if err := r.SupportsZeroCopy(); err != nil {
		t.Skip(err)
	}
	r.SendZeroCopy(9, b)
	done, err := r.Enter(1, nil)
	require.NoError(t, err)
	require.Equal(t, Completion{User: 9, N: len(b), More: true}, done[0])
	got := make([]byte, len(b))
	_, err = io.ReadFull(to, got)
	require.NoError(t, err)
	require.Equal(t, b, got)
	if len(done) == 1 {
		require.NoError(t, r.WaitReady(time.Minute))
		done, err = r.Enter(0, done)
		require.NoError(t, err)
	}
	require.Equal(t, Completion{User: 9, Notification: true, Copied: true}, done[1], "loopback copies after all")
}

func TestWaitingEnds(t *testing.T) {
	require.ErrorIs(t, newRing(t).WaitReady(time.Millisecond), os.ErrDeadlineExceeded)
}
