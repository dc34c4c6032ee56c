// Package reflector sends UDP datagrams over IPv4 back from where they arrive, in
// the network driver: the least that an answer over the network can take, and so
// the floor of programs that answer there. Nothing stands behind it: what it does
// not send back goes up the stack, to whoever is there.
//
// A datagram begins with 8 bytes that are the sender's own, and 4 bytes that say,
// little endian, how many bytes of it come back, from 12 to all.
package reflector

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf/link"

	"waggle/bpf/refusal"
)

//go:generate go tool bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" reflect reflect.bpf.c

// Reflector is the program on one interface.
type Reflector struct {
	objects reflectObjects
	link    link.Link
}

// Attach sends back what arrives at an interface of the calling thread's network
// namespace for an IPv4 address and port. It runs in native mode and no other. On a
// veth pair the other end must run an XDP program as well, or it can't receive what
// is sent back (package xdppass has one that does nothing). It stays until Close,
// or until the process ends.
func Attach(interfaceName string, at netip.AddrPort) (*Reflector, error) {
	i, err := net.InterfaceByName(interfaceName)
	if err != nil {
		return nil, fmt.Errorf("attach a reflector to %q: %w", interfaceName, err)
	}
	r := new(Reflector)
	if err := r.load(at); err != nil {
		return nil, err
	}
	r.link, err = link.AttachXDP(link.XDPOptions{Program: r.objects.Reflect, Interface: i.Index, Flags: link.XDPDriverMode})
	if err != nil {
		r.objects.Close()
		return nil, fmt.Errorf("attach a reflector to %s: %w", interfaceName, err)
	}
	return r, nil
}

func (r *Reflector) load(at netip.AddrPort) error {
	if !at.Addr().Is4() {
		return fmt.Errorf("load a reflector for %s: it is for IPv4", at)
	}
	spec, err := loadReflect()
	if err != nil {
		return fmt.Errorf("load a reflector: %w", err)
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], at.Port())
	if err := spec.Variables["address"].Set(at.Addr().As4()); err != nil {
		return fmt.Errorf("load a reflector: %w", err)
	}
	if err := spec.Variables["port"].Set(port); err != nil {
		return fmt.Errorf("load a reflector: %w", err)
	}
	if err := spec.LoadAndAssign(&r.objects, nil); err != nil {
		return fmt.Errorf("load a reflector: %w", err)
	}
	return nil
}

// Reflected is how many datagrams were sent back.
func (r *Reflector) Reflected() (n uint64, err error) {
	var perCPU []uint64
	if err := r.objects.Reflected.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read how many datagrams were reflected: %w", err)
	}
	for _, each := range perCPU {
		n += each
	}
	return n, nil
}

// Close detaches the program.
func (r *Reflector) Close() error {
	if err := r.link.Close(); err != nil {
		return fmt.Errorf("detach a reflector: %w", err)
	}
	return r.objects.Close()
}

// feature is what the program needs. Linux 6.1 is the oldest that the program of
// bpf/lookup is tested on, which does more of the same.
var feature = refusal.Feature{Name: "the reflector", Since: refusal.Version{Major: 6, Minor: 1},
	Needs: []refusal.Capability{refusal.BPF, refusal.NetAdmin, refusal.Perfmon}}

// Supported returns nil if this machine can load the program, else a
// *refusal.Error that says why not.
func Supported() error {
	var r Reflector
	err := r.load(netip.AddrPortFrom(netip.IPv4Unspecified(), 1))
	if err == nil {
		err = r.objects.Close()
	}
	return feature.Explain(err)
}
