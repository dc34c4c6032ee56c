// Package experiments holds the experiments that come with Waggle, one YAML
// file each, in this folder. The packages below it run them: spec reads them,
// topology gives roles a network to live in, workload generates load, floor is
// the control without a file system, and runner carries everything out.
package experiments

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"waggle/experiments/spec"
)

//go:embed *.yaml simulated/*.yaml
var files embed.FS

// simulated is the folder of the experiments that need the simulator.
const simulated = "simulated"

const extension = ".yaml"

// Names lists the experiments that come with Waggle and can be measured.
func Names() []string { return namesIn(".") }

// SimulatedNames lists those that need the simulator.
func SimulatedNames() []string { return namesIn(simulated) }

func namesIn(dir string) (names []string) {
	entries, err := files.ReadDir(dir)
	if err != nil {
		panic(err) // the embedded directory can always be read
	}
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, strings.TrimSuffix(e.Name(), extension))
		}
	}
	return names
}

// Sets are several experiments under one name.
var sets = map[string][]string{
	// Those that the published claims are about.
	"claims-all": {"read-path", "lookup-path", "write-path", "relay-path", "netperf-fair", "copies"},
}

// Set names the experiments that a name stands for: all of them, those of a set, or the
// one that has the name.
func Set(name string) []string {
	if name == "all" {
		return Names()
	}
	if set, ok := sets[name]; ok {
		return slices.Clone(set)
	}
	return []string{name}
}

// Load reads an experiment: one of Names, or the path of a file, which has a
// slash in it or ends in .yaml.
func Load(name string, paths spec.Paths) (*spec.Experiment, error) {
	if strings.Contains(name, "/") || strings.HasSuffix(name, extension) {
		return loadFile(name, paths)
	}
	data, err := files.ReadFile(name + extension)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = files.ReadFile(simulated + "/" + name + extension)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no experiment %q: choose from %s, or name a file", name, strings.Join(append(Names(), SimulatedNames()...), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("read experiment %s: %w", name, err)
	}
	return spec.Parse(name+extension, data, paths)
}

func loadFile(path string, paths spec.Paths) (*spec.Experiment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read an experiment: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, spec.MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read an experiment: %w", err)
	}
	return spec.Parse(path, data, paths)
}
