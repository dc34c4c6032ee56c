package afxdp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// AttachMode says where in the receive path of an interface the program runs.
type AttachMode string

// The modes.
const (
	// Native: in the driver, before a socket buffer is made.
	Native AttachMode = "native"
	// Generic: in the stack, for drivers without XDP.
	Generic AttachMode = "generic"
)

// Redirect is the program that hands the datagrams for one address and UDP port
// to a socket.
type Redirect struct {
	Mode    AttachMode
	objects redirectObjects
	link    link.Link
}

// Attach puts the program on the socket's interface, in native mode if its
// driver has that. It is detached by Close or when the process ends. An interface
// has room for one program: the error is unix.EBUSY if another is there.
func Attach(s *Socket, to netip.AddrPort) (*Redirect, error) {
	if !to.Addr().Is4() {
		return nil, fmt.Errorf("redirect datagrams for %s: only IPv4 is known", to)
	}
	r := new(Redirect)
	if err := r.load(to); err != nil {
		return nil, fmt.Errorf("load the program that redirects datagrams: %w", err)
	}
	if err := r.attach(s); err != nil {
		return nil, errors.Join(fmt.Errorf("redirect datagrams for %s: %w", to, err), r.objects.Close())
	}
	return r, nil
}

func (r *Redirect) load(to netip.AddrPort) error {
	spec, err := loadRedirect()
	if err != nil {
		return err
	}
	port := to.Port()
	err = errors.Join(
		spec.Variables["address"].Set(to.Addr().As4()),
		spec.Variables["port"].Set([2]byte{byte(port >> 8), byte(port)}))
	if err != nil {
		return err
	}
	return spec.LoadAndAssign(&r.objects, nil)
}

func (r *Redirect) attach(s *Socket) (err error) {
	if err := r.objects.Sockets.Put(uint32(0), uint32(s.fd)); err != nil {
		return fmt.Errorf("enter the socket: %w", err)
	}
	options := link.XDPOptions{Program: r.objects.Redirect, Interface: s.config.Interface, Flags: link.XDPDriverMode}
	r.Mode = Native
	r.link, err = link.AttachXDP(options)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: another XDP program is on interface %d: %w", unix.EBUSY, s.config.Interface, err)
	}
	options.Flags, r.Mode = link.XDPGenericMode, Generic
	native := err
	if r.link, err = link.AttachXDP(options); err != nil {
		return errors.Join(native, err)
	}
	return nil
}

// Redirected is how many datagrams were handed over, or lost because the socket
// had no room.
func (r *Redirect) Redirected() (n uint64, err error) {
	var counts []uint64
	if err := r.objects.Redirected.Lookup(uint32(0), &counts); err != nil {
		return 0, fmt.Errorf("count redirected datagrams: %w", err)
	}
	for _, count := range counts {
		n += count
	}
	return n, nil
}

// Close detaches the program.
func (r *Redirect) Close() error { return errors.Join(r.link.Close(), r.objects.Close()) }
