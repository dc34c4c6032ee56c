package topology

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"waggle/bpf/faults"
	"waggle/bpf/xdppass"
)

// Names of the interfaces. Each namespace is its own world, so they need not
// differ between networks.
const (
	bridgeName = "bridge"
	hostLink   = "eth0"
)

// Addresses of the networks: 10.77.0.N and fd77::N. The bridge is 1, hosts follow.
func address4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}) }

func address6(n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: byte(n)})
}

func (n *Network) openHosts(o Options) error {
	bridge, err := newThread(unix.CLONE_NEWNET)
	if err != nil {
		return err
	}
	n.bridge, n.control = bridge, bridge
	if err := n.steer(bridge, o.Receiving[""]); err != nil {
		return err
	}
	if err := set(bridge, o.Sysctls); err != nil {
		return err
	}
	if err := onThread(bridge, func() error { return makeBridge(o.MTU) }); err != nil {
		return fmt.Errorf("make the bridge: %w", err)
	}
	for i, name := range o.Hosts {
		t, err := newThread(unix.CLONE_NEWNET)
		if err != nil {
			return err
		}
		n.hosts[name] = &Host{name, address4(i + 2), t, n.owner}
		if err := n.steer(t, o.Receiving[name]); err != nil {
			return err
		}
		if err := set(t, o.Sysctls); err != nil {
			return err
		}
		if err := n.link(t, i+2, o); err != nil {
			return fmt.Errorf("link host %s to the bridge: %w", name, err)
		}
		if o.Faults != (faults.Rule{}) {
			if err := n.injectFaults(t, o.Faults, i); err != nil {
				return err
			}
		}
		if !o.XDPPass {
			continue
		}
		if err := n.passXDP(bridge, portName(i+2)); err != nil {
			return err
		}
		if slices.Contains(o.XDPFree, name) {
			continue
		}
		if err := n.passXDP(t, hostLink); err != nil {
			return err
		}
	}
	return nil
}

// set makes settings of the thread's namespace.
func set(t *thread, sysctls map[string]string) error {
	return onThread(t, func() error {
		for name, value := range sysctls {
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
				return fmt.Errorf("set %s of a network namespace: %w", name, err)
			}
		}
		return nil
	})
}

// steer has the processors receive what arrives at interfaces that are yet to be
// made in the thread's namespace; with none it changes nothing.
func (n *Network) steer(t *thread, processors []int) error {
	if len(processors) == 0 {
		return nil
	}
	return onThread(t, func() error {
		if err := os.WriteFile(steeringFile, []byte(processorMask(processors)), 0); err != nil {
			return fmt.Errorf("choose the processors that receive packets: %w", err)
		}
		return nil
	})
}

// steeringFile holds the mask that new interfaces of a namespace, that of the
// thread that opens it, begin with (Linux 6.3).
const steeringFile = "/proc/sys/net/core/rps_default_mask"

// processorMask writes a set as the kernel reads it: in hexadecimal, in groups of
// 32 bits, the lowest last.
func processorMask(processors []int) string {
	groups := make([]uint32, slices.Max(processors)/32+1)
	for _, p := range processors {
		groups[len(groups)-1-p/32] |= 1 << (p % 32)
	}
	text := make([]string, len(groups))
	for i, g := range groups {
		text[i] = fmt.Sprintf("%08x", g)
	}
	return strings.Join(text, ",")
}

// passXDP puts a program on an interface that passes everything.
func (n *Network) passXDP(t *thread, name string) error {
	return onThread(t, func() error {
		attached, err := xdppass.Attach(name)
		if err == nil {
			n.passing = append(n.passing, attached)
		}
		return err
	})
}

// injectFaults has a host's link do to packets what the rule says.
func (n *Network) injectFaults(t *thread, r faults.Rule, host int) error {
	r.From, r.To = netip.Addr{}, netip.Addr{}
	r.Seed += uint64(host)
	return onThread(t, func() error {
		in, err := faults.Attach(hostLink, faults.Options{Hook: faults.Ingress})
		if err != nil {
			return err
		}
		n.faults = append(n.faults, in)
		return in.Set(r)
	})
}

func onThread(t *thread, f func() error) (err error) {
	if failed := t.do(func() { err = f() }); failed != nil {
		return failed
	}
	return err
}

func makeBridge(mtu int) error {
	if err := setUp("lo"); err != nil {
		return err
	}
	if err := bypassFilters(); err != nil {
		return err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName, MTU: mtu}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add %s: %w", bridgeName, err)
	}
	return address(bridge, 1)
}

// bypassFilters keeps what crosses a bridge of the calling thread's network
// namespace from the filters of IP packets, which a switch does not have either.
// Where the module that sends them there is not loaded there is nothing to do.
func bypassFilters() error {
	for _, filter := range []string{"arptables", "ip6tables", "iptables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+filter, []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keep packets on the bridge from %s: %w", filter, err)
		}
	}
	return nil
}

// portName is the bridge's end of the link to the host with number i.
func portName(i int) string { return fmt.Sprintf("port%d", i) }

// link joins the host with number i to the bridge.
func (n *Network) link(host *thread, i int, o Options) error {
	port := portName(i)
	err := onThread(n.bridge, func() error { return makePort(port, int(host.namespace.Fd()), o) })
	if err != nil {
		return err
	}
	return onThread(host, func() error {
		if err := setUp("lo"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(hostLink)
		if err != nil {
			return fmt.Errorf("find %s: %w", hostLink, err)
		}
		if err := setLink(hostLink, o); err != nil {
			return err
		}
		return address(link, i)
	})
}

// makePort makes a veth pair with one end on the bridge and the other in the
// namespace.
func makePort(name string, namespace int, o Options) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find %s: %w", bridgeName, err)
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: o.MTU, MasterIndex: bridge.Attrs().Index},
		PeerName:  hostLink, PeerMTU: uint32(o.MTU), PeerNamespace: netlink.NsFd(namespace),
	}
	if o.XDPPass {
		processors, err := ebpf.PossibleCPU()
		if err != nil {
			return fmt.Errorf("count the processors: %w", err)
		}
		count := queues(processors)
		veth.NumTxQueues, veth.NumRxQueues = count, count
		veth.PeerNumTxQueues, veth.PeerNumRxQueues = uint32(count), uint32(count)
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth pair %s: %w", name, err)
	}
	if err := setLink(name, o); err != nil {
		return err
	}
	return setUp(name)
}

// setLink sets how one end of a link works.
func setLink(name string, o Options) error {
	if err := setOffload(name, o.Offload); err != nil || !o.XDPPass {
		return err
	}
	return spreadQueues(name)
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", name, err)
	}
	return nil
}

// address gives a link the addresses of number n and sets it up.
func address(link netlink.Link, n int) error {
	for _, a := range []struct {
		ip   netip.Addr
		bits int
	}{{address4(n), 24}, {address6(n), 64}} {
		addr := &netlink.Addr{
			IPNet: &net.IPNet{IP: a.ip.AsSlice(), Mask: net.CIDRMask(a.bits, a.ip.BitLen())},
			// Duplicate address detection would hold IPv6 back for a second.
			Flags: unix.IFA_F_NODAD,
		}
		err := netlink.AddrAdd(link, addr)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES) && a.ip.Is6() {
			continue // IPv6 is switched off on this machine; nothing needs it
		}
		if err != nil {
			return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, a.ip, err)
		}
	}
	return setUp(link.Attrs().Name)
}

// features are those that Options.Offload switches.
var features = []string{"tx-tcp-segmentation", "tx-generic-segmentation", "rx-gro", "tx-checksum-ip-generic"}

func setOffload(name string, on bool) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer e.Close()
	change := map[string]bool{}
	for _, f := range features {
		change[f] = on
	}
	if err := e.Change(name, change); err != nil {
		return fmt.Errorf("switch the offloads of %s: %w", name, err)
	}
	return nil
}
