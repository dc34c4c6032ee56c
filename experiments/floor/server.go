package floor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/tcp"
)

// Server serves the floor control.
type Server struct {
	dir  string
	tcp  *net.TCPListener
	echo []*net.UDPConn // one a processor, on one port
}

// Listen opens a server on free ports of ip. Its files are in dir.
func Listen(ctx context.Context, ip netip.Addr, dir string) (*Server, error) {
	listener, err := tcp.ListenData(ctx, netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return nil, fmt.Errorf("listen for the floor control: %w", err)
	}
	s := &Server{dir: dir, tcp: listener}
	config := net.ListenConfig{Control: sharePort}
	address := netip.AddrPortFrom(ip, 0)
	for range runtime.GOMAXPROCS(0) {
		conn, err := config.ListenPacket(ctx, "udp", address.String())
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("listen for the floor control: %w", err)
		}
		s.echo = append(s.echo, conn.(*net.UDPConn))
		address = s.UDPAddress() // the others share the port that the first one got
	}
	return s, nil
}

func sharePort(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

// TCPAddress is where reads and writes go.
func (s *Server) TCPAddress() netip.AddrPort { return s.tcp.Addr().(*net.TCPAddr).AddrPort() }

// UDPAddress is where echoes go.
func (s *Server) UDPAddress() netip.AddrPort {
	return s.echo[0].LocalAddr().(*net.UDPAddr).AddrPort()
}

// Close makes Serve return.
func (s *Server) Close() {
	s.tcp.Close()
	for _, c := range s.echo {
		c.Close()
	}
}

// Serve serves until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, s.Close)()
	for _, conn := range s.echo {
		group.Go(func() error { return serveEcho(conn) })
	}
	group.Go(func() error { return s.accept(ctx, group) })
	return group.Wait()
}

func (s *Server) accept(ctx context.Context, group *errgroup.Group) error {
	for {
		conn, err := tcp.Accept(s.tcp)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		group.Go(func() error {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := s.serveConnection(conn); err != nil && ctx.Err() == nil {
				slog.Error("floor connection failed", "error", err)
			}
			return nil
		})
	}
}

func serveEcho(conn *net.UDPConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive an echo request: %w", err)
		}
		if n < echoHeader || int(le.Uint32(buf[8:])) > n {
			continue // not from a client of ours
		}
		// A datagram that can't be sent is lost, and the client asks again.
		_, _ = conn.WriteToUDPAddrPort(buf[:le.Uint32(buf[8:])], from)
	}
}

// connection serves the requests of one connection, in order.
type connection struct {
	conn  *net.TCPConn
	in    *bufio.Reader
	dir   string
	files map[uint32]*os.File
	buf   []byte
}

func (s *Server) serveConnection(conn *net.TCPConn) error {
	// The reader's buffer holds a header; data is read past it.
	c := connection{conn, bufio.NewReaderSize(conn, headerSize), s.dir, map[uint32]*os.File{}, make([]byte, maxLength)}
	defer c.closeFiles()
	for {
		var raw [headerSize]byte
		if _, err := io.ReadFull(c.in, raw[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		var h header
		if err := h.parse(raw[:]); err != nil {
			return err
		}
		if err := c.answer(h); err != nil {
			return fmt.Errorf("operation %d on file %d, %d bytes at %d: %w", h.operation, h.file, h.length, h.offset, err)
		}
	}
}

func (c *connection) answer(h header) error {
	f, err := c.open(h.file)
	if err != nil {
		return err
	}
	data := c.buf[:h.length]
	switch h.operation {
	case read:
		if _, err := f.ReadAt(data, int64(h.offset)); err != nil {
			return err
		}
		_, err := c.conn.Write(data)
		return err
	case write:
		err = c.receive(f, data, int64(h.offset))
	case sync:
		err = f.Sync()
	case remove:
		f.Close()
		delete(c.files, h.file)
		err = os.Remove(f.Name())
	}
	if err != nil {
		return err
	}
	_, err = c.conn.Write([]byte{acknowledge})
	return err
}

// piece is how much of a write is received before it goes to the file, in bytes: the
// client goes on sending into the socket's buffer meanwhile, so that receiving and
// applying overlap.
const piece = 128 << 10

// receive writes what arrives to a file at an offset.
func (c *connection) receive(f *os.File, data []byte, offset int64) error {
	for len(data) > 0 {
		part := data[:min(len(data), piece)]
		if _, err := io.ReadFull(c.in, part); err != nil {
			return err
		}
		if _, err := f.WriteAt(part, offset); err != nil {
			return err
		}
		data, offset = data[len(part):], offset+int64(len(part))
	}
	return nil
}

func (c *connection) open(file uint32) (*os.File, error) {
	if f := c.files[file]; f != nil {
		return f, nil
	}
	f, err := os.OpenFile(filepath.Join(c.dir, strconv.Itoa(int(file))), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c.files[file] = f
	return f, nil
}

func (c *connection) closeFiles() {
	for _, f := range c.files {
		f.Close()
	}
}
