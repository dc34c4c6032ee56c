package shortcircuit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"waggle/dfs/wire"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(lenderName); name != "" {
		fmt.Fprintln(os.Stderr, borrowAndHang(name))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// lender lends one pair of files as any chunk below unknown.
type lender struct {
	*Server
	data, sums string
	lent       atomic.Pointer[Loan] // the last one
}

const unknown = 1 << 32

func lend(t *testing.T) *lender {
	l := &lender{data: filepath.Join(t.TempDir(), "data"), sums: filepath.Join(t.TempDir(), "sums")}
	require.NoError(t, os.WriteFile(l.data, []byte("0123456789"), 0o600))
	require.NoError(t, os.WriteFile(l.sums, []byte("headSUMS"), 0o600))
	var err error
	l.Server, err = Listen(func(chunk, epoch uint64, lend func(*Loan, uint64) *Loan) (Replica, wire.Status, error) {
		if chunk >= unknown {
			return Replica{}, wire.StatusNotFound, errors.New("no such chunk")
		}
		data, err := os.Open(l.data)
		if err != nil {
			return Replica{}, wire.StatusIO, err
		}
		sums, err := os.Open(l.sums)
		l.lent.Store(lend(nil, 10))
		return Replica{Data: data, Sums: sums, SumsStart: 4, Epoch: 7, Loan: l.lent.Load()}, wire.StatusOK, err
	})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l *lender) *Client {
	c, err := Dial(t.Context(), l.Name())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *Borrowed) all() (string, error) {
	var data [10]byte
	var sums [4]byte
	n, err := b.Read([][]byte{data[:4], data[4:]}, 0, sums[:])
	return string(data[:n]) + string(sums[:]), err
}

func TestBorrowReadTakeBack(t *testing.T) {
	l := lend(t)
	c := dial(t, l)
	b, err := c.Borrow(t.Context(), 1, 7)
	require.NoError(t, err)
	got, err := b.all()
	require.NoError(t, err)
	require.Equal(t, "0123456789SUMS", got)
	again, err := c.Borrow(t.Context(), 1, 5)
	require.NoError(t, err)
	require.Same(t, b, again)

	l.lent.Load().Grow(20)
	length, err := b.Length()
	require.NoError(t, err)
	require.EqualValues(t, 20, length)

	l.lent.Load().TakeBack()
	_, err = b.all()
	require.ErrorIs(t, err, ErrTakenBack)
	_, err = b.Length()
	require.ErrorIs(t, err, ErrTakenBack)
	l.lent.Load().Grow(30) // of no loan any more
	again, err = c.Borrow(t.Context(), 1, 7)
	require.NoError(t, err)
	require.NotSame(t, b, again)
	got, err = again.all()
	require.NoError(t, err)
	require.Equal(t, "0123456789SUMS", got)

	var refused *RefusedError
	_, err = c.Borrow(t.Context(), unknown, 7)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, wire.StatusNotFound, refused.Status)
}

// What is lent can't be written, by no way that a client has.
func TestBorrowedFilesAreForReading(t *testing.T) {
	c := dial(t, lend(t))
	b, err := c.Borrow(t.Context(), 1, 0)
	require.NoError(t, err)
	_, err = b.data.Write([]byte("x"))
	require.Error(t, err)
	_, err = b.sums.Write([]byte("x"))
	require.Error(t, err)
}

// A loan whose slot is needed for another is taken back, and told nothing more.
func TestSlotsAreUsedAgain(t *testing.T) {
	p, err := newPage()
	require.NoError(t, err)
	defer p.close()
	first := p.lend(nil, 1)
	require.Same(t, first, p.lend(first, 1))
	for range slots {
		p.lend(nil, 2)
	}
	require.False(t, first.holds())
	first.Grow(99)
	first.TakeBack()
	require.EqualValues(t, 2, slotAt(p.memory, 0).length.Load())
	require.NotSame(t, first, p.lend(first, 1))
}

// Neither side keeps a descriptor: not of replicas that were closed for others,
// not when the other side ends.
func TestNothingIsLeftBehind(t *testing.T) {
	before := descriptors(t)
	for range 20 {
		l := lend(t)
		c := dial(t, l)
		for chunk := range uint64(maxOpen + 20) {
			_, err := c.Borrow(t.Context(), chunk, 0)
			require.NoError(t, err)
		}
		require.Less(t, descriptors(t), before+2*maxOpen+20)
		b, err := c.Borrow(t.Context(), 1, 0)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.Eventually(t, c.Gone, 5*time.Second, time.Millisecond)
		_, err = b.all()
		require.ErrorIs(t, err, ErrTakenBack)
		_, err = c.Borrow(t.Context(), 1, 0)
		require.ErrorIs(t, err, ErrGone)
		c.Close()
	}
	require.InDelta(t, before, descriptors(t), 4)
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// A client that says anything but a request is cut off.
func TestNonsenseEndsTheConnection(t *testing.T) {
	l := lend(t)
	for _, nonsense := range []string{"x", fmt.Sprintf("%017d", 1)} {
		conn, err := net.Dial("unixpacket", l.Name())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte(nonsense))
		require.NoError(t, err)
		buf := make([]byte, 100)
		require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		_, err = conn.Read(buf) // the greeting
		require.NoError(t, err)
		n, err := conn.Read(buf)
		require.True(t, n == 0 || err != nil)
	}
	_, err := dial(t, l).Borrow(t.Context(), 1, 0)
	require.NoError(t, err)
}
