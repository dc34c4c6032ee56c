package read

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	kernel "waggle/bpf/afxdp"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read/afxdp"
	"waggle/dfs/wire"
)

// AFXDP is the name of the read path on which data comes in datagrams, past the
// stacks of both hosts (package afxdp).
const AFXDP = "afxdp"

func init() { Paths.Register(afxdpPath{}) }

// afxdpPath sends the data in datagrams to the UDP port that the client has told,
// and then the header by the connection: it says that all was sent.
type afxdpPath struct{ port uint16 }

func (afxdpPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: AFXDP, EBPF: true, BetweenHosts: true,
		Summary:   "datagrams sent from memory shared with the kernel and redirected into the client's (AF_XDP); headers by TCP",
		Supported: afxdpSupported,
		Proof:     []string{"read_afxdp_sent_bytes", "read_afxdp_received_bytes"},
		Stages: answered(server(9),
			datapath.Work{KernelToUser: 1, UserToKernel: 1, Datagrams: 1.0 / 1400, SoftIRQ: 1.0 / 1400}, 157, 48),
	}
}

// afxdpSupported is asked for every connection, and finding out loads a program.
var afxdpSupported = sync.OnceValue(kernel.Supported)

// With implements Parameterized: the parameter is the client's UDP port.
func (afxdpPath) With(parameter string) (Path, error) {
	port, err := strconv.ParseUint(parameter, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%w: read=%s with UDP port %q of the client", wire.ErrMalformed, AFXDP, parameter)
	}
	return afxdpPath{uint16(port)}, nil
}

func (p afxdpPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	if p.port == 0 {
		return nil, errors.New("the client did not say which UDP port it receives at")
	}
	from, to := conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	route, err := afxdp.Find(from.Addr(), to.Addr())
	if err != nil {
		return nil, err
	}
	sender, err := server.afxdp.NewSender(route, from.Port(), p.port, &server.Counters)
	if err != nil {
		return nil, err
	}
	return &afxdpSender{conn: conn, datagrams: sender}, nil
}

type afxdpSender struct {
	conn      *net.TCPConn
	datagrams *afxdp.Sender
	r         Range
}

// Greeting implements Greeter: it is how many bytes a datagram carries.
func (s *afxdpSender) Greeting() []byte { return strconv.AppendInt(nil, int64(s.datagrams.Piece), 10) }

func (s *afxdpSender) Prepare(r Range) error { s.r = r; return nil }

func (s *afxdpSender) Send(header []byte) error {
	id := binary.LittleEndian.Uint64(header[wire.FrameIDAt:])
	err := s.datagrams.Send(id, s.r.File, s.r.Offset, s.r.Length)
	if err == io.EOF {
		return ErrShrank
	}
	if err == nil {
		_, err = s.conn.Write(header)
	}
	return err
}

func (s *afxdpSender) Close() error { return nil }
