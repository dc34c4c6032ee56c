package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	kernel "waggle/bpf/lookup"
	"waggle/dfs/datapath"
)

func init() {
	Paths.Register(xdpPath{kernel.Native})
	Paths.Register(xdpPath{kernel.Generic})
}

// Counters of lookup=xdp and xdp-generic: that of the answers, which is its proof, those of the
// packets that were passed to user space (lookup_xdp_pass_REASON), and one that
// says by its name which mode the program runs in.
const (
	xdpPrefix = "lookup_xdp_"
	// xdpUpdates counts how often the tables were changed.
	xdpUpdates = xdpPrefix + "table_updates"
)

// defaultSizes hold a million names.
var defaultSizes = Sizes{Entries: 1 << 20, Locations: 1 << 16, Contents: 1 << 17, Sessions: 16384}

// attachTime is how long to wait for the program of a server that was killed: it
// goes with its process, which the kernel may still be taking apart.
const attachTime = 5 * time.Second

// xdpPath answers in the kernel what stands in its tables, and as lookup=udp what
// does not. Where the program runs is the mode, which is never another than the
// one that was asked for: generic mode is a different thing to measure.
type xdpPath struct{ mode kernel.Mode }

func (p xdpPath) name() string {
	if p.mode == kernel.Generic {
		return "xdp-generic"
	}
	return "xdp"
}

func (p xdpPath) About() datapath.Info {
	summary := "answered in the network driver by an XDP program; what it can't answer, as lookup=udp"
	if p.mode == kernel.Generic {
		summary = "as lookup=xdp, with the program in the stack behind the driver: for loopback, and drivers without XDP"
	}
	return datapath.Info{
		Operation: datapath.Lookup,
		Name:      p.name(),
		Summary:   summary,
		EBPF:      true,
		Supported: kernel.Supported,
		Proof:     []string{xdpPrefix + kernel.Answered.String()},
		HitsOnly:  true,
		Lesser:    []string{xdpPrefix + "mode_generic"},
		Watched:   watched(),
		Stages:    inDriver(),
	}
}

// watched are the counters that say why user space had to answer.
func watched() (names []string) {
	for o := kernel.PassHeaders; o <= kernel.PassNoRoom; o++ {
		names = append(names, xdpPrefix+o.String())
	}
	return append(names, xdpUpdates)
}

func (p xdpPath) Listen(ctx context.Context, address netip.AddrPort, options Options) (Server, error) {
	behind, err := plainUDP.Listen(ctx, address, options)
	if err != nil {
		return nil, err
	}
	s := &xdpServer{Server: behind}
	if err := s.attach(ctx, p.mode, options); err != nil {
		if p.mode == kernel.Native && !errors.Is(err, unix.EBUSY) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w; lookup=xdp-generic runs the program behind the driver", datapath.ErrUnsupported, err)
		}
		return nil, errors.Join(fmt.Errorf("lookup=%s at %s: %w", p.name(), behind.Address(), err), s.Close())
	}
	return s, nil
}

// xdpServer is the program in the kernel and the server behind it.
type xdpServer struct {
	Server
	table      *kernel.Table
	attachment *kernel.Attachment
}

func (s *xdpServer) attach(ctx context.Context, mode kernel.Mode, options Options) error {
	at := s.Address()
	device, err := deviceOf(at.Addr())
	if err != nil {
		return err
	}
	sizes := options.Sizes
	if sizes == (Sizes{}) {
		sizes = defaultSizes
	}
	o := kernel.Options{Port: at.Port(), Entries: sizes.Entries, Locations: sizes.Locations, Contents: sizes.Contents, Sessions: sizes.Sessions,
		MAC: kernel.MAC(device)}
	if at.Addr().Is4() {
		o.IPv4 = at.Addr().As4()
	} else {
		o.IPv6 = at.Addr().As16()
	}
	if s.table, err = kernel.Open(o); err != nil {
		return err
	}
	if s.attachment, err = attachWhenFree(ctx, s.table, device.Name, mode); err != nil {
		return err
	}
	options.Counters.Counter(xdpPrefix + "mode_" + string(s.attachment.Mode)).Store(1)
	options.Counters.AddSource(s.count)
	return nil
}

func attachWhenFree(ctx context.Context, table *kernel.Table, device string, mode kernel.Mode) (*kernel.Attachment, error) {
	for end := time.Now().Add(attachTime); ; {
		attachment, err := table.Attach(device, mode)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return attachment, err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// count adds what became of the packets to a snapshot of counters.
func (s *xdpServer) count(counts map[string]int64) {
	outcomes, err := s.table.Outcomes()
	if err != nil {
		return // the server is closed
	}
	for outcome, n := range outcomes {
		counts[xdpPrefix+outcome.String()] = int64(n)
	}
	counts[xdpUpdates] = int64(s.table.Updates())
}

// deviceOf returns the network interface that has an address.
func deviceOf(address netip.Addr) (*net.Interface, error) {
	if address.IsUnspecified() {
		return nil, errors.New("the program needs the address of one network interface: say which one to answer lookups on")
	}
	devices, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, device := range devices {
		addresses, err := device.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == address {
				return &device, nil
			}
		}
	}
	return nil, fmt.Errorf("no network interface has the address %s", address)
}

// Tables implements Server.
func (s *xdpServer) Tables() *Tables { return &Tables{s.table} }

func (s *xdpServer) Serve(ctx context.Context, resolver Resolver) error {
	return errors.Join(s.Server.Serve(ctx, resolver), s.detach())
}

func (s *xdpServer) Close() error { return errors.Join(s.Server.Close(), s.detach()) }

func (s *xdpServer) detach() error {
	var failed error
	if s.attachment != nil {
		failed = s.attachment.Close()
	}
	if s.table != nil {
		failed = errors.Join(failed, s.table.Close())
	}
	return failed
}
