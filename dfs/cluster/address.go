package cluster

import (
	"fmt"
	"net"
	"net/netip"
)

// addresses are flags of the roles that say where they are.
type addresses struct{ meta, chunk []string }

// addresses finds out how all who reach the metadata server reach the chunk
// servers, too: they listen where it does. Lookups are answered at one address,
// because an answer has to come from where the question went.
func (c *Config) addresses() (a addresses, err error) {
	host, port, err := net.SplitHostPort(c.Meta)
	if err != nil {
		return a, fmt.Errorf("metadata server at %q: %w", c.Meta, err)
	}
	found, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return a, fmt.Errorf("metadata server at %q: %w", c.Meta, err)
	}
	free := net.JoinHostPort(found.String(), "0")
	a.chunk = []string{"--data-address", free, "--control-address", free}
	if !found.IP.IsUnspecified() {
		return a, nil
	}
	reached := c.Advertise
	if reached == "" {
		reached = ownAddress(found.IP.To4() != nil).String()
	}
	a.meta = []string{"--lookup-address", net.JoinHostPort(reached, port)}
	a.chunk = append(a.chunk, "--advertise", reached)
	return a, nil
}

// A route to these addresses, which are for documentation, is one to everybody.
// Nothing is sent to them.
const (
	anyoneIPv4 = "192.0.2.1:9"
	anyoneIPv6 = "[2001:db8::1]:9"
)

// ownAddress is the address that this machine sends to others from; without a
// route to others the first that is no loopback address, or else loopback, which
// nobody else reaches, as nobody else is there.
func ownAddress(ipv4 bool) netip.Addr {
	to := anyoneIPv6
	if ipv4 {
		to = anyoneIPv4
	}
	if conn, err := net.Dial("udp", to); err == nil {
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().Is4() == ipv4 && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr()
		}
	}
	if ipv4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
