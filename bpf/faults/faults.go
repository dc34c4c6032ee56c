// Package faults makes a link of this machine bad: packets between two addresses
// are lost, doubled, changed, overtaken by later ones, or cut off altogether. It
// needs no netem: a BPF program at a TCX hook of one interface does it, and what
// it does follows from a seed and the number of packets before, so that a test
// can be played again.
//
//	in, err := faults.Attach("eth0", faults.Options{Hook: faults.Egress})
//	defer in.Close()
//	err = in.Set(faults.Rule{From: a, To: b, Drop: 0.01, Seed: 7})
//
// A packet is what passes the hook. At Egress one of TCP has up to 64 KiB, always,
// because it is cut later; at Ingress it is what the link has brought, which on a
// link without segmentation offloads is one of the MTU.
//
// Packets that are held back pass through this process, by a TAP interface: they
// keep their order among themselves, and all others overtake them. Everything goes
// with the process, however it ends: the program, the interface, and the packets
// that are being held.
package faults

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"waggle/bpf/refusal"
)

// Hook is where an interface's packets meet the program.
type Hook string

// The hooks.
const (
	Egress  Hook = "egress"  // what this side sends, before segmentation and checksums
	Ingress Hook = "ingress" // what this side receives
)

// flagIngress is the kernel's BPF_F_INGRESS.
const flagIngress = 1

// DefaultHold is how long packets are held back if Options say nothing: longer
// than a burst, and much shorter than TCP's shortest time-out (200 ms).
const DefaultHold = 2 * time.Millisecond

// Options of an injector. The zero value is a good start.
type Options struct {
	Hook Hook // default Egress
	// Hold is how long a packet stays in the detour; default DefaultHold. The
	// detour has room for 4,096 packets; more are lost, as in a full queue.
	Hold time.Duration
}

// Injector is the program on one interface. Its methods may be called from
// several goroutines.
type Injector struct {
	objects faultsObjects
	links   []link.Link
	detour  *detour
}

// Counters say what has happened under a rule since Set.
type Counters struct {
	Packets    uint64 `json:"packets"` // that the rule was for
	Cut        uint64 `json:"cut"`
	Dropped    uint64 `json:"dropped"`
	Corrupted  uint64 `json:"corrupted"` // packets without payload can't be
	Duplicated uint64 `json:"duplicated"`
	Held       uint64 `json:"held"`
}

// Add adds another rule's.
func (c *Counters) Add(other Counters) {
	c.Packets += other.Packets
	c.Cut += other.Cut
	c.Dropped += other.Dropped
	c.Corrupted += other.Corrupted
	c.Duplicated += other.Duplicated
	c.Held += other.Held
}

// Attach puts the program on an interface of the calling thread's network
// namespace. Without rules it changes nothing.
func Attach(interfaceName string, o Options) (*Injector, error) {
	i, err := net.InterfaceByName(interfaceName)
	if err != nil {
		return nil, fmt.Errorf("inject faults at %q: %w", interfaceName, err)
	}
	if len(i.HardwareAddr) == 0 && i.Flags&net.FlagLoopback == 0 {
		return nil, fmt.Errorf("inject faults at %s: its packets have no Ethernet header: choose another interface", interfaceName)
	}
	if o.Hook == "" {
		o.Hook = Egress
	}
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	in := new(Injector)
	if err := in.attach(i.Index, o); err != nil {
		return nil, errors.Join(fmt.Errorf("inject faults at %s: %w", interfaceName, err), in.Close())
	}
	return in, nil
}

func (in *Injector) attach(index int, o Options) (err error) {
	var at ebpf.AttachType
	var direction uint64
	switch o.Hook {
	case Egress:
		at = ebpf.AttachTCXEgress
	case Ingress:
		at, direction = ebpf.AttachTCXIngress, flagIngress
	default:
		return fmt.Errorf("there is no hook %q: choose %s or %s", o.Hook, Egress, Ingress)
	}
	if in.detour, err = openDetour(o.Hold); err != nil {
		return fmt.Errorf("make the interface on which packets are held back: %w", err)
	}
	spec, err := loadFaults()
	if err != nil {
		return err
	}
	err = errors.Join(
		spec.Variables["interface_index"].Set(uint32(index)),
		spec.Variables["detour_index"].Set(uint32(in.detour.index)),
		spec.Variables["direction"].Set(direction))
	if err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&in.objects, nil); err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	for _, a := range []link.TCXOptions{
		{Interface: in.detour.index, Program: in.objects.EnterDetour, Attach: ebpf.AttachTCXEgress},
		{Interface: in.detour.index, Program: in.objects.LeaveDetour, Attach: ebpf.AttachTCXIngress},
		{Interface: index, Program: in.objects.Inject, Attach: at},
	} {
		attached, err := link.AttachTCX(a)
		if err != nil {
			return fmt.Errorf("attach the program (Linux 6.6 or later has the hook): %w", err)
		}
		in.links = append(in.links, attached)
	}
	in.detour.start()
	return nil
}

func keyOf(from, to netip.Addr) (k faultsAddresses) {
	// The zero address has no bytes to ask for.
	if from.IsValid() {
		k.From = from.As16()
	}
	if to.IsValid() {
		k.To = to.As16()
	}
	return k
}

// Set puts a rule into force, instead of one for the same addresses. Its counters
// begin with zero, and so do its decisions.
func (in *Injector) Set(r Rule) error {
	if err := r.check(); err != nil {
		return err
	}
	value := faultsRule{Seed: r.Seed, Drop: threshold(r.Drop), Corrupt: threshold(r.Corrupt), Duplicate: threshold(r.Duplicate), Hold: threshold(r.Hold)}
	if r.Cut {
		value.Flags |= flagCut
	}
	if r.FixChecksum {
		value.Flags |= flagFixChecksum
	}
	if err := in.objects.Rules.Put(keyOf(r.From, r.To), value); err != nil {
		return fmt.Errorf("enter a rule for packets from %s to %s: %w", r.From, r.To, err)
	}
	return nil
}

// Flags of a rule, as in faults.bpf.c.
const (
	flagCut = 1 << iota
	flagFixChecksum
)

// Clear ends the rule for these addresses, if there is one.
func (in *Injector) Clear(from, to netip.Addr) error {
	err := in.objects.Rules.Delete(keyOf(from, to))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("clear the rule for packets from %s to %s: %w", from, to, err)
	}
	return nil
}

// ClearAll ends all rules.
func (in *Injector) ClearAll() error {
	var k faultsAddresses
	for {
		err := in.objects.Rules.NextKey(nil, &k)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err == nil {
			err = in.objects.Rules.Delete(k)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("clear all rules: %w", err)
		}
	}
}

// Counters returns what the rule for these addresses has done; nothing if there
// is none.
func (in *Injector) Counters(from, to netip.Addr) (Counters, error) {
	var r faultsRule
	err := in.objects.Rules.Lookup(keyOf(from, to), &r)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return Counters{}, fmt.Errorf("count packets from %s to %s: %w", from, to, err)
	}
	return Counters{Packets: r.Packets, Cut: r.Cut, Dropped: r.Dropped, Corrupted: r.Corrupted, Duplicated: r.Duplicated, Held: r.Held}, nil
}

// Close ends all faults. Packets that are being held are lost.
func (in *Injector) Close() error {
	var failed error
	for i := len(in.links) - 1; i >= 0; i-- {
		failed = errors.Join(failed, in.links[i].Close())
	}
	if in.detour != nil {
		failed = errors.Join(failed, in.detour.Close())
	}
	return errors.Join(failed, in.objects.Close())
}

// feature is what faults need: programs at TCX, and a tunnel for packets that wait.
var feature = refusal.Feature{Name: "faults of packets (TCX, /dev/net/tun)", Since: refusal.Version{Major: 6, Minor: 6},
	Needs: []refusal.Capability{refusal.BPF, refusal.NetAdmin}}

// Supported returns nil if this machine can inject faults, else why not. It
// leaves nothing behind.
func Supported() error {
	in, err := Attach("lo", Options{})
	if err == nil {
		err = in.Close()
	}
	return feature.Explain(err)
}
