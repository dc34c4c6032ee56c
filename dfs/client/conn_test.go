package client

import (
	"bytes"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

// TestTheEndOfAConnectionIsNotTheEndOfTheFile reads from a server that answers
// once and is gone.
func TestTheEndOfAConnectionIsNotTheEndOfTheFile(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	data := bytes.Repeat([]byte("waggle12"), firstAhead/8)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for range 2 { // the choice of the path, and a read
			var f wire.Frame
			if f.Receive(conn, nil) != nil {
				return
			}
			f.Flags, f.Extra = wire.FlagAnswer, nil
			if f.Type == wire.FrameRead {
				f.Extra = wire.AppendChecksums(nil, f.Offset, data)
			}
			conn.Write(f.Append(nil))
		}
		conn.Write(data)
	}()
	c := &Client{options: Options{}.withDefaults(), readPath: "read=copy", copied: new(atomic.Int64)}
	c.servers.init(c)
	at := wire.Replica{Address: netip.MustParseAddrPort(listener.Addr().String())}
	f := &File{c: c, ctx: t.Context(), chunkSize: wire.DefaultChunkSize, knownAt: time.Now(),
		locations: map[uint32]wire.Location{0: {Chunk: 1, Replicas: []wire.Replica{at}}}}
	s := newStream(f, 0, 2*firstAhead, 0)
	defer s.close()
	p := make([]byte, 2*firstAhead)
	n, err := s.read(t.Context(), p)
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
	require.Equal(t, data, p[:n])
}

// A chunk server that ends between naming its lender and being asked by it is
// tried again, and counted; one whose lender can't be reached while it lives is
// on another machine.
func TestALenderThatEndsIsNotOneOfAnotherMachine(t *testing.T) {
	for name, answers := range map[string]int{"ended": 1, "elsewhere": 2} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer listener.Close()
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				for range answers {
					var f wire.Frame
					if f.Receive(conn, nil) != nil {
						return
					}
					f.Flags, f.Extra = wire.FlagAnswer, []byte("@waggle-of-nobody")
					conn.Write(f.Append(nil))
				}
			}()
			c := &Client{options: Options{}.withDefaults(), readPath: "read=shortcircuit"}
			c.servers.init(c)
			_, err = c.servers.borrower(t.Context(), netip.MustParseAddrPort(listener.Addr().String()))
			require.Error(t, err)
			lost := c.Counters().Snapshot()["read_shortcircuit_lost_lenders"]
			if name == "ended" {
				require.NotErrorIs(t, err, ErrUnsupported)
				require.EqualValues(t, 1, lost)
			} else {
				require.ErrorIs(t, err, ErrUnsupported)
				require.Zero(t, lost)
			}
			require.NoError(t, c.servers.close())
		})
	}
}

func TestPartsAreCheckedAcrossTheirBorders(t *testing.T) {
	data := make([]byte, 3*wire.BlockSize+100)
	for i := range data {
		data[i] = byte(i * i)
	}
	sums := wire.AppendChecksums(nil, 0, data)
	for _, cut := range []int{0, 1, 4095, 4096, 4097, 8192, 12288, 12300, len(data)} {
		for _, cut2 := range []int{cut, min(cut+1, len(data)), min(cut+5000, len(data))} {
			parts := [][]byte{data[:cut], data[cut:cut2], data[cut2:]}
			require.EqualValues(t, -1, checkParts(sums, 0, parts), "%d %d", cut, cut2)
			for _, bad := range []int{0, 4095, 4096, 9000, len(data) - 1} {
				data[bad] ^= 1
				require.EqualValues(t, bad/wire.BlockSize*wire.BlockSize, checkParts(sums, 0, parts), "%d %d %d", cut, cut2, bad)
				data[bad] ^= 1
			}
		}
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string][]string{"/": nil, ".": nil, "a": {"a"}, "//a/./b/": {"a", "b"}} {
		list, err := names(path)
		require.NoError(t, err)
		var got []string
		for _, name := range list {
			got = append(got, string(name))
		}
		require.Equal(t, want, got, path)
	}
	_, err := names("")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, "/a", parentOf("/a/b/"))
	require.Empty(t, parentOf("a"))
	require.Equal(t, "b", newInfo("/a/b/./", wire.Attributes{}).Name())
	require.Equal(t, "/", newInfo(".", wire.Attributes{}).Name())
}
