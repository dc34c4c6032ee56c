package sim

import (
	"maps"
	"slices"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/lookup"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/datapath/write"
	"waggle/experiments/spec"
	"waggle/results/calibration"
)

// Demands gives what every data path declares about its stages, in the words of
// calibrations, and the same of the floor controls, which are no data paths.
func Demands() calibration.Demands {
	d := calibration.Demands{}
	addDemands(d, &read.Paths)
	addDemands(d, &write.Paths)
	addDemands(d, &lookup.Paths)
	addDemands(d, &relay.Paths)
	d["read="+spec.Floor] = demandOf(bare(datapath.Work{Calls: 12, Switches: 4, TCP: 64}, datapath.Work{KernelToUser: 2, UserToKernel: 1, TCP: 1, Calls: 8.0 / (1 << 20), Switches: 6.0 / (1 << 20)}))
	d["write="+spec.Floor] = demandOf(bare(datapath.Work{Calls: 12, Switches: 4, TCP: 64}, datapath.Work{KernelToUser: 1, UserToKernel: 2, TCP: 1, Calls: 15.0 / (1 << 20), Switches: 9.0 / (1 << 20)}))
	d["lookup="+spec.Floor] = demandOf(bare(datapath.Work{Calls: 9, Switches: 3, UserToKernel: 296, KernelToUser: 296, Datagrams: 2}, datapath.Work{}))
	d["lookup="+spec.FloorXDP] = demandOf([]datapath.Stage{
		{Role: "client", Operation: datapath.Work{Calls: 1, UserToKernel: 296, Datagrams: 1}},
		{Role: "floor", Operation: datapath.Work{Datagrams: 1, SoftIRQ: 1}},
		{Role: "client", Operation: datapath.Work{Calls: 1, KernelToUser: 296, SoftIRQ: 1}},
	})
	return d
}

// bare is an exchange over a socket without the file system.
func bare(operation, perByte datapath.Work) []datapath.Stage {
	return []datapath.Stage{{Role: "client", Operation: operation, Byte: perByte}}
}

func addDemands[P interface{ About() datapath.Info }](d calibration.Demands, registry *datapath.Registry[P]) {
	for _, p := range registry.All() {
		if info := p.About(); len(info.Stages) > 0 {
			d[info.String()] = demandOf(info.Stages)
		}
	}
}

func demandOf(stages []datapath.Stage) calibration.Demand {
	d := calibration.Demand{Operation: calibration.Work{calibration.Operation: 1}, Byte: calibration.Work{},
		ReplicaOperation: calibration.Work{}, ReplicaByte: calibration.Work{}, By: map[string]float64{}}
	calls := 0.0
	for _, s := range stages {
		if s.Replicas {
			d.ReplicaOperation, d.ReplicaByte = d.ReplicaOperation.Plus(1, workOf(s.Operation)), d.ReplicaByte.Plus(1, workOf(s.Byte))
			continue
		}
		d.Operation, d.Byte = d.Operation.Plus(1, workOf(s.Operation)), d.Byte.Plus(1, workOf(s.Byte))
		d.By[s.Role] += s.Operation.Calls
		calls += s.Operation.Calls
	}
	for role := range d.By {
		d.By[role] /= max(1, calls)
	}
	for _, s := range stages {
		d.InDriver = d.InDriver || s.Role != "client" && s.Operation.Calls == 0 && s.Operation.SoftIRQ > 0
	}
	return d
}

func workOf(w datapath.Work) calibration.Work {
	return calibration.Work{calibration.Call: w.Calls, calibration.Switch: w.Switches, calibration.CopiedByte: w.Copied(),
		calibration.TCPByte: w.TCP, calibration.SockmapB: w.Sockmap, calibration.Checked: w.Checked,
		calibration.MappedByte: w.Mapped, calibration.Packet: w.Datagrams}
}

// PathSet names all data paths that declare their stages, and the floor controls.
func PathSet() []string { return slices.Sorted(maps.Keys(Demands())) }
