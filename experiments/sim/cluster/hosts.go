package cluster

import (
	"math"

	"waggle/experiments/sim/station"
	"waggle/experiments/spec"
)

// hosts are the stations of a cluster: rows with one for each host, or a single
// one where all hosts share a machine.
type hosts struct {
	clients, servers int32
	rack             int32 // servers under one switch
	fabric           bool  // hosts are joined by real links

	clientProcessors, serverProcessors station.ID
	clientOut, clientIn                station.ID
	serverOut, serverIn                station.ID
	rackOut, rackIn                    station.ID
	oversubscribed                     bool
	memory                             station.ID // of servers
	hasMemory                          bool
	cache, disk, dirty, replicaDisk    station.ID
	hasCache, hasDisk                  bool
	wire                               station.ID // time on the way
	wait                               station.ID
}

// row adds one station a host, and gives the first.
func row[S station.Station](n *station.Network, count int32, make func() (S, error)) (first station.ID, err error) {
	for i := range count {
		s, err := make()
		if err != nil {
			return 0, err
		}
		if id := n.Add(s); i == 0 {
			first = id
		}
	}
	return first, nil
}

// number is what a cell asks for, or else what the machine model has.
func (m *Model) number(asked float64, name string, otherwise float64) float64 {
	if asked != 0 {
		return asked
	}
	return m.Machine.Number(name, otherwise)
}

func (m *Model) hosts(n *station.Network, p *spec.Parameters) (*hosts, error) {
	s := p.Simulation
	h := &hosts{
		clients: int32(max(1, s.ClientHosts)), servers: int32(max(1, s.Servers, p.ChunkServers)),
		rack:   int32(m.Machine.Number("network.rack_servers", 1)),
		fabric: !m.Machine.OneHost,
	}
	n.Servers = h.servers
	h.wire, h.wait = n.Add(&station.Delay{}), n.Add(&station.Delay{})
	steps := []func(*station.Network, *spec.Parameters, *hosts) error{m.processors, m.memory, m.storage}
	if h.fabric {
		steps = append(steps, m.links)
	}
	for _, step := range steps {
		if err := step(n, p, h); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (m *Model) processors(n *station.Network, p *spec.Parameters, h *hosts) (err error) {
	scheduling := station.Scheduling{
		Cores:     int(m.number(float64(p.Simulation.Cores), "processors.cores", 1)),
		SliceNS:   int64(m.Machine.Number("processors.slice_us", 0) * 1e3),
		SwitchNS:  int64(m.Machine.Number("processors.switch_ns", 0)),
		MigrateNS: int64(m.Machine.Number("processors.migrate_ns", 0)),
		ByRole:    true,
	}
	scheduling.StreakNS = scheduling.SliceNS
	if p.Pin == spec.PinTogether {
		scheduling.Cores = 1
	}
	one := func() (*station.Processors, error) { return station.NewProcessors(scheduling) }
	if m.Machine.OneHost {
		h.clientProcessors, err = row(n, 1, one)
		h.serverProcessors = h.clientProcessors
		return err
	}
	if h.clientProcessors, err = row(n, h.clients, one); err != nil {
		return err
	}
	h.serverProcessors, err = row(n, h.servers, one)
	return err
}

// memory is a bus that a server's copies go over: what they move is read and
// written.
func (m *Model) memory(n *station.Network, p *spec.Parameters, h *hosts) (err error) {
	rate := m.number(p.Simulation.MemoryGBps, "memory.gigabytes_per_second", 0)
	if rate == 0 || m.Machine.OneHost && p.Simulation.MemoryGBps == 0 {
		return nil
	}
	h.hasMemory = true
	h.memory, err = row(n, h.servers, func() (*station.Link, error) { return station.NewLink(station.Wire{BytesPerSecond: rate * 1e9}) })
	return err
}

func (m *Model) links(n *station.Network, p *spec.Parameters, h *hosts) (err error) {
	card := "card"
	if p.Simulation.NIC != "" {
		card = "cards." + p.Simulation.NIC
	}
	const headers = 78 // Ethernet with gap and checksum, IP, TCP with time stamps
	mtu := m.Machine.Number(card+".mtu_bytes", 1500)
	wire := station.Wire{
		BytesPerSecond: m.number(p.Simulation.LinkGbps, card+".gigabits_per_second", 10) * 1e9 / 8,
		PacketBytes:    int64(mtu) - 52, PacketOverhead: headers + 12,
	}
	link := func(w station.Wire) func() (*station.Link, error) {
		return func() (*station.Link, error) { return station.NewLink(w) }
	}
	if h.clientOut, err = row(n, h.clients, link(wire)); err != nil {
		return err
	}
	if h.serverOut, err = row(n, h.servers, link(wire)); err != nil {
		return err
	}
	if h.serverIn, err = row(n, h.servers, link(wire)); err != nil {
		return err
	}
	port := wire
	if queue := m.Machine.Number("card.queue_kib", 0); queue > 0 && p.Simulation.Stripes > 1 {
		// The switch's port to a client is where answers of many servers meet.
		port.QueueBytes = int64(queue * 1024)
		port.RetransmitNS = int64(m.Machine.Number("network.retransmit_ms", 200) * 1e6)
	}
	if h.clientIn, err = row(n, h.clients, link(port)); err != nil {
		return err
	}
	over := m.number(p.Simulation.Oversubscription, "network.oversubscription", 1)
	if h.servers <= h.rack || over <= 1 {
		return nil
	}
	h.oversubscribed = true
	wire.BytesPerSecond *= float64(h.rack) / over
	racks := (h.servers + h.rack - 1) / h.rack
	if h.rackOut, err = row(n, racks, link(wire)); err != nil {
		return err
	}
	h.rackIn, err = row(n, racks, link(wire))
	return err
}

// blocksOfServer is how many blocks of data a server of a simulated cluster has,
// for its page cache to hold a part of.
const blocksOfServer = 1000

func (m *Model) storage(n *station.Network, p *spec.Parameters, h *hosts) (err error) {
	s := p.Simulation
	if s.CachePercent > 0 && s.CachePercent < 100 {
		h.hasCache = true
		room := max(1, blocksOfServer*s.CachePercent/100)
		if h.cache, err = row(n, h.servers, func() (*station.Cache, error) { return station.NewCache(blocksOfServer*int(h.servers), room) }); err != nil {
			return err
		}
	}
	if s.Disk == "" && !h.hasCache && s.FailedServers == 0 {
		return nil
	}
	h.hasDisk = true
	disk := "disks." + s.Disk
	if s.Disk == "" {
		disk = "disks.nvme"
	}
	drive := station.Drive{
		Channels: int(m.Machine.Number(disk+".channels", 1)), AccessNS: int64(m.Machine.Number(disk+".access_us", 100) * 1e3),
		BytesPerSecond: m.Machine.Number(disk+".gigabytes_per_second", 1) * 1e9, Degradation: m.Machine.Number(disk+".degradation", 0),
	}
	if h.disk, err = row(n, h.servers, func() (*station.Disk, error) { return station.NewDisk(drive) }); err != nil {
		return err
	}
	limit := int64(m.Machine.Number("page_cache.dirty_mib", math.MaxInt32)) << 20
	rate := m.Machine.Number("page_cache.writeback_gigabytes_per_second", drive.BytesPerSecond/1e9) * 1e9
	h.dirty, err = row(n, h.servers, func() (*station.Dirty, error) { return station.NewDirty(limit, rate) })
	return err
}
