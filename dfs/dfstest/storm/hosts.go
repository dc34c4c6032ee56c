package storm

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"waggle/bpf/faults"
)

// network joins the hosts of one cluster, each in a network namespace of its
// own, by a bridge in the namespace of this process, where the clients are.
type network struct {
	number int
	bridge *netlink.Bridge
	hosts  []*host
}

// clientAddress is that of all clients.
func (n *network) clientAddress() netip.Addr { return n.address(1) }

func (n *network) address(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 90, byte(n.number), byte(host)})
}

// newNetwork makes a bridge. The process must be in a namespace of its own.
func newNetwork(number int) (*network, error) {
	n := &network{number: number, bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("bridge%d", number)}}}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return nil, fmt.Errorf("make a bridge: %w", err)
	}
	return n, setUp(n.bridge.Name, n.clientAddress())
}

func setUp(name string, addresses ...netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for _, a := range addresses {
		address, err := netlink.ParseAddr(a.String() + "/24")
		if err == nil {
			err = netlink.AddrAdd(link, address)
		}
		if err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, a, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// host is a machine: a namespace, a link to the bridge, and a disk.
type host struct {
	addresses []netip.Addr // the first is its own
	namespace netns.NsHandle
	disk      *disk
	// to and from are where faults meet what the host is sent, and what it sends.
	to, from *faults.Injector
}

// newHost adds a host with the given addresses, the first of which is its own.
func (n *network) newHost(numbers ...int) (*host, error) {
	var addresses []netip.Addr
	for _, number := range numbers {
		addresses = append(addresses, n.address(number))
	}
	h := &host{addresses: addresses}
	port := fmt.Sprintf("port%d-%d", n.number, numbers[0])
	if err := h.makeNamespace(); err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: n.bridge.Index},
		PeerName: "eth0", PeerNamespace: netlink.NsFd(h.namespace)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make a link: %w", err)
	}
	err := h.do(func() error { return errors.Join(setUp("lo"), setUp("eth0", addresses...)) })
	if err == nil {
		err = setUp(port)
	}
	if err == nil {
		h.to, err = faults.Attach(port, faults.Options{Hook: faults.Egress})
	}
	if err == nil {
		h.from, err = faults.Attach(port, faults.Options{Hook: faults.Ingress})
	}
	return h, err
}

func (h *host) address() netip.Addr { return h.addresses[0] }

func (h *host) makeNamespace() error {
	return onThread(func() (err error) {
		h.namespace, err = netns.New()
		return err
	})
}

// do runs f in the host's namespace.
func (h *host) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.namespace); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that may change its namespace, and is in that of
// the process again afterwards.
func onThread(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	failed := f()
	if err := netns.Set(home); err != nil {
		return errors.Join(failed, err) // the thread stays locked, and ends
	}
	runtime.UnlockOSThread()
	return failed
}

// start starts a program on the host. It dies with this process.
func (h *host) start(c *exec.Cmd) error {
	// The signal comes when the thread ends that starts the program; those of this
	// process stay as long as the process.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return h.do(c.Start)
}

// way is one direction between two machines.
type way struct{ from, to netip.Addr }

// injector is where faults of a way are done. One of its ends is a host.
func (n *network) injector(w way) *faults.Injector {
	for _, h := range n.hosts {
		if slices.Contains(h.addresses, w.to) {
			return h.to
		}
	}
	for _, h := range n.hosts {
		if slices.Contains(h.addresses, w.from) {
			return h.from
		}
	}
	panic(fmt.Sprintf("no host has %s or %s", w.from, w.to))
}
