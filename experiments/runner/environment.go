package runner

import (
	"bufio"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"waggle/dfs/datapath/machine"
	"waggle/experiments/confounder"
	"waggle/results"
)

// modules are those whose versions the numbers depend on.
var modules = []string{
	"github.com/HdrHistogram/hdrhistogram-go", "github.com/cilium/ebpf", "github.com/cockroachdb/pebble/v2",
	"github.com/vishvananda/netlink", "google.golang.org/grpc", "google.golang.org/protobuf",
}

// captureEnvironment describes where a run takes place, without naming a
// private path of the machine.
func captureEnvironment(s support, o Options) results.Environment {
	facts := machine.Inspect()
	e := results.Environment{
		Kernel: facts.Kernel, CPU: cpuModel(), CPUs: facts.CPUs, MemoryBytes: int64(facts.MemoryBytes),
		GoVersion: runtime.Version(), CommandLine: public(o.CommandLine),
		Congestion: s.congestion, Paths: map[string]string{}, Versions: map[string]string{},
	}
	settings := confounder.Read(o.Scratch)
	e.Settings, e.Warnings = map[string]string{}, confounder.Warnings(settings)
	for _, one := range settings {
		e.Settings[one.Name] = one.Value
	}
	for name := range s.infos {
		e.Paths[name] = ""
		if err := s.reasons[name]; err != nil {
			e.Paths[name] = err.Error()
		}
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		describeBuild(&e, build)
	}
	return e
}

// commits gives the commit that each revision's program was built from.
func commits(revisions []Revision) (map[string]string, error) {
	var named map[string]string
	for _, r := range revisions {
		build, err := buildinfo.ReadFile(r.Program)
		if err != nil {
			return nil, fmt.Errorf("read which commit the revision %s is: %w", r.Name, err)
		}
		e := results.Environment{Versions: make(map[string]string)}
		if describeBuild(&e, build); e.Commit == "" {
			return nil, fmt.Errorf("the program of revision %s does not say its commit: build it with -buildvcs=true in a clone", r.Name)
		}
		if named == nil {
			named = make(map[string]string)
		}
		if named[r.Name] = e.Commit; e.Dirty {
			named[r.Name] += " and changes"
		}
	}
	return named, nil
}

func describeBuild(e *results.Environment, build *debug.BuildInfo) {
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			e.Commit = setting.Value
		case "vcs.modified":
			e.Dirty = setting.Value == "true"
		}
	}
	for _, dependency := range build.Deps {
		for _, module := range modules {
			if dependency.Path == module {
				e.Versions[module] = dependency.Version
			}
		}
	}
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// public takes the directories out of a command line.
func public(commandLine []string) []string {
	var list []string
	for _, arg := range commandLine {
		flag, value, ok := strings.Cut(arg, "=")
		switch {
		case filepath.IsAbs(arg):
			arg = filepath.Base(arg)
		case ok && filepath.IsAbs(value):
			arg = fmt.Sprintf("%s=%s", flag, filepath.Base(value))
		}
		list = append(list, arg)
	}
	return list
}
