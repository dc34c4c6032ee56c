package chunk

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func requireCode(t *testing.T, want codes.Code, err error) {
	t.Helper()
	require.Equal(t, want.String(), status.Code(err).String(), "%v", err)
}

func TestControlCalls(t *testing.T) {
	ctx := t.Context()
	s := start(t, Config{})
	rpc := s.rpc(t)
	_, err := rpc.State(ctx, &control.ReplicaEpoch{Chunk: chunk})
	requireCode(t, codes.NotFound, err)
	for range 2 {
		_, err = rpc.Create(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch})
		require.NoError(t, err)
	}
	_, err = rpc.Create(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch + 1})
	requireCode(t, codes.AlreadyExists, err)

	data := pattern(1, 10_000)
	requireOK(t, dial(t, s).write(1, 0, data, nil))
	stream, err := rpc.Checksums(ctx, &control.ReplicaEpoch{Chunk: chunk})
	require.NoError(t, err)
	sums, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, wire.AppendChecksums(nil, 0, data), sums.Checksums)

	state, err := rpc.Seal(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch + 1})
	require.NoError(t, err)
	require.EqualValues(t, epoch+1, state.Epoch)
	require.EqualValues(t, 1, state.Sequence)
	require.EqualValues(t, len(data), state.Length)
	_, err = rpc.Seal(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch})
	requireCode(t, codes.FailedPrecondition, err)

	s.damage(t, 4096)
	verified, err := rpc.Verify(ctx, &control.ReplicaEpoch{Chunk: chunk})
	require.NoError(t, err)
	require.EqualValues(t, 3, verified.Blocks)
	require.Equal(t, []uint64{4096}, verified.CorruptOffsets)

	state, err = rpc.Truncate(ctx, &control.TruncateRequest{Chunk: chunk, Epoch: epoch + 1, Length: 100})
	require.NoError(t, err)
	require.EqualValues(t, 100, state.Length)

	list, err := rpc.List(ctx, &control.Empty{})
	require.NoError(t, err)
	listed, err := list.Recv()
	require.NoError(t, err)
	require.Equal(t, state.String(), listed.String())
	_, err = list.Recv()
	require.Equal(t, io.EOF, err)

	_, err = rpc.Delete(ctx, &control.ChunkIDs{Chunks: make([]uint64, maxDelete+1)})
	requireCode(t, codes.InvalidArgument, err)
	for range 2 {
		_, err = rpc.Delete(ctx, &control.ChunkIDs{Chunks: []uint64{chunk}})
		require.NoError(t, err)
	}
	_, err = rpc.State(ctx, &control.ReplicaEpoch{Chunk: chunk})
	requireCode(t, codes.NotFound, err)
}

func TestStatusCounts(t *testing.T) {
	servers, _ := chain(t, 1, Config{Version: "v1"})
	requireOK(t, dial(t, servers[0]).write(1, 0, []byte("12345"), nil))
	conn, err := grpc.NewClient(servers[0].ControlAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	got, err := control.NewAdminClient(conn).Status(t.Context(), &control.Empty{})
	require.NoError(t, err)
	require.Equal(t, "chunk", got.Role)
	require.Equal(t, "v1", got.Version)
	require.EqualValues(t, 5, got.Counters["write_chain_bytes"])
}

// copyRequest asks for the replica of a server.
func copyRequest(from *running, epoch uint64, only ...uint64) *control.CopyRequest {
	return &control.CopyRequest{Chunk: chunk, Epoch: epoch, OnlyBlocks: only, SourceControl: from.ControlAddress(),
		Source: &control.Replica{Server: 1, Address: from.DataAddress()}}
}

func TestCopyFetchesOnlyWhatDiffers(t *testing.T) {
	ctx := t.Context()
	servers, replicas := chain(t, 2, Config{})
	from, to := servers[0], servers[1]
	data := pattern(1, 3<<20+777)
	p := dial(t, from)
	requireOK(t, p.write(1, 0, data, replicas[1:]))
	changed := pattern(2, 5000)
	copy(data[100_000:], changed)
	requireOK(t, p.write(2, 100_000, changed, nil)) // touches 2 blocks, on the source only

	state, err := to.rpc(t).CopyFrom(ctx, copyRequest(from, epoch+1))
	require.NoError(t, err)
	require.Equal(t, (&control.ReplicaState{Chunk: chunk, Epoch: epoch + 1, Sequence: 2, Length: uint64(len(data))}).String(), state.String())
	require.EqualValues(t, 2*wire.BlockSize, to.count("chunk_copied_bytes"))

	// Equal now: only the state is taken over.
	_, err = to.rpc(t).CopyFrom(ctx, copyRequest(from, epoch+2))
	require.NoError(t, err)
	require.EqualValues(t, 2*wire.BlockSize, to.count("chunk_copied_bytes"))
	_, err = to.rpc(t).CopyFrom(ctx, copyRequest(from, epoch))
	requireCode(t, codes.FailedPrecondition, err)

	fresh := start(t, Config{})
	_, err = fresh.rpc(t).CopyFrom(ctx, copyRequest(from, epoch))
	require.NoError(t, err)
	require.EqualValues(t, len(data), fresh.count("chunk_copied_bytes"))
	fresh.requireContent(t, data)

	// A copy is as durable and as usable as what it was made from.
	require.NoError(t, to.stop())
	requireOK(t, dial(t, fresh).write(3, 0, []byte("on"), nil))
	to = to.restart(t)
	p = dial(t, to)
	got, all := p.ask(wire.Frame{Type: wire.FrameRead, Chunk: chunk, Epoch: epoch + 2, Length: wire.MaxData}, nil)
	requireOK(t, got)
	require.Equal(t, data, all)
}

func TestDamagedBlocksAreRewritten(t *testing.T) {
	ctx := t.Context()
	servers, replicas := chain(t, 2, Config{})
	data := pattern(1, 20_000)
	requireOK(t, dial(t, servers[0]).write(1, 0, data, replicas[1:]))
	servers[1].damage(t, 5000)
	servers[1].damage(t, 19_000)
	_, err := servers[1].rpc(t).CopyFrom(ctx, copyRequest(servers[0], epoch, 4096, 16384))
	require.NoError(t, err)
	require.EqualValues(t, 4096+20_000-16384, servers[1].count("chunk_copied_bytes"))
	servers[1].requireContent(t, data)

	_, err = servers[1].rpc(t).CopyFrom(ctx, copyRequest(servers[0], epoch, 5))
	requireCode(t, codes.InvalidArgument, err)

	// A damaged source is not copied.
	servers[0].damage(t, 5000)
	_, err = servers[1].rpc(t).CopyFrom(ctx, copyRequest(servers[0], epoch, 4096))
	requireCode(t, codes.DataLoss, err)
	fresh := start(t, Config{})
	_, err = fresh.rpc(t).CopyFrom(ctx, copyRequest(servers[0], epoch))
	requireCode(t, codes.DataLoss, err)
	_, err = fresh.rpc(t).State(ctx, &control.ReplicaEpoch{Chunk: chunk})
	requireCode(t, codes.NotFound, err)
}

func TestCopyFromNowhere(t *testing.T) {
	servers, _ := chain(t, 2, Config{})
	require.NoError(t, servers[0].stop())
	_, err := servers[1].rpc(t).CopyFrom(t.Context(), copyRequest(servers[0], epoch))
	requireCode(t, codes.Unavailable, err)
	empty := start(t, Config{})
	_, err = servers[1].rpc(t).CopyFrom(context.Background(), copyRequest(empty, epoch))
	requireCode(t, codes.NotFound, err)
}
