package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waggle/bpf/copies"
	"waggle/bpf/faults"
	"waggle/dfs/wire/control"
	"waggle/experiments/spec"
	"waggle/experiments/workload"
	"waggle/results"
)

// snapshot is what is known of a stage at one moment. The difference of two is
// a trial's cost.
type snapshot struct {
	counters map[string]map[string]int64 // by role, then by name; the servers' only
	roleCPU  map[string]time.Duration    // by role
	copies   copies.Snapshot
	// connections are those when the trial ended.
	connections *results.Connections
}

// meter measures one trial from outside. What the machine's processors do is
// measured by the load generator, which is nearer to the timed part.
type meter struct {
	stage         *stage
	cpu, copies   bool  // what is measured
	gateway       []int // processors of the gateway's host, if it has its own
	before, after snapshot
}

func newMeter(s *stage, t planned) (*meter, error) {
	e := t.plan.Experiment
	m := &meter{stage: s, cpu: e.Measures(spec.CPU) && !t.counted, copies: t.counted}
	if !m.cpu || t.cell.Parameters.Pin != spec.PinGateway {
		return m, nil
	}
	all, err := ownProcessors()
	m.gateway = receiving(all)[roleGateway]
	return m, err
}

// start takes the first snapshot, what costs the most first.
func (m *meter) start(ctx context.Context) (err error) {
	b := &m.before
	if b.counters, err = m.counters(ctx); err != nil {
		return err
	}
	if b.copies, err = m.copied(); err != nil {
		return err
	}
	b.roleCPU, err = m.roleCPU()
	return err
}

// stop takes the second snapshot, in the opposite order.
func (m *meter) stop(ctx context.Context) (err error) {
	a := &m.after
	if a.roleCPU, err = m.roleCPU(); err != nil {
		return err
	}
	if a.copies, err = m.copied(); err != nil {
		return err
	}
	if a.counters, err = m.counters(ctx); err != nil {
		return err
	}
	a.connections, err = m.stage.connections()
	return err
}

func (m *meter) copied() (copies.Snapshot, error) {
	if !m.copies {
		return copies.Snapshot{}, nil
	}
	return m.stage.run.ledger.snapshot()
}

// grown returns by how much each counter of each role grew between the
// snapshots. Client is the load generator's own account.
func (m *meter) grown(client map[string]int64) map[string]map[string]int64 {
	all := map[string]map[string]int64{roleClient: client}
	for role, now := range m.after.counters {
		all[role] = map[string]int64{}
		for name, n := range now {
			all[role][name] = n - m.before.counters[role][name]
		}
	}
	return all
}

// spent is the processor time of the timed part.
func (m *meter) spent(p workload.Processors) *results.CPU {
	cpu := &results.CPU{Total: max(0, busy(p, nil)-p.Steal), Processors: len(p.Idle), ByRole: m.used()}
	if sampled := p.User + p.System + p.SoftIRQ; sampled > 0 {
		share := cpu.Total / sampled
		cpu.User, cpu.System, cpu.SoftIRQ = share*p.User, share*p.System, share*p.SoftIRQ
	}
	if len(m.gateway) > 0 {
		cpu.ByHost = map[string]float64{roleGateway: busy(p, m.gateway)}
	}
	return cpu
}

// busy is for how long processors, all if none are named, were not idle, in seconds
// added up.
func busy(p workload.Processors, processors []int) (seconds float64) {
	if processors == nil {
		for number := range p.Idle {
			processors = append(processors, number)
		}
	}
	for _, number := range processors {
		seconds += p.Window - p.Idle[number]
	}
	return seconds
}

// used is the processor time of each role's processes, in seconds.
func (m *meter) used() map[string]float64 {
	all := map[string]float64{}
	for role, now := range m.after.roleCPU {
		all[role] = (now - m.before.roleCPU[role]).Seconds()
	}
	return all
}

// counters asks every server of the stage what it has counted.
func (m *meter) counters(ctx context.Context) (map[string]map[string]int64, error) {
	all := map[string]map[string]int64{}
	for _, r := range m.stage.roles {
		if r.admin == nil {
			continue
		}
		status, err := r.admin.Status(ctx, &control.Empty{})
		if err != nil {
			return nil, fmt.Errorf("ask %s for its counters: %w", r.Name, err)
		}
		if all[r.Role] == nil {
			all[r.Role] = map[string]int64{}
		}
		for name, n := range status.Counters {
			all[r.Role][name] += n
		}
	}
	return all, errors.Join(m.addFaults(all), m.addReflected(all))
}

// floorXDPAnswers is the counter of what a reflector sent back.
const floorXDPAnswers = "floor_xdp_answers"

func (m *meter) addReflected(all map[string]map[string]int64) error {
	if m.stage.floorXDP == "" {
		return nil
	}
	n, err := m.stage.network.Reflected()
	all[roleFloor] = map[string]int64{floorXDPAnswers: int64(n)}
	return err
}

// Counters of what links did to packets, beside those of the roles.
const (
	faultPackets    = "fault_packets" // that met the program
	faultDropped    = "fault_dropped_packets"
	faultDuplicated = "fault_duplicated_packets"
	faultHeld       = "fault_held_packets"
)

func (m *meter) addFaults(all map[string]map[string]int64) error {
	if m.stage.key.faults == (faults.Rule{}) {
		return nil
	}
	done, err := m.stage.network.Faults()
	all["network"] = map[string]int64{faultPackets: int64(done.Packets), faultDropped: int64(done.Dropped),
		faultDuplicated: int64(done.Duplicated), faultHeld: int64(done.Held)}
	return err
}

// roleCPU is read whatever is asked for: what the machine did besides is known by it.
func (m *meter) roleCPU() (map[string]time.Duration, error) {
	all := map[string]time.Duration{}
	for _, r := range m.stage.roles {
		used, err := r.CPU()
		if err != nil {
			return nil, err
		}
		all[r.Role] += used
	}
	return all, nil
}
