package runner

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"waggle/bpf/faults"
	"waggle/bpf/reflector"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/lookup"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/datapath/write"
	"waggle/experiments/spec"
	"waggle/experiments/topology"
)

// KnownPaths names the data paths that experiments may ask for.
func KnownPaths() spec.Paths {
	return spec.Paths{Read: names(&read.Paths), Write: names(&write.Paths), Lookup: names(&lookup.Paths), Relay: names(&relay.Paths)}
}

func names[P interface{ About() datapath.Info }](registry *datapath.Registry[P]) (list []string) {
	for _, p := range registry.All() {
		list = append(list, p.About().Name)
	}
	return list
}

// support is what this machine can do: for each data path, and each kind of
// topology, what it says about itself and the reason if it is not supported.
// It is found out once, before the run.
type support struct {
	infos   map[string]datapath.Info // by "read=copy"
	reasons map[string]error         // by "read=copy" or "topology=hosts"; nil is supported
	// congestion is what congestion=auto stands for; "" where none can be chosen.
	congestion string
	// ledger is why copies can't be counted here, by the backend of the run, or nil.
	ledger error
}

// linkFaults stands for links that lose, double or hold back packets.
const linkFaults = "faults"

func findSupport() support {
	s := support{infos: map[string]datapath.Info{}, reasons: map[string]error{}}
	addPaths(s, &read.Paths)
	addPaths(s, &write.Paths)
	addPaths(s, &lookup.Paths)
	addPaths(s, &relay.Paths)
	s.add(floorXDP)
	s.reasons["relay="+spec.Nginx] = nginxSupported()
	for _, kind := range []string{topology.Local, topology.Hosts} {
		s.reasons["topology="+kind] = topology.Supported(kind)
	}
	s.reasons[linkFaults] = faults.Supported()
	s.addCongestion()
	return s
}

func addPaths[P interface{ About() datapath.Info }](s support, registry *datapath.Registry[P]) {
	for _, p := range registry.All() {
		s.add(p.About())
	}
}

func (s support) add(info datapath.Info) {
	s.infos[info.String()], s.reasons[info.String()] = info, info.Supported()
}

// floorXDP says of the floor of lookups in the driver what data paths say of
// themselves: it must be supported and proven as they must.
var floorXDP = datapath.Info{
	Operation:    datapath.Lookup,
	Name:         spec.FloorXDP,
	Summary:      "sent back as they came by an XDP program in the network driver",
	EBPF:         true,
	BetweenHosts: true,
	Supported:    reflector.Supported,
	Proof:        []string{floorXDPAnswers},
}

// cell returns why this machine can't run a cell, or nil.
func (s support) cell(p spec.Parameters) error {
	needs := []string{"topology=" + p.Topology, "congestion=" + p.Congestion}
	if !p.OnFloor() {
		needs = append(needs, "read="+p.Read, "write="+p.Write, "lookup="+p.Lookup)
	}
	if p.Lookup == spec.FloorXDP {
		needs = append(needs, "lookup="+p.Lookup)
	}
	if p.Workload == spec.HTTPGet {
		needs = append(needs, "relay="+p.Relay)
	}
	if p.HasFaults() {
		needs = append(needs, linkFaults)
	}
	if p.Ledger && s.ledger != nil {
		return fmt.Errorf("ledger=true: %w", s.ledger)
	}
	if len(machineSettings(p)) > 0 && os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root may change a setting of the machine", datapath.ErrUnsupported)
	}
	for _, need := range needs {
		if err := s.reasons[need]; err != nil {
			return withName(need, err)
		}
		if s.infos[need].BetweenHosts && p.Topology != spec.Hosts {
			return fmt.Errorf("%s is for two hosts: use topology=%s", need, spec.Hosts)
		}
	}
	return nil
}

func withName(name string, err error) error {
	if strings.HasPrefix(err.Error(), name) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// askedFor returns an error that wraps datapath.ErrUnsupported if an override
// asks by name for what this machine can't do: nobody wants the rest then.
func (s support) askedFor(overrides []spec.Override) error {
	for _, o := range overrides {
		for _, level := range o.Levels {
			name := fmt.Sprintf("%s=%v", o.Name, level)
			if err := s.reasons[name]; err != nil {
				if errors.Is(err, datapath.ErrUnsupported) {
					return err
				}
				return fmt.Errorf("%s: %w: %w", name, datapath.ErrUnsupported, err)
			}
		}
	}
	return nil
}
