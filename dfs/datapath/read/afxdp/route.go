package afxdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

// Route is how packets get from this host to another.
type Route struct {
	Interface int // index
	MTU       int // bytes of an IP packet
	local     net.HardwareAddr
	from      netip.Addr
	to        netip.Addr
}

// Find finds the route that packets from one IPv4 address to another take, in
// the calling thread's network namespace, if AF_XDP can be used on it.
func Find(from, to netip.Addr) (Route, error) {
	from, to = from.Unmap(), to.Unmap()
	if !from.Is4() || !to.Is4() {
		return Route{}, fmt.Errorf("AF_XDP between %s and %s: only IPv4 is known", from, to)
	}
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return Route{}, fmt.Errorf("find the route to %s: %w", to, err)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return Route{}, fmt.Errorf("find the interface to %s: %w", to, err)
	}
	a := link.Attrs()
	if a.Flags&net.FlagLoopback != 0 {
		return Route{}, fmt.Errorf("%s and %s are one host, joined by %s: AF_XDP is for two hosts (topology hosts)", from, to, a.Name)
	}
	if err := oneQueue(a.Name); err != nil {
		return Route{}, err
	}
	return Route{Interface: a.Index, MTU: a.MTU, local: a.HardwareAddr, from: from, to: to}, nil
}

// oneQueue refuses an interface that spreads what it receives: a socket gets
// what comes in on one queue.
func oneQueue(name string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer e.Close()
	channels, err := e.GetChannels(name)
	if err != nil {
		return nil // the driver has no queues to choose from
	}
	if n := channels.CombinedCount + channels.RxCount; n > 1 {
		return fmt.Errorf("%s has %d receive queues, AF_XDP is used on one: set it to one (ethtool -L)", name, n)
	}
	return nil
}

// neighbour is the hardware address that packets of the route are sent to. The
// kernel knows it while there is a connection between the two.
func (r Route) neighbour() (net.HardwareAddr, error) {
	routes, err := netlink.RouteGet(r.to.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the route to %s: %w", r.to, err)
	}
	hop := r.to
	if gateway, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		hop = gateway.Unmap()
	}
	known, err := netlink.NeighList(r.Interface, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the neighbours of interface %d: %w", r.Interface, err)
	}
	for _, n := range known {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == hop && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr, nil
		}
	}
	return nil, fmt.Errorf("no hardware address is known for %s", hop)
}

// headers are those of a datagram but for its lengths, which putLengths writes.
// There is no UDP checksum: IPv4 allows that, and a datagram has its own.
func (r Route) headers(fromPort, toPort uint16) (h [packetSize]byte, err error) {
	to, err := r.neighbour()
	if err != nil {
		return h, err
	}
	if len(r.local) != 6 {
		return h, errors.New("the interface has no Ethernet address")
	}
	copy(h[:], to)
	copy(h[6:], r.local)
	be := binary.BigEndian
	be.PutUint16(h[12:], 0x0800)
	ip := h[ethernetSize:]
	const versionAndLength, dontFragment, ttl, udp = 0x45, 0x4000, 64, 17
	ip[0], ip[8], ip[9] = versionAndLength, ttl, udp
	be.PutUint16(ip[6:], dontFragment)
	copy(ip[12:], r.from.AsSlice())
	copy(ip[16:], r.to.AsSlice())
	be.PutUint16(ip[ipSize:], fromPort)
	be.PutUint16(ip[ipSize+2:], toPort)
	return h, nil
}

// putLengths completes the headers of a packet.
func putLengths(packet []byte) {
	be := binary.BigEndian
	ip := packet[ethernetSize:]
	be.PutUint16(ip[2:], uint16(len(ip)))
	be.PutUint16(ip[10:], 0)
	var sum uint32
	for i := 0; i < ipSize; i += 2 {
		sum += uint32(be.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	be.PutUint16(ip[10:], ^uint16(sum))
	be.PutUint16(ip[ipSize+4:], uint16(len(ip)-ipSize))
}
