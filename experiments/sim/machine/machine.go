// Package machine reads machine models: what a host, its cards, disks and links
// can do, each number with its source.
//
// A number is written {is: 25, source: "data sheet"}; one without a source is
// refused, because a simulation is worth as much as what it assumes. Numbers have
// names such as "card.gigabits_per_second", by which an experiment can vary one
// (parameter vary) to see whether its conclusion holds.
package machine

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"waggle/results/calibration"
)

//go:embed *.yaml
var files embed.FS

const (
	extension    = ".yaml"
	maxFileBytes = 256 << 10
	catalogue    = "hardware"
)

// Machine is a machine model.
type Machine struct {
	Name, Summary string
	// Calibration names where the costs of operations come from: a file, by its
	// path from the machine file, or "reference".
	Calibration string
	// OneHost says that hosts are namespaces of one machine and share its
	// processors, as in the measured topology `hosts`.
	OneHost bool
	values  map[string]Value
	file    string
}

// Value is a number of a machine model.
type Value struct {
	Is     float64
	Source string
}

// bound is what a number may be.
type bound struct{ least, most float64 }

// known lists the numbers of stations, by name. A path's numbers are checked by
// checkPathValue.
var known = map[string]bound{
	"processors.cores": {1, 256}, "processors.speed": {0.01, 100}, "processors.slice_us": {0, 1e6},
	"processors.switch_ns": {0, 1e6}, "processors.migrate_ns": {0, 1e6},
	"memory.gigabytes_per_second": {0.01, 1e5},
	"card.gigabits_per_second":    {0.001, 1e5}, "card.mtu_bytes": {64, 1 << 20}, "card.queue_kib": {1, 1 << 20},
	"network.latency_us": {0, 1e6}, "network.rack_servers": {1, 1000}, "network.oversubscription": {1, 64},
	"network.retransmit_ms": {0.01, 1e5},
	"page_cache.dirty_mib":  {1, 1e7}, "page_cache.writeback_gigabytes_per_second": {0.001, 1e5},
	"repair.streams": {1, 1000}, "repair.gigabytes": {0.001, 1e6}, "repair.detect_ms": {0, 1e6},
}

// ofDisk and ofCard are the numbers of hardware models, behind disks.NAME. and cards.NAME.
var (
	ofDisk = map[string]bound{"channels": {1, 1024}, "access_us": {0, 1e6}, "gigabytes_per_second": {1e-4, 1e4}, "degradation": {0, 100}}
	ofCard = map[string]bound{"gigabits_per_second": {0.001, 1e5}, "mtu_bytes": {64, 1 << 20}}
)

// Names lists the models that come with Waggle.
func Names() (names []string) {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the embedded directory can always be read
	}
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), extension); name != catalogue {
			names = append(names, name)
		}
	}
	return names
}

// Load reads a machine model: one of Names, or the path of a file. The hardware
// catalogue that comes with Waggle is in every one.
func Load(name string) (*Machine, error) {
	hardware, err := files.ReadFile(catalogue + extension)
	if err != nil {
		return nil, fmt.Errorf("read the hardware catalogue: %w", err)
	}
	m := &Machine{values: map[string]Value{}}
	if err := m.read(catalogue+extension, hardware); err != nil {
		return nil, err
	}
	m.Name = ""
	text, err := read(name)
	if err != nil {
		return nil, err
	}
	if err := m.read(fileOf(name), text); err != nil {
		return nil, err
	}
	if m.Name == "" {
		return nil, fmt.Errorf("%s:1: a machine model needs a name", m.file)
	}
	if _, ok := m.values["processors.cores"]; !ok {
		return nil, fmt.Errorf("%s:1: a machine model needs processors.cores", m.file)
	}
	return m, nil
}

func isFile(name string) bool {
	return strings.Contains(name, "/") || strings.HasSuffix(name, extension)
}

func fileOf(name string) string {
	if isFile(name) {
		return name
	}
	return name + extension
}

func read(name string) ([]byte, error) {
	if !isFile(name) {
		text, err := files.ReadFile(name + extension)
		if err != nil || name == catalogue {
			return nil, fmt.Errorf("there is no machine model %q: choose from %s, or name a file", name, strings.Join(Names(), ", "))
		}
		return text, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read a machine model: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read a machine model: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("%s:1: larger than %d bytes", name, maxFileBytes)
	}
	return text, nil
}

// Parse reads a machine model from a text, for a file of that name.
func Parse(name string, text []byte) (*Machine, error) {
	m := &Machine{values: map[string]Value{}}
	return m, m.read(name, text)
}

func (m *Machine) read(file string, text []byte) error {
	m.file = file
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return fmt.Errorf("%s:%s", file, yamlError(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:1: the file holds more than one document", file)
	}
	root := document.Content[0]
	return m.each(root, func(key, value *yaml.Node) error {
		switch key.Value {
		case "name", "summary", "calibration":
			if value.Kind != yaml.ScalarNode {
				return m.at(value, "%s must be text", key.Value)
			}
			*map[string]*string{"name": &m.Name, "summary": &m.Summary, "calibration": &m.Calibration}[key.Value] = value.Value
			return nil
		case "one_host":
			if err := value.Decode(&m.OneHost); err != nil {
				return m.at(value, "one_host must be true or false")
			}
			return nil
		case "disks", "cards", "paths":
			return m.each(value, func(name, of *yaml.Node) error { return m.numbers(key.Value+"."+name.Value, of) })
		}
		return m.numbers(key.Value, value)
	})
}

// yamlError gives the line and the text of a decoder's error.
func yamlError(err error) string {
	text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		return rest
	}
	return "1: " + text
}

func (m *Machine) at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: "+format, append([]any{m.file, n.Line}, args...)...)
}

func (m *Machine) each(n *yaml.Node, do func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return m.at(n, "must be a mapping of names")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if err := do(n.Content[i], n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// numbers reads the numbers below a name.
func (m *Machine) numbers(prefix string, n *yaml.Node) error {
	return m.each(n, func(key, value *yaml.Node) error {
		name := prefix + "." + key.Value
		if value.Kind == yaml.MappingNode && !isNumber(value) {
			return m.numbers(name, value)
		}
		v, err := m.number(name, value)
		if err != nil {
			return err
		}
		b, ok := boundOf(name)
		if !ok {
			return m.at(key, "there is no %s in a machine model%s", name, suggest(name))
		}
		if !(v.Is >= b.least && v.Is <= b.most) {
			return m.at(value, "%s is %v: must be from %v to %v", name, v.Is, b.least, b.most)
		}
		m.values[name] = v
		return nil
	})
}

func isNumber(n *yaml.Node) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == "is" || n.Content[i].Value == "source" {
			return true
		}
	}
	return false
}

func (m *Machine) number(name string, n *yaml.Node) (v Value, err error) {
	if n.Kind != yaml.MappingNode {
		return v, m.at(n, "%s has no source: write {is: %s, source: \"where it is from\"}", name, n.Value)
	}
	err = m.each(n, func(key, value *yaml.Node) error {
		switch key.Value {
		case "is":
			v.Is, err = strconv.ParseFloat(value.Value, 64)
			if err != nil || math.IsNaN(v.Is) || math.IsInf(v.Is, 0) {
				return m.at(value, "%s is %q: must be a number", name, value.Value)
			}
		case "source":
			v.Source = value.Value
		default:
			return m.at(key, "%s has a field %q: a number has `is` and `source`", name, key.Value)
		}
		return nil
	})
	if err == nil && strings.TrimSpace(v.Source) == "" {
		err = m.at(n, "%s has no source: say where the number is from", name)
	}
	return v, err
}

// boundOf says what a number may be, or that there is none of the name.
func boundOf(name string) (bound, bool) {
	if b, ok := known[name]; ok {
		return b, true
	}
	parts := strings.Split(name, ".")
	switch {
	case parts[0] == "costs" && len(parts) == 2:
		feature, ok := strings.CutSuffix(parts[1], "_ns")
		return bound{0, 1e9}, ok && slices.Contains(calibration.Features, calibration.Feature(feature))
	case parts[0] == "disks" && len(parts) == 3:
		b, ok := ofDisk[parts[2]]
		return b, ok
	case parts[0] == "cards" && len(parts) == 3:
		b, ok := ofCard[parts[2]]
		return b, ok
	case parts[0] == "paths":
		return bound{0, 1e9}, isPathNumber(parts[1:])
	}
	return bound{}, false
}

// isPathNumber knows the numbers of a data path that no machine here can take:
// paths.read=rdma.operation.call and the like.
func isPathNumber(parts []string) bool {
	if len(parts) < 2 || !strings.Contains(parts[0], "=") {
		return false
	}
	switch parts[1] {
	case "operation", "byte", "replica_operation", "replica_byte":
		return len(parts) == 3 && slices.Contains(calibration.Features, calibration.Feature(parts[2]))
	case "by":
		return len(parts) == 3 && slices.Contains([]string{"client", "chunk", "meta", "gateway"}, parts[2])
	case "index":
		return len(parts) == 4 && (parts[2] == "first" || parts[2] == "again") && (parts[3] == "processor_ns" || parts[3] == "device_ns")
	}
	return len(parts) == 2 && (parts[1] == "processor_ns" || parts[1] == "elapsed_ns")
}

func suggest(name string) string {
	station, _, _ := strings.Cut(name, ".")
	var there []string
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if s, _, _ := strings.Cut(k, "."); s == station {
			there = append(there, k)
		}
	}
	if len(there) > 0 {
		return ": there are " + strings.Join(there, ", ")
	}
	return ": its stations are processors, memory, card, network, page_cache, repair, costs, disks, cards, paths"
}

// Number gives a number of the model, or what it is where the model says nothing.
func (m *Machine) Number(name string, otherwise float64) float64 {
	if v, ok := m.values[name]; ok {
		return v.Is
	}
	return otherwise
}

// Has says whether the model has a number.
func (m *Machine) Has(name string) bool { _, ok := m.values[name]; return ok }

// Values gives all numbers, for pages and for varying them.
func (m *Machine) Values() map[string]Value { return m.values }

// With returns the model with one number multiplied. A number that the
// calibration has, a cost, need not be in the model: it is kept as a factor.
func (m *Machine) With(name string, factor float64) (*Machine, error) {
	varied := *m
	varied.values = maps.Clone(m.values)
	v, ok := m.values[name]
	switch {
	case ok:
		v.Is *= factor
	case strings.HasPrefix(name, FactorPrefix):
		if _, ok := boundOf("costs." + strings.TrimPrefix(name, FactorPrefix) + "_ns"); !ok {
			return nil, fmt.Errorf("there is no cost %q to vary", name)
		}
		v = Value{factor, "varied"}
	default:
		return nil, fmt.Errorf("%s: the model has no number %q to vary", m.file, name)
	}
	varied.values[name] = v
	return &varied, nil
}

// FactorPrefix is in front of the names of factors of a calibration's costs, as in
// "cost.switch".
const FactorPrefix = "cost."

// PathNames lists the model's own data paths of an operation, such as "read".
func (m *Machine) PathNames(operation string) []string {
	return m.second("paths." + operation + "=")
}

// Disks and Cards list hardware models.
func (m *Machine) Disks() []string {
	return m.second("disks.")
}

// Cards lists the network cards of the catalogue.
func (m *Machine) Cards() []string {
	return m.second("cards.")
}

func (m *Machine) second(prefix string) []string {
	seen := map[string]bool{}
	for name := range m.values {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			first, _, _ := strings.Cut(rest, ".")
			seen[first] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// PathSet names all data paths of the model, such as "read=rdma".
func (m *Machine) PathSet() []string {
	return m.second("paths.")
}

// Demand gives what one of the model's own paths needs.
func (m *Machine) Demand(path string) (calibration.Demand, bool) {
	d := calibration.Demand{Operation: calibration.Work{calibration.Operation: 1}, Byte: calibration.Work{},
		ReplicaOperation: calibration.Work{}, ReplicaByte: calibration.Work{}, By: map[string]float64{}}
	found := false
	for name, v := range m.values {
		rest, ok := strings.CutPrefix(name, "paths."+path+".")
		if !ok {
			continue
		}
		found = true
		part, last, _ := strings.Cut(rest, ".")
		switch part {
		case "operation":
			d.Operation[calibration.Feature(last)] = v.Is
		case "byte":
			d.Byte[calibration.Feature(last)] = v.Is
		case "replica_operation":
			d.ReplicaOperation[calibration.Feature(last)] = v.Is
		case "replica_byte":
			d.ReplicaByte[calibration.Feature(last)] = v.Is
		case "by":
			d.By[last] = v.Is
		}
	}
	return d, found
}
