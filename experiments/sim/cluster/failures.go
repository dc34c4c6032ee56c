package cluster

import (
	"waggle/experiments/sim/engine"
	"waggle/experiments/sim/station"
)

// failures are servers that fail, what their clients do, and the repairs. A client
// that asks a failed server waits for its time-out, then asks the next one; when the
// metadata server knows of the failure, clients ask the next one at once. Repairs
// copy the failed servers' data from one server to another, so many at a time.
type failures struct {
	count      int32 // servers 0 to count-1 fail
	at, known  int64
	retry      map[int32]int32 // by program, the one that waits for a time-out first
	programs   map[int32]bool  // background: repairs
	repair     int32
	streams    int
	left       int64 // pieces that are still to be copied
	repaired   int64
	repairedAt int64
}

// repairBytes is how much one step of a repair copies.
const repairBytes = 1 << 20

func (s *simulation) prepareFailures() error {
	f := &s.failures
	f.count = int32(min(s.p.Simulation.FailedServers, int(s.h.servers)-1))
	if f.count <= 0 {
		return nil
	}
	b := &builder{s.m, s.n, s.h}
	timeout := int64(s.m.Machine.Number("repair.detect_ms", 100) * 1e6)
	f.retry, f.programs = map[int32]int32{}, map[int32]bool{}
	for _, p := range s.programs {
		again, err := s.n.After(station.Step{At: s.h.wait, Amount: timeout}, p)
		if err != nil {
			return err
		}
		f.retry[p] = again
	}
	steps := station.Program{{At: s.h.disk, By: station.ServerHost, Amount: repairBytes}}
	if s.h.fabric {
		steps = append(steps, station.Step{At: s.h.serverOut, By: station.ServerHost, Amount: repairBytes},
			station.Step{At: s.h.wire, Amount: int64(s.m.latency * 1e3)},
			station.Step{At: s.h.serverIn, By: station.ServerHost, Behind: 1, Amount: repairBytes})
	}
	work := b.processor(repair, s.copyCost(), 0)
	work.Scaled = false
	steps = append(steps, work, station.Step{At: s.h.dirty, By: station.ServerHost, Behind: 1, Amount: repairBytes})
	var err error
	if f.repair, err = s.n.Program(steps); err != nil {
		return err
	}
	f.programs[f.repair] = true
	f.streams = int(s.m.Machine.Number("repair.streams", 8))
	f.left = int64(f.count) * int64(s.m.Machine.Number("repair.gigabytes", 1)*1e9) / repairBytes
	return nil
}

// copyCost is the processor time of copying a piece: as much as a read and a write.
func (s *simulation) copyCost() float64 {
	c, _, err := s.m.cost("read=copy", true, 1, repairBytes)
	if err != nil {
		return 0
	}
	return c.critical + c.beside
}

// start schedules the failure after a third of the time, and what follows.
func (f *failures) start(s *simulation) {
	if f.count <= 0 {
		return
	}
	f.at = int64(s.seconds * 1e9 / 3)
	f.known = f.at + int64(s.m.Machine.Number("repair.detect_ms", 100)*1e6)
	begin := &beginning{s: s}
	s.n.Engine.Schedule(f.known, s.n.Engine.Add(begin), 0, 0, 0)
}

// beginning starts the repairs.
type beginning struct{ s *simulation }

func (b *beginning) Handle(*engine.Engine, engine.Event) {
	for range b.s.failures.streams * int(b.s.failures.count) {
		b.s.failures.next(b.s)
	}
}

func (f *failures) next(s *simulation) {
	if f.left == 0 {
		return
	}
	f.left--
	alive := s.h.servers - f.count
	s.n.Start(f.repair, 0, f.count+s.n.Random.Int32N(alive), 0)
}

func (f *failures) own(program int32) bool { return f.programs[program] }

func (f *failures) finished(s *simulation, _ station.Job) {
	f.repaired++
	f.repairedAt = s.n.Engine.Now()
	f.next(s)
}

// redirect says which server is asked, and by which program.
func (f *failures) redirect(s *simulation, server, program int32) (int32, int32) {
	now := s.n.Engine.Now()
	if f.count <= 0 || server >= f.count || now < f.at {
		return server, program
	}
	other := f.count + server%(s.h.servers-f.count)
	if now < f.known {
		program = f.retry[program]
	}
	return other, program
}
