package topology

import (
	"fmt"
	"net/netip"

	"waggle/bpf/reflector"
)

// reflectedPort is where reflectors send datagrams back.
const reflectedPort = 7

// Reflect has a host of kind Hosts, one of Options.XDPFree, send UDP datagrams back
// in its network driver, as package reflector says, and returns where. It ends with
// the network.
func (n *Network) Reflect(host string) (at netip.AddrPort, err error) {
	h := n.hosts[host]
	at = netip.AddrPortFrom(h.Address, reflectedPort)
	err = onThread(h.thread, func() error {
		r, err := reflector.Attach(hostLink, at)
		if err == nil {
			n.reflectors = append(n.reflectors, r)
		}
		return err
	})
	if err != nil {
		return at, fmt.Errorf("host %s: %w", host, err)
	}
	return at, nil
}

// Reflected is how many datagrams were sent back so.
func (n *Network) Reflected() (total uint64, err error) {
	for _, r := range n.reflectors {
		count, err := r.Reflected()
		if err != nil {
			return total, err
		}
		total += count
	}
	return total, nil
}
