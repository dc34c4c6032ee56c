package read

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A kernel that has no memory for what a receiver gets is a slow receiver: the
// sender goes on where it stopped, and gives up at its write deadline.
func TestASenderWaitsForMemory(t *testing.T) {
	server, client := open(t, copyPath{}).connect(t)
	s, err := newSocket(server)
	require.NoError(t, err)
	want := bytes.Repeat([]byte("0123456789"), 100)
	short, left := 5, want
	require.NoError(t, s.sendAll(len(want), func(fd int) (int, error) {
		if short > 0 && len(left) <= len(want)/2 {
			short--
			return 0, unix.ENOMEM
		}
		n, err := unix.Write(fd, left[:100])
		left = left[max(n, 0):]
		return n, err
	}))
	require.Zero(t, short)
	got := make([]byte, len(want))
	_, err = io.ReadFull(client, got)
	require.NoError(t, err)
	require.Equal(t, want, got)

	require.NoError(t, server.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	require.ErrorIs(t, s.sendAll(1, func(int) (int, error) { return 0, unix.ENOMEM }), os.ErrDeadlineExceeded)
}
