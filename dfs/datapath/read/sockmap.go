package read

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"waggle/bpf/sockmap"
	"waggle/dfs/datapath"
)

func init() {
	Paths.Register(sockmapPath{inner: copyPath{}, summary: "pread and write, redirected in the kernel into the client's receive queue (sk_msg)"})
	Paths.Register(sockmapPath{inner: sendfilePath{}, summary: "sendfile, redirected in the kernel; copied on its way there (Linux 6.18)"})
	Paths.Register(sockmapPath{inner: mmapPath{}, summary: "write from the mapped replica, redirected in the kernel into the client's receive queue"})
}

// SockmapMark is the mark of connections that a client asks to be redirected,
// for sockmap.Config.
const SockmapMark = 0x77616767

// sockmapPath sends as another path does, on a connection whose bytes the
// kernel moves from one end to the other without TCP. A client that is not in
// the server's kernel, or not in its control group, is served by TCP: then the
// connection is counted as plain, and the proof does not grow.
//
// Neither splice nor MSG_ZEROCOPY may be used on such a connection (see package
// sockmap), so there are no combinations with those.
type sockmapPath struct {
	inner   Path
	summary string
}

func (p sockmapPath) About() datapath.Info {
	plain := p.inner.About()
	inner := plain.Name
	return datapath.Info{
		Operation: datapath.Read, Name: "sockmap+" + inner, Summary: p.summary, EBPF: true,
		Supported: sockmapSupported,
		Proof:     []string{"read_sockmap_redirected_bytes", "read_sockmap_" + inner + "_answers"},
		Stages:    redirected(plain),
		Watched:   []string{"read_sockmap_passed_bytes", "read_sockmap_plain_connections"},
	}
}

// sockmapSupported is asked for every connection, and finding out loads programs.
var sockmapSupported = sync.OnceValue(sockmap.IngressSupported)

func (p sockmapPath) dialer() net.Dialer {
	mark := sockmap.Mark(SockmapMark)
	return net.Dialer{Control: func(network, address string, conn syscall.RawConn) error {
		err := mark(network, address, conn)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: %w: it needs CAP_NET_ADMIN: %w", p.About(), datapath.ErrUnsupported, err)
		}
		return err
	}}
}

func (p sockmapPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	if server.Sockmap == nil {
		return nil, errors.New("the chunk server has no control group for it: start it with --sockmap-cgroup")
	}
	joined, err := server.Sockmap.Joined(conn)
	if err != nil {
		return nil, err
	}
	if !joined {
		server.Counters.Counter("read_sockmap_plain_connections").Add(1)
	}
	sender, err := p.inner.NewSender(conn, server)
	return &sockmapSender{sender, server.Counters.Counter(p.About().Proof[1])}, err
}

type sockmapSender struct {
	Sender
	answers *atomic.Int64
}

func (s *sockmapSender) Send(header []byte) error {
	s.answers.Add(1)
	return s.Sender.Send(header)
}

// ListenSockmap redirects connections to a server's port within a control
// group, whose directory is given, and has the server count what the kernel
// does.
func (s *Server) ListenSockmap(cgroup string, port uint16) (err error) {
	s.Sockmap, err = sockmap.NewIngress(sockmap.Config{
		Cgroup: cgroup, Ports: []uint16{port}, Mark: SockmapMark, BothWays: true,
	})
	if err != nil {
		return fmt.Errorf("redirect connections to port %d: %w", port, err)
	}
	s.Counters.AddSource(func(counts map[string]int64) {
		c, err := s.Sockmap.Counters()
		if err != nil {
			return // closed: the counts are gone, and the server is ending
		}
		counts["read_sockmap_redirected_bytes"] = int64(c.Answers.RedirectedBytes)
		counts["read_sockmap_passed_bytes"] = int64(c.Answers.PassedBytes())
		counts["read_sockmap_redirected_request_bytes"] = int64(c.Requests.RedirectedBytes)
	})
	return nil
}
