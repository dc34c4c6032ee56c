package figure

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"

	"waggle/results"
)

// unit is a name for a multiple of a quantity's base unit.
type unit struct {
	name string
	size float64
}

// quantity is what an axis measures.
type quantity struct {
	label string
	units []unit // by size
}

// quantityOf gives a metric's quantity from its unit.
func quantityOf(m results.Metric) quantity {
	label := Capital(m.Label)
	switch m.Unit {
	case "B/s":
		return quantity{label, []unit{{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}}}
	case "op/s":
		return quantity{"Operations", []unit{{"/s", 1}, {"k/s", 1e3}, {"M/s", 1e6}}}
	case "s":
		return quantity{label, []unit{{"ns", 1e-9}, {"µs", 1e-6}, {"ms", 1e-3}, {"s", 1}}}
	case "CPU s/op":
		return quantity{"CPU time per operation", []unit{{"ns", 1e-9}, {"µs", 1e-6}, {"ms", 1e-3}, {"s", 1}}}
	case "CPU s/GB":
		return quantity{label, []unit{{"s/GB", 1}}}
	case "copies/B", "calls/op", "switches/op": // the label says it all
		return quantity{label, []unit{{"", 1}}}
	}
	return quantity{label, []unit{{m.Unit, 1}}}
}

// unitFor is the largest unit in which v is at least 1, rounded to the three
// digits that are shown.
func (q quantity) unitFor(v float64) unit {
	best := q.units[0]
	for _, u := range q.units {
		if math.Abs(v) >= u.size*0.9995 {
			best = u
		}
	}
	return best
}

// text writes a value with its unit, three digits long.
func (q quantity) text(v float64) string {
	u := q.unitFor(v)
	return strings.TrimSpace(ThreeDigits(v/u.size) + spaced(u.name))
}

// interval writes a value with its bounds, all in one unit.
func (q quantity) interval(v, low, high float64) string {
	if v == 0 && low == 0 && high == 0 {
		return "0"
	}
	u := q.unitFor(v)
	if v == 0 {
		u = q.unitFor(high)
	}
	return fmt.Sprintf("%s [%s, %s]", strings.TrimSpace(ThreeDigits(v/u.size)+spaced(u.name)), ThreeDigits(low/u.size), ThreeDigits(high/u.size))
}

// spaced puts a blank before a unit that is a word: "3 MB/s", but "3/s" and
// "3 k/s".
func spaced(unit string) string {
	if strings.HasPrefix(unit, "/") {
		return unit
	}
	return " " + unit
}

// ThreeDigits writes a number with three significant digits, or two decimals.
func ThreeDigits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.01:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 1e-4:
		return "<0.0001"
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// scale says where the values of an axis are drawn. Logarithms are taken here
// and not by the plot, whose logarithmic axis panics at zero.
type scale struct {
	at       func(float64) float64
	min, max float64 // of at's results
	ticks    []plot.Tick
	label    string
}

func (s scale) apply(axis *plot.Axis) {
	axis.Min, axis.Max = s.min, s.max
	axis.Label.Text = s.label
	axis.Tick.Marker = plot.ConstantTicks(s.ticks)
}

// logAbove is the ratio of largest to smallest value from which an axis is
// logarithmic: on a linear one, the smallest would lie on the axis.
const logAbove = 30

// valueScale makes the scale for measured values, of which there is at least
// one. It is linear from zero as long as that shows all of them.
func valueScale(q quantity, values []float64) scale {
	smallest, largest := extremes(values)
	if largest <= 0 || largest < logAbove*smallest {
		return linearScale(q, 0, largest)
	}
	return logScale(q, values)
}

// extremes gives the smallest and largest value above zero, or zeros.
func extremes(values []float64) (smallest, largest float64) {
	for _, v := range values {
		if v > 0 && (smallest == 0 || v < smallest) {
			smallest = v
		}
		largest = max(largest, v)
	}
	return smallest, largest
}

func linearScale(q quantity, from, to float64) scale {
	if to <= from {
		to = from + q.units[0].size
	}
	u := q.unitFor(to)
	s := scale{at: func(v float64) float64 { return v / u.size }, min: from / u.size, max: to / u.size, label: q.label}
	if u.name != "" {
		s.label += " (" + u.name + ")"
	}
	s.max += (s.max - s.min) * 0.05
	s.ticks = roundTicks(s.min, s.max)
	return s
}

// roundTicks labels about five multiples of a round number.
func roundTicks(low, high float64) []plot.Tick {
	const wanted = 5
	step := math.Pow10(int(math.Floor(math.Log10((high - low) / wanted))))
	for _, factor := range []float64{2, 2.5, 2} { // 1, 2, 5, 10
		if (high-low)/step <= wanted+1 {
			break
		}
		step *= factor
	}
	var ticks []plot.Tick
	for i := math.Ceil(low / step); i*step <= high; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: strconv.FormatFloat(i*step, 'g', 6, 64)})
	}
	return ticks
}

// logScale is a logarithmic scale with the unit at each tick. Zeros, which have
// no logarithm, are drawn on the axis' lower end under a tick that says 0.
func logScale(q quantity, values []float64) scale {
	smallest, largest := extremes(values)
	low, high := math.Log10(smallest), math.Log10(largest)
	pad := 0.04 * max(high-low, 0.5)
	s := scale{min: low - pad, max: high + pad, label: q.label}
	s.ticks = q.logTicks(s.min, s.max)
	if slices.ContainsFunc(values, func(v float64) bool { return v <= 0 }) {
		s.min -= 0.12 * (high - low + 1)
		s.ticks = append(s.ticks, plot.Tick{Value: s.min, Label: "0"})
	}
	floor := s.min
	s.at = func(v float64) float64 {
		if v <= 0 {
			return floor
		}
		return max(math.Log10(v), floor)
	}
	return s
}

// logTicks labels the decades between two logarithms, and 2 and 5 as well where
// there are few decades.
func (q quantity) logTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	decades := math.Floor(high) - math.Ceil(low) + 1
	every := max(1, int(math.Ceil(decades/6)))
	for exponent := int(math.Floor(low)); exponent <= int(math.Ceil(high)); exponent++ {
		for digit := 1; digit <= 9; digit++ {
			v := float64(digit) * math.Pow10(exponent)
			position := math.Log10(v)
			if position < low || position > high || digit > 1 && every > 1 {
				continue
			}
			labelled := digit == 1 && exponent%every == 0 ||
				decades <= 2 && (digit == 2 || digit == 5)
			tick := plot.Tick{Value: position}
			if labelled {
				tick.Label = q.tickText(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

func (q quantity) tickText(v float64) string {
	u := q.unitFor(v)
	return strings.TrimSpace(strconv.FormatFloat(v/u.size, 'g', 4, 64) + spaced(u.name))
}

// factorScale makes the scale of a factor along the x axis: logarithmic to base
// 2 or linear for numbers, evenly spaced (and nominal) for words.
func factorScale(factor string, levels []any) (s scale, position func(level any) float64, nominal bool) {
	numbers := make([]float64, 0, len(levels))
	for _, level := range levels {
		if f, ok := level.(float64); ok {
			numbers = append(numbers, f)
		}
	}
	if len(numbers) < len(levels) {
		s, position = nominalScale(factor, levels)
		return s, position, true
	}
	s = numberScale(factor, numbers)
	return s, func(level any) float64 { return s.at(level.(float64)) }, false
}

func nominalScale(factor string, levels []any) (scale, func(any) float64) {
	s := scale{min: -0.5, max: float64(len(levels)) - 0.5, label: FactorName(factor)}
	positions := map[string]float64{}
	for i, level := range levels {
		positions[results.FormatLevel(level)] = float64(i)
		s.ticks = append(s.ticks, plot.Tick{Value: float64(i), Label: printable(LevelText(factor, level))})
	}
	return s, func(level any) float64 { return positions[results.FormatLevel(level)] }
}

// numberScale draws a tick at each level. A level of zero has no logarithm: it
// is drawn one doubling left of the smallest other.
func numberScale(factor string, levels []float64) scale {
	smallest, largest := extremes(levels)
	s := scale{at: func(v float64) float64 { return v }, label: FactorName(factor)}
	if slices.Min(levels) >= 0 && smallest > 0 && largest >= 4*smallest {
		s.at = func(v float64) float64 {
			if v <= 0 {
				return math.Log2(smallest) - 1
			}
			return math.Log2(v)
		}
	}
	s.min, s.max = s.at(slices.Min(levels)), s.at(slices.Max(levels))
	pad := 0.05 * (s.max - s.min)
	if pad == 0 {
		pad = 0.5
	}
	s.min, s.max = s.min-pad, s.max+pad
	for _, level := range levels {
		s.ticks = append(s.ticks, plot.Tick{Value: s.at(level), Label: LevelText(factor, level)})
	}
	return s
}

// thin removes the labels of ticks that would run into their neighbours when
// the axis is width long.
func (s *scale) thin(width float64, textWidth func(string) float64) {
	const gap = 4
	end := math.Inf(-1)
	for i, tick := range s.ticks {
		if tick.Label == "" {
			continue
		}
		centre := (tick.Value - s.min) / (s.max - s.min) * width
		half := textWidth(tick.Label) / 2
		if centre-half < end+gap {
			s.ticks[i].Label = ""
			continue
		}
		end = centre + half
	}
}
