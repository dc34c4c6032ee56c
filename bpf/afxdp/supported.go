package afxdp

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"waggle/bpf/refusal"
)

var feature = refusal.Feature{Name: "AF_XDP", Since: refusal.Version{Major: 5, Minor: 11},
	Needs: []refusal.Capability{refusal.NetRaw, refusal.NetAdmin, refusal.BPF}}

// Supported returns nil if this machine has AF_XDP sockets and loads the program
// that redirects to them, else a *refusal.Error that says why not. It leaves
// nothing behind.
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
		return feature.Explain(err)
	}
	return r.objects.Close()
}
