package results

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a cell, so that every cell can be shown in a figure's legend.
const (
	MaxFactors    = 32
	MaxNameLength = 128 // bytes of a factor's name or of a text level
)

// Cell is one combination of factor levels, by factor name. A level is a
// string, a float64 or a bool: what JSON can hold as a scalar. Integers set by
// a program are taken as the float64 that JSON makes of them.
type Cell map[string]any

// String is the canonical form of a cell: its factors sorted by name, such as
// "clients=4 read=copy size_bytes=65536". Two cells are the same cell exactly
// if their canonical forms are equal.
func (c Cell) String() string {
	parts := make([]string, 0, len(c))
	for _, factor := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, factor+"="+FormatLevel(c[factor]))
	}
	return strings.Join(parts, " ")
}

// Has reports whether the cell has all levels of want. An empty want keeps
// every cell.
func (c Cell) Has(want Cell) bool {
	for factor, level := range want {
		have, ok := c[factor]
		if !ok || FormatLevel(have) != FormatLevel(level) {
			return false
		}
	}
	return true
}

// Without returns a copy of the cell without some of its factors: what two
// cells have in common that differ in these factors alone.
func (c Cell) Without(factors ...string) Cell {
	rest := maps.Clone(c)
	for _, f := range factors {
		delete(rest, f)
	}
	return rest
}

// Levels of the factors of data paths that are no data paths, but the same transfer
// with no file system around it: nobody could choose them.
const (
	Floor    = "floor"     // by a process over one bare socket
	FloorXDP = "floor-xdp" // of a lookup, by a program in the network driver
)

// IsFloor says whether a level is one of these.
func IsFloor(level any) bool { return level == Floor || level == FloorXDP }

// FormatLevel writes a level so that no two different levels look alike:
// numbers in full up to 2^53, text as it is, but quoted where it could be taken
// for a number, a truth value, or more than one word.
func FormatLevel(level any) string {
	switch v := level.(type) {
	case string:
		if needsQuotes(v) {
			return strconv.Quote(v)
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	}
	f, ok := number(level)
	if !ok {
		return fmt.Sprintf("!%T(%v)", level, level)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func needsQuotes(s string) bool {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return true
	}
	if s == "" || s == "true" || s == "false" || s[0] == '!' {
		return true
	}
	return strings.ContainsFunc(s, func(r rune) bool {
		return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// number gives a numeric level as float64.
func number(level any) (f float64, ok bool) {
	switch v := level.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	}
	return 0, false
}

func (c Cell) check() error {
	if len(c) == 0 {
		return fmt.Errorf("cell has no factor")
	}
	if len(c) > MaxFactors {
		return fmt.Errorf("cell has %d factors, more than %d", len(c), MaxFactors)
	}
	for _, factor := range slices.Sorted(maps.Keys(c)) {
		if err := checkName("factor", factor); err != nil {
			return err
		}
		if err := checkLevel(c[factor]); err != nil {
			return fmt.Errorf("factor %s: %w", factor, err)
		}
	}
	return nil
}

func checkLevel(level any) error {
	switch v := level.(type) {
	case bool:
		return nil
	case string:
		return checkName("level", v)
	}
	f, ok := number(level)
	if !ok {
		return fmt.Errorf("level %v is neither text, number nor truth value", level)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("level is %v, not a finite number", f)
	}
	return nil
}

// checkName refuses what could not be shown on one line.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty", what)
	case len(name) > MaxNameLength:
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(name), MaxNameLength)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%s %q holds control characters or broken UTF-8", what, name)
	}
	return nil
}
