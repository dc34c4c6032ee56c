package lookup

import (
	"errors"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket that listens at all addresses of its host has to send each answer from
// the address that the request went to: a client takes it from no other. The
// kernel says which that was in a control message, and takes the same message
// with the answer.

// sourceSize is the size of that message in bytes.
var sourceSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo)

// wantDestinations has the kernel say where datagrams went.
func wantDestinations(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if failed != nil { // an IPv4 socket
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	return errors.Join(err, os.NewSyscallError("setsockopt PKTINFO", failed))
}

// asSource makes the message of a request that of its answer: it names the address
// and, unless that is of one link only, leaves the interface to the routes.
func asSource(message []byte) {
	if len(message) < unix.SizeofCmsghdr {
		return
	}
	header := (*unix.Cmsghdr)(unsafe.Pointer(&message[0]))
	data := message[unix.SizeofCmsghdr:]
	switch {
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex = 0
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		if linkLocal := info.Addr[0] == 0xfe && info.Addr[1]&0xc0 == 0x80; !linkLocal {
			info.Ifindex = 0
		}
	}
}
