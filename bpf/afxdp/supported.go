package afxdp

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Supported returns nil if this machine has AF_XDP sockets and loads the program
// that redirects to them, else why not. It leaves nothing behind.
func Supported() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	var r Redirect
	if err == nil {
		err = r.load(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1))
	}
	if err != nil {
		return fmt.Errorf("AF_XDP needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, and Linux 5.11 or later: %w", err)
	}
	return r.objects.Close()
}
