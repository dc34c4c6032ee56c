package chunk

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Limits of control calls.
const (
	maxControlMessage = 1 << 20 // bytes
	maxControlStreams = 256     // of one connection
	maxDelete         = 4096    // replicas in one call
	maxCorruptOffsets = 1024    // in one answer
)

func (s *Server) newControlServer() *grpc.Server {
	rpc := grpc.NewServer(append(control.ServerOptions(), grpc.MaxRecvMsgSize(maxControlMessage), grpc.MaxConcurrentStreams(maxControlStreams),
		grpc.WaitForHandlers(true), // the store is closed behind them
		grpc.UnaryInterceptor(s.measures.calls.Intercept))...)
	control.RegisterChunkServer(rpc, &chunkService{s: s})
	control.RegisterAdminServer(rpc, &adminService{s: s})
	return rpc
}

// chunkService is what the metadata server and other chunk servers ask for.
type chunkService struct {
	control.UnimplementedChunkServer
	s *Server
}

func (c *chunkService) Create(_ context.Context, q *control.ReplicaEpoch) (*control.Empty, error) {
	_, err := c.s.store.Create(q.Chunk, q.Epoch)
	return &control.Empty{}, rpcError(err)
}

func (c *chunkService) Seal(_ context.Context, q *control.ReplicaEpoch) (*control.ReplicaState, error) {
	r, err := c.s.store.Get(q.Chunk)
	if err != nil {
		return nil, rpcError(err)
	}
	state := r.State()
	if q.Rebuild && (state.Torn || state.Doubtful) {
		state, err = r.Rebuild(q.Epoch)
	} else {
		state, err = r.Seal(q.Epoch)
	}
	if err != nil {
		c.s.reportFailing(q.Chunk, err)
	}
	return stateMessage(state), rpcError(err)
}

func (c *chunkService) Fence(_ context.Context, q *control.ReplicaEpoch) (*control.Empty, error) {
	c.s.lease.putUp([]*control.Fence{{Chunk: q.Chunk, Epoch: q.Epoch}})
	return &control.Empty{}, nil
}

func (c *chunkService) State(_ context.Context, q *control.ReplicaEpoch) (*control.ReplicaState, error) {
	r, err := c.s.store.Get(q.Chunk)
	if err != nil {
		return nil, rpcError(err)
	}
	return stateMessage(r.State()), nil
}

func (c *chunkService) CopyFrom(ctx context.Context, q *control.CopyRequest) (*control.ReplicaState, error) {
	state, err := c.s.copyFrom(ctx, q)
	if err != nil {
		return nil, rpcError(fmt.Errorf("copy chunk %d from %s: %w", q.Chunk, q.GetSource().GetAddress(), err))
	}
	return stateMessage(state), nil
}

func (c *chunkService) Truncate(_ context.Context, q *control.TruncateRequest) (*control.ReplicaState, error) {
	r, err := c.s.store.Get(q.Chunk)
	if err != nil {
		return nil, rpcError(err)
	}
	state, err := r.Truncate(q.Epoch, q.Length)
	return stateMessage(state), rpcError(err)
}

func (c *chunkService) Delete(_ context.Context, q *control.ChunkIDs) (*control.Empty, error) {
	if len(q.Chunks) > maxDelete {
		return nil, status.Errorf(codes.InvalidArgument, "delete of %d replicas: at most %d are allowed", len(q.Chunks), maxDelete)
	}
	var failed error
	for _, id := range q.Chunks {
		failed = errors.Join(failed, c.s.store.Delete(id))
	}
	if failed == nil {
		c.s.lease.forget(q.Chunks)
	}
	return &control.Empty{}, rpcError(failed)
}

func (c *chunkService) Checksums(q *control.ReplicaEpoch, stream grpc.ServerStreamingServer[control.BlockChecksums]) error {
	r, err := c.s.store.Get(q.Chunk)
	if err != nil {
		return rpcError(err)
	}
	state, sums, err := r.Checksums() // those of the largest chunk fit into one message
	if err != nil {
		return rpcError(err)
	}
	return stream.Send(&control.BlockChecksums{Checksums: sums, State: stateMessage(state)})
}

func (c *chunkService) Verify(ctx context.Context, q *control.ReplicaEpoch) (*control.VerifyReply, error) {
	r, err := c.s.store.Get(q.Chunk)
	if err != nil {
		return nil, rpcError(err)
	}
	reply := &control.VerifyReply{}
	err = r.Verify(func(bytes int) error {
		reply.Blocks += uint64((bytes + wire.BlockSize - 1) / wire.BlockSize)
		return ctx.Err()
	}, func(offset uint64) {
		if len(reply.CorruptOffsets) < maxCorruptOffsets {
			reply.CorruptOffsets = append(reply.CorruptOffsets, offset)
		}
	})
	return reply, rpcError(err)
}

func (c *chunkService) List(_ *control.Empty, stream grpc.ServerStreamingServer[control.ReplicaState]) error {
	for _, id := range c.s.store.IDs() {
		r, err := c.s.store.Get(id)
		if err != nil { // deleted meanwhile
			continue
		}
		if err := stream.Send(stateMessage(r.State())); err != nil {
			return err
		}
	}
	return nil
}

func stateMessage(s replica.State) *control.ReplicaState {
	return &control.ReplicaState{Chunk: s.Chunk, Epoch: s.Epoch, Sequence: s.Sequence, Length: s.Length, Torn: s.Torn || s.Doubtful}
}

// rpcError gives an error the code that control.proto promises.
func rpcError(err error) error {
	var corrupt *replica.CorruptError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replica.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, replica.ErrExists):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.Is(err, replica.ErrStaleEpoch):
		return status.Error(codes.FailedPrecondition, "ESTALE: "+err.Error())
	case errors.Is(err, replica.ErrInvalid), errors.Is(err, wire.ErrMalformed):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, replica.ErrChanged), errors.Is(err, replica.ErrBusy):
		return status.Error(codes.Unavailable, err.Error())
	case errors.As(err, &corrupt):
		return status.Error(codes.DataLoss, err.Error())
	case noSpace(err):
		return status.Error(codes.ResourceExhausted, err.Error())
	case status.Code(err) != codes.Unknown: // from another server
		return status.Error(status.Code(err), err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// adminService says what this server is and what it has counted.
type adminService struct {
	control.UnimplementedAdminServer
	s *Server
}

func (a *adminService) Status(context.Context, *control.Empty) (*control.RoleStatus, error) {
	return &control.RoleStatus{Role: "chunk", Version: a.s.config.Version, Counters: a.s.Counters().Snapshot()}, nil
}
