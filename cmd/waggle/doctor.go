package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/bpf/copies"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/lookup"
	"waggle/dfs/datapath/machine"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/datapath/write"
	"waggle/experiments/confounder"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what this machine supports, and why not",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("doctor takes no arguments, got %q", c.Args().First())
			}
			report := diagnose()
			if c.Bool("json") {
				return printJSON(c.App.Writer, report)
			}
			printDiagnosis(c.App.Writer, report)
			return nil
		},
	}
}

type diagnosis struct {
	Machine machine.Facts `json:"machine"`
	// Settings are those that are known to move results.
	Settings []confounder.Setting `json:"settings"`
	Paths    []pathSupport        `json:"paths"`
	// Ledger gives for each backend of the copy ledger "", or why it does not work.
	Ledger map[copies.Backend]string `json:"ledger"`
}

type pathSupport struct {
	Path      string `json:"path"`
	Summary   string `json:"summary"`
	EBPF      bool   `json:"ebpf"`
	Supported bool   `json:"supported"`
	Reason    string `json:"reason,omitempty"`
}

// allPaths lists every registered data path, by operation.
func allPaths() []datapath.Info {
	return slices.Concat(infos(&lookup.Paths), infos(&read.Paths), infos(&write.Paths), infos(&relay.Paths))
}

func infos[P interface{ About() datapath.Info }](registry *datapath.Registry[P]) []datapath.Info {
	var list []datapath.Info
	for _, path := range registry.All() {
		list = append(list, path.About())
	}
	return list
}

func diagnose() diagnosis {
	d := diagnosis{Machine: machine.Inspect(), Settings: confounder.Read(""), Paths: []pathSupport{}}
	for _, info := range allPaths() {
		p := pathSupport{Path: info.String(), Summary: info.Summary, EBPF: info.EBPF, Supported: true}
		if err := info.Supported(); err != nil {
			p.Supported, p.Reason = false, err.Error()
		}
		d.Paths = append(d.Paths, p)
	}
	d.Ledger = map[copies.Backend]string{}
	for _, backend := range []copies.Backend{copies.Boundary, copies.Sites} {
		d.Ledger[backend] = ""
		if err := copies.Supported(backend); err != nil {
			d.Ledger[backend] = err.Error()
		}
	}
	return d
}

func printDiagnosis(w io.Writer, d diagnosis) {
	m := d.Machine
	fmt.Fprintf(w, "kernel   %s %s, %d CPUs, %s of memory\n", m.Kernel, m.Architecture, m.CPUs, humanize.IBytes(m.MemoryBytes))
	fmt.Fprintf(w, "BTF      %s\n", yesNo(m.BTF, "yes", "no: CO-RE programs can't load"))
	fmt.Fprintf(w, "cgroup2  %s\n", yesNo(m.Cgroup2 != "", m.Cgroup2, "not mounted: programs can't be attached to a control group"))
	fmt.Fprintf(w, "user     %d\n", m.UID)
	for _, name := range slices.Sorted(maps.Keys(m.Capabilities)) {
		fmt.Fprintf(w, "         %-16s %s\n", name, yesNo(m.Capabilities[name], "yes", "no"))
	}
	for _, unknown := range m.Unknown {
		fmt.Fprintf(w, "unknown  %s\n", unknown)
	}
	for _, s := range d.Settings {
		fmt.Fprintf(w, "setting  %s: %s\n", s.Name, s.Value)
	}
	for _, p := range d.Paths {
		fmt.Fprintf(w, "%-24s %s\n", p.Path, yesNo(p.Supported, "supported: "+p.Summary, "NOT supported: "+p.Reason))
	}
	for _, backend := range slices.Sorted(maps.Keys(d.Ledger)) {
		reason := d.Ledger[backend]
		fmt.Fprintf(w, "%-24s %s\n", "copies --backend "+string(backend), yesNo(reason == "", "supported", "NOT supported: "+reason))
	}
	for _, warning := range confounder.Warnings(d.Settings) {
		fmt.Fprintf(w, "UNUSUAL  %s\n", warning)
	}
}

func yesNo(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
