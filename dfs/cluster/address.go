package cluster

import (
	"fmt"
	"net"
	"net/netip"
)

// chunkAddresses are the flags of chunk servers by which all who reach the
// metadata server reach these, too: they listen where it does.
func (c *Config) chunkAddresses() ([]string, error) {
	host, _, err := net.SplitHostPort(c.Meta)
	if err != nil {
		return nil, fmt.Errorf("metadata server at %q: %w", c.Meta, err)
	}
	found, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, fmt.Errorf("metadata server at %q: %w", c.Meta, err)
	}
	free := net.JoinHostPort(found.String(), "0")
	flags := []string{"--data-address", free, "--control-address", free}
	if !found.IP.IsUnspecified() {
		return flags, nil
	}
	reached := c.Advertise
	if reached == "" {
		reached = ownAddress(found.IP.To4() != nil).String()
	}
	return append(flags, "--advertise", reached), nil
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
