package lookup

import (
	"errors"
	"fmt"
	"net"
	"waggle/bpf/refusal"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Mode says where in the receive path of an interface the program runs.
type Mode string

// The modes.
const (
	// Native: in the driver, before a socket buffer is made.
	Native Mode = "native"
	// Generic: in the stack, for drivers without XDP, loopback for one.
	Generic Mode = "generic"
)

// Attachment is the program on one interface.
type Attachment struct {
	Mode Mode
	link link.Link
}

// Attach puts the program on an interface, the one whose hardware address the
// Table was opened for, in that mode and no other. On a veth pair the other end must run an XDP program as well, or it can't
// receive what is sent back (package xdppass has one that does nothing). The
// program is detached by Close or when the process ends. An interface has room
// for one program: the error is unix.EBUSY if another is there.
func (t *Table) Attach(interfaceName string, mode Mode) (*Attachment, error) {
	i, err := net.InterfaceByName(interfaceName)
	if err != nil {
		return nil, fmt.Errorf("attach the lookup program to %q: %w", interfaceName, err)
	}
	if mac := MAC(i); mac != t.mac {
		return nil, fmt.Errorf("attach the lookup program to %s: it is for frames to %v, and the interface has %v",
			interfaceName, net.HardwareAddr(t.mac[:]), net.HardwareAddr(mac[:]))
	}
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
	}
	attached, err := link.AttachXDP(link.XDPOptions{Program: t.objects.AnswerLookups, Interface: i.Index, Flags: flags})
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w: another XDP program is there: %w", unix.EBUSY, err)
	}
	if err != nil {
		return nil, fmt.Errorf("attach the lookup program to %s in %s mode: %w", interfaceName, mode, err)
	}
	return &Attachment{mode, attached}, nil
}

// MAC is the hardware address of an interface, zeros if it has none.
func MAC(i *net.Interface) (mac [6]byte) {
	copy(mac[:], i.HardwareAddr)
	return mac
}

// Close detaches the program.
func (a *Attachment) Close() error { return a.link.Close() }

// feature is what the program needs. Linux 6.1 is the oldest that it is tested on.
var feature = refusal.Feature{Name: "the lookup program", Since: refusal.Version{Major: 6, Minor: 1},
	Needs: []refusal.Capability{refusal.BPF, refusal.NetAdmin, refusal.Perfmon}}

// Supported returns nil if this machine can load the program, else a
// *refusal.Error that says why not.
func Supported() error {
	t, err := Open(Options{Port: 1, Entries: 1, Locations: 1, Contents: 1, Sessions: 1})
	if err == nil {
		err = t.Close()
	}
	return feature.Explain(err)
}
