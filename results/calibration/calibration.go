// Package calibration defines what a machine's costs are, as they were fitted
// from measured records: the file calibration.json with its reader and writer.
// `waggle calibrate` makes it, the simulator takes it; neither knows the other.
//
// The model is that an operation's time is a sum: how often it does each of some
// features ([Feature]: system calls, switches, bytes copied, ...) times what one of
// them costs on the machine ([Price]). How often follows from the path's ledger
// ([Work]), what it costs was fitted.
package calibration

import (
	"fmt"
	"math"
	"slices"
)

// Schema is the version of calibration.json that this package reads and writes.
const Schema = 1

// Feature is something that costs time.
type Feature string

// The features, in the order in which they are shown.
const (
	Operation  Feature = "operation"   // what every operation costs beside the rest
	Call       Feature = "call"        // a system call
	Switch     Feature = "switch"      // a context switch, with the wake-up
	CopiedByte Feature = "copied_byte" // a byte copied, in any direction
	TCPByte    Feature = "tcp_byte"    // a byte through TCP, without its copies
	SockmapB   Feature = "sockmap_byte"
	Checked    Feature = "checked_byte" // a byte that a checksum is computed over
	MappedByte Feature = "mapped_byte"  // a byte of a page that is mapped
	Packet     Feature = "packet"       // a packet between hosts
)

// Features lists all of them.
var Features = []Feature{Operation, Call, Switch, CopiedByte, TCPByte, SockmapB, Checked, MappedByte, Packet}

// Label names a feature for people.
func (f Feature) Label() string {
	switch f {
	case Operation:
		return "an operation"
	case Call:
		return "a system call"
	case Switch:
		return "a switch"
	case CopiedByte:
		return "a KB copied"
	case TCPByte:
		return "a KB through TCP"
	case SockmapB:
		return "a KB through sockmap"
	case Checked:
		return "a KB of checksums"
	case MappedByte:
		return "a KB of mapped pages"
	case Packet:
		return "a packet between hosts"
	}
	return string(f)
}

// Unit is how many of a feature Label speaks of.
func (f Feature) Unit() float64 {
	switch f {
	case CopiedByte, TCPByte, SockmapB, Checked, MappedByte:
		return 1000
	}
	return 1
}

// Work is how often something is done, by feature.
type Work map[Feature]float64

// Plus adds some times of another work.
func (w Work) Plus(times float64, other Work) Work {
	sum := Work{}
	for f, n := range w {
		sum[f] += n
	}
	for f, n := range other {
		sum[f] += times * n
	}
	return sum
}

// Interval is a number with the interval in which it is, with 95 % confidence.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Price is what one of a feature costs, in seconds.
type Price struct {
	Feature Feature `json:"feature"`
	// Processor is processor time of all roles together, Elapsed what an operation
	// takes longer, both at low load.
	Processor Interval `json:"processor_seconds"`
	Elapsed   Interval `json:"elapsed_seconds"`
}

// Point is a measured cell of a path: one size, between the same hosts or others.
type Point struct {
	SizeBytes float64 `json:"size_bytes"`
	// Counted is how often an operation did each feature.
	Counted Work `json:"counted"`
	// Processor and Elapsed are how many times as long as fitted the cell took.
	Processor float64 `json:"processor_residual"`
	Elapsed   float64 `json:"elapsed_residual"`
	// By is the processor time of each role, as a share of the sum.
	By map[string]float64 `json:"by_role"`
	// ElapsedSeconds is what an operation took, Spread how much single ones differed:
	// quantiles of the latency over its mean, equally likely.
	ElapsedSeconds float64   `json:"elapsed_seconds"`
	Spread         []float64 `json:"spread"`
}

// Path is what was learned of a data path.
type Path struct {
	// Name is such as "read=copy".
	Name string `json:"name"`
	// Topology is "local" or "hosts".
	Topology string `json:"topology"`
	Replicas int    `json:"replicas"`
	// Points are by size, the smallest first.
	Points []Point `json:"points"`
}

// Calibration is a machine's costs.
type Calibration struct {
	Schema int `json:"schema"`
	// Runs names the runs that it was fitted from, Records how many records.
	Runs    []string `json:"runs"`
	Records int      `json:"records"`
	Machine string   `json:"machine"`
	CPUs    int      `json:"cpus"`
	// PathSet names all data paths of the program that fitted it, in order.
	PathSet []string `json:"path_set"`
	// HeldOut says what was left out of the fit; empty is nothing.
	HeldOut string  `json:"held_out,omitempty"`
	Prices  []Price `json:"prices"`
	// MedianErrorProcessor and MedianErrorElapsed are the fit's median errors on
	// its own cells, as shares.
	MedianErrorProcessor float64 `json:"median_error_processor"`
	MedianErrorElapsed   float64 `json:"median_error_elapsed"`
	Paths                []Path  `json:"paths"`
	// Residuals are how many times as long as fitted cells took: what is to be
	// expected of a path that was not measured.
	Residuals []float64 `json:"residuals"`
	// Least and Most bound what was fitted, by parameter: beyond is extrapolation.
	Least map[string]float64 `json:"least"`
	Most  map[string]float64 `json:"most"`
}

// Price gives what one of a feature costs.
func (c *Calibration) Price(f Feature) Price {
	for _, p := range c.Prices {
		if p.Feature == f {
			return p
		}
	}
	return Price{Feature: f}
}

// Cost is what work costs in seconds, by the fitted prices.
func (c *Calibration) Cost(w Work) (processor, elapsed float64) {
	for _, p := range c.Prices {
		processor += w[p.Feature] * p.Processor.Value
		elapsed += w[p.Feature] * p.Elapsed.Value
	}
	return processor, elapsed
}

// Path finds what is known of a path in a topology, with so many replicas.
func (c *Calibration) Path(name, topology string, replicas int) (*Path, bool) {
	i := slices.IndexFunc(c.Paths, func(p Path) bool { return p.Name == name && p.Topology == topology && p.Replicas == replicas })
	if i < 0 {
		return nil, false
	}
	return &c.Paths[i], true
}

// At gives what is expected of a path at a size: between two measured sizes
// counts are on the line between them, and residuals on the line between their
// logarithms. Beyond them, counts go on along the line, and residuals stay. A single
// size stands for all.
func (p *Path) At(size float64) Point {
	if len(p.Points) == 1 {
		return p.Points[0]
	}
	i := 0
	for i < len(p.Points)-2 && size > p.Points[i+1].SizeBytes {
		i++
	}
	a, b := p.Points[i], p.Points[i+1]
	at := (size - a.SizeBytes) / (b.SizeBytes - a.SizeBytes)
	within := min(1, max(0, math.Log(size/max(1, a.SizeBytes))/math.Log(b.SizeBytes/max(1, a.SizeBytes))))
	mix := func(x, y float64) float64 { return math.Exp((1-within)*math.Log(x) + within*math.Log(y)) }
	point := Point{SizeBytes: size, Counted: Work{}, Processor: mix(a.Processor, b.Processor), Elapsed: mix(a.Elapsed, b.Elapsed), By: map[string]float64{}}
	for _, f := range Features {
		if n := max(0, (1-at)*a.Counted[f]+at*b.Counted[f]); n > 0 {
			point.Counted[f] = n
		}
	}
	for role := range b.By {
		point.By[role] = (1-within)*a.By[role] + within*b.By[role]
	}
	return point
}

// Check reports the first thing that makes a calibration unfit to simulate with.
func (c *Calibration) Check() error {
	if c.Schema != Schema {
		return fmt.Errorf("schema is %d, this program reads %d: calibrate again", c.Schema, Schema)
	}
	if c.CPUs < 1 || len(c.Runs) == 0 {
		return fmt.Errorf("a calibration of a machine with %d CPUs from %d runs can't be", c.CPUs, len(c.Runs))
	}
	for _, p := range c.Prices {
		if !slices.Contains(Features, p.Feature) {
			return fmt.Errorf("prices: there is no feature %q", p.Feature)
		}
		for _, v := range []float64{p.Processor.Value, p.Elapsed.Value} {
			if !(v >= 0) || math.IsInf(v, 0) {
				return fmt.Errorf("prices: %s costs %v s: must be a number that is not negative", p.Feature, v)
			}
		}
	}
	for _, p := range c.Paths {
		if err := p.check(); err != nil {
			return fmt.Errorf("path %s (%s): %w", p.Name, p.Topology, err)
		}
	}
	return nil
}

// Spread is how much single operations differ: that of the path itself at the
// nearest size, or where it was not measured, that of the measured point which takes
// most nearly as long.
func (c *Calibration) Spread(p *Path, size, elapsed float64) []float64 {
	var best []float64
	least := math.Inf(1)
	consider := func(distance float64, spread []float64) {
		if distance < least && len(spread) > 0 {
			best, least = spread, distance
		}
	}
	if p != nil {
		for _, point := range p.Points {
			consider(math.Abs(math.Log((1+point.SizeBytes)/(1+size))), point.Spread)
		}
	}
	if best != nil {
		return best
	}
	for _, path := range c.Paths {
		for _, point := range path.Points {
			consider(math.Abs(math.Log(point.ElapsedSeconds/max(1e-9, elapsed))), point.Spread)
		}
	}
	if best == nil {
		return []float64{1}
	}
	return best
}

func (p *Path) check() error {
	if len(p.Points) == 0 {
		return fmt.Errorf("no size was measured")
	}
	last := -1.0
	for _, point := range p.Points {
		if !(point.SizeBytes > last) {
			return fmt.Errorf("sizes are not in order: %v after %v", point.SizeBytes, last)
		}
		last = point.SizeBytes
		if err := checkPositive("residual", []float64{point.Processor, point.Elapsed}); err != nil {
			return err
		}
		if len(point.Spread) > 0 {
			if err := checkPositive("spread", point.Spread); err != nil {
				return err
			}
		}
		for f, n := range point.Counted {
			if !slices.Contains(Features, f) || !(n >= 0) || math.IsInf(n, 0) {
				return fmt.Errorf("%v of feature %q can't be", n, f)
			}
		}
	}
	return nil
}

func checkPositive(what string, list []float64) error {
	if len(list) == 0 {
		return fmt.Errorf("%s is empty", what)
	}
	for _, v := range list {
		if !(v > 0) || math.IsInf(v, 0) {
			return fmt.Errorf("%s holds %v: must be a number above 0", what, v)
		}
	}
	return nil
}

// CheckPathSet reports what a program's data paths have that a calibration
// doesn't, or the other way round.
func (c *Calibration) CheckPathSet(paths []string) error {
	for _, p := range paths {
		if !slices.Contains(c.PathSet, p) {
			return fmt.Errorf("it was made by a program without the data path %s: calibrate again", p)
		}
	}
	for _, p := range c.PathSet {
		if !slices.Contains(paths, p) {
			return fmt.Errorf("it was made by a program with a data path %s, which is no more: calibrate again", p)
		}
	}
	return nil
}
