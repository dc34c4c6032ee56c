package runner

import (
	"context"
	"fmt"
	"time"

	"waggle/bpf/copies"
	"waggle/bpf/faults"
	"waggle/dfs/wire/control"
	"waggle/experiments/spec"
	"waggle/results"
)

// snapshot is what is known of a stage at one moment. The difference of two is
// a trial's cost.
type snapshot struct {
	counters map[string]map[string]int64 // by role, then by name; the servers' only
	roleCPU  map[string]time.Duration    // by role
	cpu      results.CPU
	gateway  unused // by the processors of the gateway's host, if it has its own
	copies   copies.Snapshot
	// connections are those when the trial ended.
	connections *results.Connections
}

// meter measures one trial from outside.
type meter struct {
	stage         *stage
	cpu, copies   bool  // what is asked for
	gateway       []int // processors of the gateway's host, if it has its own
	before, after snapshot
}

func newMeter(s *stage, e *spec.Experiment, p spec.Parameters) (*meter, error) {
	m := &meter{stage: s, cpu: e.Measures(spec.CPU), copies: e.Measures(spec.Copies)}
	if !m.cpu || p.Pin != spec.PinGateway {
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
	if b.roleCPU, err = m.roleCPU(); err != nil {
		return err
	}
	if b.cpu, err = machineCPU(); err != nil {
		return err
	}
	if b.gateway, err = readUnused(m.gateway); err != nil {
		return err
	}
	b.copies, err = m.stage.run.ledger.snapshot()
	return err
}

// stop takes the second snapshot, in the opposite order.
func (m *meter) stop(ctx context.Context) (err error) {
	a := &m.after
	if a.copies, err = m.stage.run.ledger.snapshot(); err != nil {
		return err
	}
	if a.gateway, err = readUnused(m.gateway); err != nil {
		return err
	}
	if a.cpu, err = machineCPU(); err != nil {
		return err
	}
	if a.roleCPU, err = m.roleCPU(); err != nil {
		return err
	}
	if a.counters, err = m.counters(ctx); err != nil {
		return err
	}
	a.connections, err = m.stage.connections()
	return err
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

// spent is the processor time between the snapshots, or nil if that is not
// measured.
func (m *meter) spent() *results.CPU {
	if !m.cpu {
		return nil
	}
	now, was := m.after.cpu, m.before.cpu
	cpu := &results.CPU{
		Total: ticks(now.Total - was.Total), User: ticks(now.User - was.User),
		System: ticks(now.System - was.System), SoftIRQ: ticks(now.SoftIRQ - was.SoftIRQ),
		ByRole: map[string]float64{},
	}
	for role, used := range m.after.roleCPU {
		cpu.ByRole[role] = (used - m.before.roleCPU[role]).Seconds()
	}
	if len(m.gateway) > 0 {
		cpu.ByHost = map[string]float64{roleGateway: m.after.gateway.busySince(m.before.gateway)}
	}
	return cpu
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
	return all, m.addFaults(all)
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

func (m *meter) roleCPU() (map[string]time.Duration, error) {
	all := map[string]time.Duration{}
	if !m.cpu {
		return all, nil
	}
	for _, r := range m.stage.roles {
		used, err := r.CPU()
		if err != nil {
			return nil, err
		}
		all[r.Role] += used
	}
	return all, nil
}
