package chunk

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func TestAReaderNamesTheLengthThatItExpects(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	p := dial(t, servers[0])
	requireOK(t, p.write(1, 0, pattern(1, 10_000), nil))
	for _, c := range []struct {
		offset, length uint64
		expected       uint64
		want           wire.Status
	}{
		{0, 10_000, 10_000, wire.StatusOK},
		{0, 20_000, 10_000, wire.StatusOK}, // behind what is expected there may be a hole
		{0, 20_000, 0, wire.StatusOK},
		{0, 10_000, 20_000, wire.StatusOK}, // what is asked for is there
		{0, 10_001, 20_000, wire.StatusTooShort},
		{9_999, 2, 10_001, wire.StatusTooShort},
		{15_000, 10, 20_000, wire.StatusTooShort},
		{15_000, 10, 15_000, wire.StatusOK},
	} {
		f, got := p.ask(wire.Frame{Type: wire.FrameRead, Chunk: chunk, Epoch: epoch, Offset: c.offset, Length: uint32(c.length), Sequence: c.expected}, nil)
		require.Equal(t, c.want, f.Status, "%+v", c)
		require.True(t, f.Status == wire.StatusOK || len(got) == 0)
	}
}

// A server that is out of touch serves no reads, by a connection or by what it has
// lent, and goes on when it was told what is behind.
func TestAServerOutOfTouchServesNoReads(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	s, p := servers[0], dial(t, servers[0])
	requireOK(t, p.write(1, 0, pattern(1, 10_000), nil))
	borrower, err := shortcircuit.Dial(t.Context(), s.lender.Name())
	require.NoError(t, err)
	defer borrower.Close()
	lent, err := borrower.Borrow(t.Context(), chunk, epoch)
	require.NoError(t, err)
	borrow := func() error {
		var block [wire.BlockSize]byte
		var sum [4]byte
		_, err := lent.Read([][]byte{block[:]}, 0, sum[:])
		return err
	}
	require.NoError(t, borrow())

	s.lease.set(shortcircuit.Now()) // as if no heartbeat had been answered for long
	f, _ := p.read(0, 100)
	require.Equal(t, wire.StatusNotServing, f.Status)
	require.ErrorIs(t, borrow(), shortcircuit.ErrTakenBack)
	requireOK(t, p.write(2, 0, pattern(2, 100), nil)) // epochs keep old writers out
	f, _ = p.ask(wire.Frame{Type: wire.FrameRead, Chunk: chunk, Length: 100}, nil)
	requireOK(t, f) // a copy that the metadata server has asked for
	require.False(t, s.lease.extend(shortcircuit.Now(), forever/2, nil), "it must report its replicas first")

	s.lease.close()
	s.lease.begin(shortcircuit.Now(), forever/2, []*control.Fence{{Number: 3, Chunk: chunk, Epoch: epoch + 1}})
	require.EqualValues(t, 3, s.lease.lastFence())
	f, _ = p.read(0, 100)
	require.Equal(t, wire.StatusNotServing, f.Status, "this one was left behind")
	require.ErrorIs(t, borrow(), shortcircuit.ErrTakenBack)
	_, err = borrower.Borrow(t.Context(), chunk, epoch)
	require.ErrorAs(t, err, new(*shortcircuit.RefusedError))
	require.True(t, s.lease.isFenced(replica.State{Chunk: chunk, Epoch: epoch}))

	_, err = s.rpc(t).Seal(context.Background(), &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch + 1})
	require.NoError(t, err)
	f, _ = p.read(0, 100)
	requireOK(t, f)
	_, err = s.rpc(t).Fence(context.Background(), &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch + 2})
	require.NoError(t, err)
	f, _ = p.read(0, 100)
	require.Equal(t, wire.StatusNotServing, f.Status)
}
