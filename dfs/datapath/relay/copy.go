package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"waggle/dfs/datapath"
)

// Copy is the name of the relay path that every machine can take.
const Copy = "copy"

// copyBuffer is how much is read and written at a time, in bytes: little enough
// that 1,000 slow clients don't fill the memory.
const copyBuffer = 32 << 10

func init() { Paths.Register(copyPath{}) }

// copyPath reads the body into a buffer and writes the buffer: one copy out of
// the kernel, one into it.
type copyPath struct{}

func (copyPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Relay,
		Name:      Copy,
		Summary:   "read from one connection into a buffer, write the buffer to the other",
		Supported: func() error { return nil },
		Proof:     []string{"relay_copy_bytes"},
		Stages:    through(datapath.Work{KernelToUser: 1, UserToKernel: 1, TCP: 1, Calls: 24.0 / (1 << 20), Switches: 6.0 / (1 << 20)}),
	}
}

func (copyPath) Open(counters *datapath.Counters) (Relay, error) {
	return &copyRelay{bytes: counters.Counter("relay_copy_bytes")}, nil
}

type copyRelay struct {
	bytes   *atomic.Int64
	buffers sync.Pool
}

func (r *copyRelay) NewSource(conn *net.TCPConn) (Source, error) {
	return &copySource{plainSource{conn: conn}, r}, nil
}

func (r *copyRelay) NewTarget(conn *net.TCPConn) (Target, error) { return plainTarget{conn}, nil }

func (r *copyRelay) Close() error { return nil }

type copySource struct {
	plainSource
	relay *copyRelay
}

func (s *copySource) Move(ctx context.Context) (int64, error) {
	return s.move(ctx, func(to *net.TCPConn, n int64) (int64, error) { return s.relay.copy(s.conn, to, n) })
}

func (r *copyRelay) Pass(ctx context.Context, from, to *net.TCPConn, n int64) (int64, error) {
	return bounded(ctx, from, to, n, func() (int64, error) { return r.copy(from, to, n) })
}

func (r *copyRelay) copy(from, to *net.TCPConn, n int64) (moved int64, err error) {
	buffer, _ := r.buffers.Get().(*[copyBuffer]byte)
	if buffer == nil {
		buffer = new([copyBuffer]byte)
	}
	defer r.buffers.Put(buffer)
	for moved < n {
		got, err := from.Read(buffer[:min(n-moved, copyBuffer)])
		written, failed := to.Write(buffer[:got])
		moved += int64(written)
		r.bytes.Add(int64(written))
		if failed != nil {
			return moved, failed
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && moved < n {
			return moved, upstream(err)
		}
	}
	return moved, nil
}
