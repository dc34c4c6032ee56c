package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Connection is one end of an established TCP connection, as the kernel describes it.
type Connection struct {
	Congestion                string // name of its congestion control
	ReceiveBuffer, SendBuffer int    // bytes, as the kernel counts them
	inode                     uint32
}

// Connections are the ends of TCP connections that the process holds. It asks the
// kernel and not the process, so that it also tells of programs that are not ours.
func (p *Process) Connections() ([]Connection, error) {
	held, err := socketsOf(p.PID())
	if err != nil {
		return nil, fmt.Errorf("list the sockets of %s: %w", p.Name, err)
	}
	var mine []Connection
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := p.host.connections(family)
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for the connections of %s: %w", p.Name, err)
		}
		for _, c := range all {
			if held[c.inode] {
				mine = append(mine, c)
			}
		}
	}
	return mine, nil
}

// socketsOf are the inodes of the sockets that a process has open.
func socketsOf(pid int) (map[uint32]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	held := map[uint32]bool{}
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if !isSocket {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("socket %q: %w", target, err)
		}
		held[uint32(n)] = true
	}
	return held, nil
}

// Sizes of the kernel's messages about sockets, in bytes (linux/inet_diag.h), and
// where in an answer the inode is.
const (
	diagRequestSize = 56
	diagAnswerSize  = 72
	diagInode       = 68
)

const tcpEstablished = 1

// diagRequest asks for all established TCP connections of a family, with their
// congestion control and buffers. It implements nl.NetlinkRequestData.
type diagRequest struct{ family uint8 }

func (diagRequest) Len() int { return diagRequestSize }

func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1] = r.family, unix.IPPROTO_TCP
	b[2] = 1<<(netlink.INET_DIAG_CONG-1) | 1<<(netlink.INET_DIAG_SKMEMINFO-1)
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished)
	return b
}

// connections are those in the host's network namespace.
func (h *Host) connections(family uint8) (list []Connection, err error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(diagRequest{family})
	var answers [][]byte
	if err := onThread(h.thread, func() (err error) {
		answers, err = request.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
		return err
	}); err != nil {
		return nil, err
	}
	for _, answer := range answers {
		c, err := parseConnection(answer)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// parseConnection reads an inet_diag_msg and the attributes behind it.
func parseConnection(b []byte) (c Connection, err error) {
	if len(b) < diagAnswerSize {
		return c, fmt.Errorf("the kernel's answer has %d bytes, fewer than %d", len(b), diagAnswerSize)
	}
	c.inode = binary.NativeEndian.Uint32(b[diagInode:])
	attributes, err := nl.ParseRouteAttr(b[diagAnswerSize:])
	if err != nil {
		return c, fmt.Errorf("the kernel's answer: %w", err)
	}
	for _, a := range attributes {
		switch a.Attr.Type {
		case netlink.INET_DIAG_CONG:
			c.Congestion = unix.ByteSliceToString(a.Value)
		case netlink.INET_DIAG_SKMEMINFO: // allocated, limit; first for receiving
			if len(a.Value) < 16 {
				return c, fmt.Errorf("the kernel says %d bytes about a socket's buffers", len(a.Value))
			}
			c.ReceiveBuffer = int(binary.NativeEndian.Uint32(a.Value[4:]))
			c.SendBuffer = int(binary.NativeEndian.Uint32(a.Value[12:]))
		}
	}
	return c, nil
}
