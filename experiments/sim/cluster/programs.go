package cluster

import (
	"math"

	"waggle/experiments/sim/station"
	"waggle/results/calibration"
)

// Roles, as processor time is counted by.
const (
	client = iota
	server
	repair
	roles
)

// requestBytes is what asking takes on the wire.
const requestBytes = 100

// builder puts programs together.
type builder struct {
	m *Model
	n *station.Network
	h *hosts
}

func nanoseconds(seconds float64) int64 { return int64(seconds*1e9 + 0.5) }

// processor is a step at a host's processors.
func (b *builder) processor(role int8, seconds, wake float64) station.Step {
	s := station.Step{At: b.h.clientProcessors, By: station.ClientHost, Amount: nanoseconds(seconds), Scaled: true, Role: role, Wake: nanoseconds(wake)}
	if role != client {
		s.At, s.By = b.h.serverProcessors, station.ServerHost
	}
	if b.m.Machine.OneHost {
		s.By = station.Itself
	}
	return s
}

// exchange gives the program of an operation that one server answers: a read, a
// lookup, a write without replicas. Sent and answered are payloads in bytes.
func (b *builder) exchange(c cost, sent, answered int64, stored storedBytes) (int32, error) {
	beside, err := b.beside(c)
	if err != nil {
		return 0, err
	}
	const asks = 0.3 // of the client's part: the rest is taking the answer in
	steps := station.Program{b.asking(asks * c.client * c.critical)}
	steps = append(steps, b.toServer(sent)...)
	answer := b.processor(server, (1-c.client)*c.critical, c.wake)
	taking := b.processor(client, (1-asks)*c.client*c.critical, c.wake)
	if c.inDriver || c.alone {
		// The answer is there when the client looks: its thread goes on.
		answer.Soft, answer.Wake, taking.Wake = c.inDriver && b.h.fabric, 0, 0
		answer.Stays, taking.Stays = b.m.Machine.OneHost, true
	}
	steps = append(steps, answer)
	if beside >= 0 {
		steps = append(steps, station.Step{Fork: &station.Fork{Child: beside, Count: 1}})
	}
	steps = append(steps, b.stored(stored)...)
	if b.h.hasMemory {
		steps = append(steps, station.Step{At: b.h.memory, By: station.ServerHost, Amount: int64(2 * (1 - c.client) * c.work[calibration.CopiedByte])})
	}
	steps = append(steps, b.toClient(answered)...)
	steps = append(steps, taking)
	if c.delay > 0 {
		steps = append(steps, station.Step{At: b.h.wait, Amount: nanoseconds(c.delay), Scaled: true})
	}
	return b.n.Program(steps)
}

// asking is a client's first step. In a closed loop its thread has just taken the
// last answer in, and goes on.
func (b *builder) asking(seconds float64) station.Step {
	s := b.processor(client, seconds, 0)
	s.Stays = true
	return s
}

// beside is work that nobody waits for: what an operation costs processors while
// its next part is under way already. -1 is none.
func (b *builder) beside(c cost) (int32, error) {
	if nanoseconds(c.beside) == 0 {
		return -1, nil
	}
	return b.n.Program(station.Program{
		b.processor(server, (1-c.client)*c.beside, c.wakeBeside),
		b.processor(client, c.client*c.beside, 0),
	})
}

func (b *builder) toServer(bytes int64) []station.Step {
	if !b.h.fabric {
		return nil
	}
	return b.crossing(
		station.Step{At: b.h.clientOut, By: station.ClientHost, Amount: requestBytes + bytes},
		station.Step{At: b.h.rackIn, By: station.ServerHost, Divide: b.h.rack, Amount: requestBytes + bytes},
		station.Step{At: b.h.serverIn, By: station.ServerHost, Amount: requestBytes + bytes})
}

func (b *builder) toClient(bytes int64) []station.Step {
	if !b.h.fabric {
		return nil
	}
	return b.crossing(
		station.Step{At: b.h.serverOut, By: station.ServerHost, Amount: requestBytes + bytes},
		station.Step{At: b.h.rackOut, By: station.ServerHost, Divide: b.h.rack, Amount: requestBytes + bytes},
		station.Step{At: b.h.clientIn, By: station.ClientHost, Amount: requestBytes + bytes})
}

// crossing is the way out of a host, through its rack's link where that is the
// narrower one, over the network and into another host. Bytes are cut through: the
// way into the host counts only as far as others are on it.
func (b *builder) crossing(out, rack, in station.Step) []station.Step {
	steps := []station.Step{out}
	if b.h.oversubscribed {
		steps = append(steps, rack)
	}
	return append(steps, station.Step{At: b.h.wire, Amount: int64(b.m.latency * 1e3)}, in)
}

// storedBytes says what an operation reads from the server's disk where the page
// cache lacks it, and writes into the page cache.
type storedBytes struct{ read, written int64 }

func (b *builder) stored(s storedBytes) (steps []station.Step) {
	if s.read > 0 && b.h.hasCache {
		steps = append(steps, station.Step{At: b.h.cache, By: station.ServerHost, Skip: 1})
	}
	if s.read > 0 && b.h.hasDisk {
		steps = append(steps, station.Step{At: b.h.disk, By: station.ServerHost, Amount: s.read})
	}
	if s.written > 0 && b.h.hasDisk {
		steps = append(steps, station.Step{At: b.h.dirty, By: station.ServerHost, Amount: s.written})
	}
	return steps
}

// chained is a write that each server passes on to the next.
func (b *builder) chained(c cost, bytes int64, replicas int32) (int32, error) {
	beside, err := b.beside(c)
	if err != nil {
		return 0, err
	}
	steps := station.Program{b.asking(0.8 * c.client * c.critical)}
	steps = append(steps, b.toServer(bytes)...)
	each := (1 - c.client) * c.critical / float64(replicas)
	for i := range replicas {
		if i > 0 && b.h.fabric {
			steps = append(steps, station.Step{At: b.h.serverOut, By: station.ServerHost, Behind: i - 1, Amount: requestBytes + bytes},
				station.Step{At: b.h.wire, Amount: int64(b.m.latency * 1e3)},
				station.Step{At: b.h.serverIn, By: station.ServerHost, Behind: i, Amount: requestBytes + bytes})
		}
		takes := b.processor(server, each, c.wake/float64(replicas))
		if takes.By == station.ServerHost {
			takes.Behind = i
		}
		steps = append(steps, takes)
		for _, s := range b.stored(storedBytes{written: bytes}) {
			s.Behind = i
			steps = append(steps, s)
		}
	}
	if beside >= 0 {
		steps = append(steps, station.Step{Fork: &station.Fork{Child: beside, Count: 1}})
	}
	steps = append(steps, b.toClient(0)...)
	steps = append(steps, b.processor(client, 0.2*c.client*c.critical, c.wake))
	if c.delay > 0 {
		steps = append(steps, station.Step{At: b.h.wait, Amount: nanoseconds(c.delay), Scaled: true})
	}
	return b.n.Program(steps)
}

// fannedOut is a write that reaches all replicas at once.
func (b *builder) fannedOut(c cost, bytes int64, replicas int32) (int32, error) {
	each := (1 - c.client) * c.critical / float64(replicas)
	branch := station.Program{}
	if b.h.fabric {
		branch = append(branch, station.Step{At: b.h.serverIn, By: station.ServerHost, Amount: requestBytes + bytes})
	}
	branch = append(branch, b.processor(server, each, c.wake/float64(replicas)))
	branch = append(branch, b.stored(storedBytes{written: bytes})...)
	branch = append(branch, b.toClient(0)...)
	child, err := b.n.Program(branch)
	if err != nil {
		return 0, err
	}
	steps := station.Program{b.asking(0.8 * c.client * c.critical)}
	if b.h.fabric {
		steps = append(steps, station.Step{At: b.h.clientOut, By: station.ClientHost, Amount: requestBytes + bytes},
			station.Step{At: b.h.wire, Amount: int64(b.m.latency * 1e3)})
	}
	steps = append(steps, station.Step{Fork: &station.Fork{Child: child, Count: replicas, Need: replicas, Elsewhere: b.h.servers}},
		b.processor(client, 0.2*c.client*c.critical, c.wake))
	if beside := c.beside + c.delay; beside > 0 {
		steps = append(steps, station.Step{At: b.h.wait, Amount: nanoseconds(c.delay), Scaled: true})
	}
	return b.n.Program(steps)
}

// striped is a read that asks several servers for a part each, at once. A part
// comes in windows: TCP's slow start opens them, and congestion control keeps them at
// a fair share of the queue on the way. What it can't prevent is that first windows
// of too many servers meet.
func (b *builder) striped(c cost, bytes int64, stripes int32) (int32, error) {
	part := max(1, bytes/int64(stripes))
	each := c.critical / float64(stripes)
	branch := station.Program(b.toServer(0))
	branch = append(branch, b.processor(server, (1-c.client)*each, c.wake/float64(stripes)))
	branch = append(branch, b.stored(storedBytes{read: part})...)
	const firstWindow = 10 * 1448 // RFC 6928
	largest := int64(b.m.Machine.Number("card.queue_kib", math.MaxInt32)*1024) / int64(2*stripes)
	for window, left := int64(firstWindow), part; left > 0; window = max(firstWindow, min(2*window, largest)) {
		sent := min(window, left)
		branch = append(branch, b.toClient(sent)...)
		if left -= sent; left > 0 {
			branch = append(branch, station.Step{At: b.h.wire, Amount: int64(b.m.latency * 1e3)})
		}
	}
	branch = append(branch, b.processor(client, 0.7*c.client*each, 0))
	child, err := b.n.Program(branch)
	if err != nil {
		return 0, err
	}
	return b.n.Program(station.Program{b.asking(0.3 * c.client * c.critical),
		{Fork: &station.Fork{Child: child, Count: stripes, Need: stripes, Elsewhere: b.h.servers}},
		b.processor(client, 1e-7, c.wake)})
}

// indexed is a look-up in an index on disk: reads that depend on each other, the
// first at the full price and each further one at what it costs where the path
// sends it from.
func (b *builder) indexed(path string, depth int) (int32, error) {
	var steps station.Program
	for i := range depth + 1 {
		part := "paths." + path + ".index.first."
		if i > 0 {
			part = "paths." + path + ".index.again."
		}
		work := b.processor(client, b.m.Machine.Number(part+"processor_ns", 0)/1e9, 0)
		work.Scaled = false
		steps = append(steps, work)
		if device := b.m.Machine.Number(part+"device_ns", 0); device > 0 {
			steps = append(steps, station.Step{At: b.h.wait, Amount: int64(device)})
		}
	}
	return b.n.Program(steps)
}
