// Package topology gives the roles of an experiment somewhere to live: `local`,
// where all share this machine's loopback, or `hosts`, where each host is a
// network namespace of its own, joined to the others by a veth pair and a
// bridge that itself lives in a namespace.
//
// Nothing outlives the process that made it, however it ends:
//
//   - Namespaces have no name. They exist as long as a thread of ours or a role
//     is in them, and their interfaces with them; none is ever in the machine's
//     own namespace.
//   - A role is killed by the kernel when the thread that started it ends
//     (PR_SET_PDEATHSIG); the threads are ours and live as long as their host.
//   - What the kernel does not clean up by itself, cgroups and scratch
//     directories, is written into a lock file that is held while we live. Sweep,
//     called at every start, finds those that nobody holds (owner.go).
package topology

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"waggle/bpf/faults"
	"waggle/bpf/reflector"
	"waggle/dfs/datapath"
)

// Kinds of network.
const (
	Local = "local"
	Hosts = "hosts"
)

// Options describe a network.
type Options struct {
	Kind  string
	Hosts []string // names of the hosts
	// MTU and Offload are those of the virtual links, set explicitly because
	// what a path costs depends on them. MTU is in bytes; Offload switches TCP
	// segmentation, GRO and transmit checksums. Kind `local` has no links.
	MTU     int
	Offload bool
	// Sysctls are settings of each namespace of the network, by their files below
	// /proc/sys, set before anything is in it. Kind `local` has no namespaces of its
	// own; for the machine's see Owner.Hold.
	Sysctls map[string]string
	// XDPPass puts an XDP program that passes everything on both ends of every
	// link: with one at the other end a veth can receive what XDP sends back, and
	// links that are compared must be alike. The own end of the hosts in XDPFree is
	// left to programs of their roles. Such a link is like one of a network card
	// in this, too, that it has a queue for each processor (queues.go); without
	// XDPPass it has the one that a veth has by itself, which AF_XDP needs.
	XDPPass bool
	XDPFree []string
	// Faults are what happens to the packets that each host receives; From and To are
	// not heeded, and the seed is one of several, one for each host. Packets that an
	// XDP program takes or answers are spared.
	Faults faults.Rule
	// Receiving says which processors do what the kernel has to do for packets that
	// arrive at a host's end of its link (receive packet steering); "" stands for
	// the other ends. Otherwise it is the one on which a packet was sent.
	Receiving map[string][]int
}

// maxHosts keeps host addresses in one byte.
const maxHosts = 200

// Network is where roles live.
type Network struct {
	owner *Owner
	hosts map[string]*Host
	// control is the thread of the host that the runner itself talks from.
	control *thread
	bridge  *thread
	passing []link.Link // XDP programs on links
	faults  []*faults.Injector
	// reflectors send datagrams back in the drivers of hosts.
	reflectors []*reflector.Reflector
}

// Host is one place of a network.
type Host struct {
	Name    string
	Address netip.Addr
	thread  *thread
	owner   *Owner
}

// Supported returns nil if this machine can have a network of the kind, else
// an error that wraps datapath.ErrUnsupported and says why.
func Supported(kind string) error {
	switch kind {
	case Local:
		return nil
	case Hosts:
		if os.Geteuid() != 0 {
			return fmt.Errorf("topology=hosts: %w: network namespaces need root", datapath.ErrUnsupported)
		}
		t, err := newThread(unix.CLONE_NEWNET)
		if err != nil {
			return fmt.Errorf("topology=hosts: %w: %w", datapath.ErrUnsupported, err)
		}
		t.close()
		return nil
	default:
		return fmt.Errorf("topology=%s is unknown: choose one of %s, %s", kind, Local, Hosts)
	}
}

// Open makes a network for the owner. Close ends it.
func Open(owner *Owner, o Options) (*Network, error) {
	if err := Supported(o.Kind); err != nil {
		return nil, err
	}
	if len(o.Hosts) == 0 || len(o.Hosts) > maxHosts {
		return nil, fmt.Errorf("make a network of %d hosts: from 1 to %d are possible", len(o.Hosts), maxHosts)
	}
	n := &Network{owner: owner, hosts: map[string]*Host{}}
	open := n.openLocal
	if o.Kind == Hosts {
		open = n.openHosts
	}
	if err := open(o); err != nil {
		n.Close()
		return nil, fmt.Errorf("make network %s: %w", o.Kind, err)
	}
	return n, nil
}

func (n *Network) openLocal(o Options) error {
	t, err := newThread(0)
	if err != nil {
		return err
	}
	n.control = t
	for _, name := range o.Hosts {
		n.hosts[name] = &Host{name, netip.AddrFrom4([4]byte{127, 0, 0, 1}), t, n.owner}
	}
	return nil
}

// Host returns the host of that name, or nil.
func (n *Network) Host(name string) *Host { return n.hosts[name] }

// Dial connects to an address of the network, which must be an IP address and
// a port. The connection may be used from anywhere.
func (n *Network) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial in a network: %w", err)
	}
	// A socket belongs to the namespace of the thread that makes it.
	if failed := n.control.do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) }); failed != nil {
		return nil, failed
	}
	return conn, err
}

// Faults returns what has been done to packets.
func (n *Network) Faults() (total faults.Counters, err error) {
	for _, f := range n.faults {
		done, err := f.Counters(netip.Addr{}, netip.Addr{})
		if err != nil {
			return total, err
		}
		total.Add(done)
	}
	return total, nil
}

// Close ends the network. Roles that still run in it are killed.
func (n *Network) Close() {
	for _, f := range n.faults {
		_ = f.Close() // goes with its interface if it fails
	}
	for _, p := range n.passing {
		p.Close() // goes with its interface if it fails
	}
	for _, r := range n.reflectors {
		_ = r.Close() // goes with its interface if it fails
	}
	for _, h := range n.hosts {
		if h.thread != n.control {
			h.thread.close()
		}
	}
	if n.bridge != nil && n.bridge != n.control {
		n.bridge.close()
	}
	if n.control != nil {
		n.control.close()
	}
}
