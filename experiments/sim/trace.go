package sim

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"waggle/dfs/wire"
)

// Limits of a trace.
const (
	maxTraceLines = 1_000_000
	maxTraceSizes = 64 // told apart; more are put together, the nearest first
)

// ReadTrace reads a file with a request's size in bytes a line. What can't be a
// request, an empty line among them, is an error that names file and line: a trace
// with gaps would be simulated as another one.
func ReadTrace(path string) ([]int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a trace: %w", err)
	}
	defer f.Close()
	var sizes []int64
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		text := strings.TrimSpace(lines.Text())
		size, err := strconv.ParseInt(text, 10, 64)
		switch {
		case text == "":
			return nil, fmt.Errorf("%s:%d: the trace has a gap here: each line holds a request's size in bytes", path, number)
		case err != nil || size < 1 || size > wire.MaxData:
			return nil, fmt.Errorf("%s:%d: %q is no request's size: must be from 1 to %d bytes", path, number, text, int64(wire.MaxData))
		case number > maxTraceLines:
			return nil, fmt.Errorf("%s:%d: a trace has at most %d lines", path, number, maxTraceLines)
		}
		sizes = append(sizes, size)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", path, len(sizes)+1, err)
	}
	if len(sizes) == 0 {
		return nil, fmt.Errorf("%s:1: the trace is empty", path)
	}
	return thin(sizes), nil
}

// thin puts sizes together until few are told apart: each stands for equally many
// requests, and is their mean.
func thin(sizes []int64) []int64 {
	slices.Sort(sizes)
	if len(sizes) <= maxTraceSizes {
		return sizes
	}
	thinned := make([]int64, maxTraceSizes)
	for i := range thinned {
		part := sizes[i*len(sizes)/maxTraceSizes : (i+1)*len(sizes)/maxTraceSizes]
		sum := int64(0)
		for _, s := range part {
			sum += s
		}
		thinned[i] = max(1, sum/int64(len(part)))
	}
	return thinned
}
