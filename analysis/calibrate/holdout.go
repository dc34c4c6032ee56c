package calibrate

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed holdout.yaml
var declared []byte

// HoldOut is a kind of cells that are predicted without being fitted.
type HoldOut struct {
	Kind          string    `yaml:"kind"`
	Says          string    `yaml:"says"`
	Operations    []string  `yaml:"operations"`
	ClientsAbove  float64   `yaml:"clients_above"`
	ReplicasAbove int       `yaml:"replicas_above"`
	SizesNot      []float64 `yaml:"sizes_not"`
	Topology      string    `yaml:"topology"`
	// EachPath leaves out one path after the other.
	EachPath bool `yaml:"each_path"`
}

// Aims are the largest errors with which a prediction counts as met, as shares.
type Aims struct {
	Throughput float64 `yaml:"throughput"`
	CPU        float64 `yaml:"cpu"`
	P50        float64 `yaml:"p50"`
	P99        float64 `yaml:"p99"`
	// Order is the least share of pairs of paths whose order is kept.
	Order float64 `yaml:"order"`
}

// Declaration is the file of hold-outs.
type Declaration struct {
	HoldOuts []HoldOut `yaml:"holdouts"`
	Aims     Aims      `yaml:"aims"`
}

// Declared gives the hold-outs that come with the program.
func Declared() (*Declaration, error) { return ParseDeclaration(declared) }

// ParseDeclaration reads a file of hold-outs strictly.
func ParseDeclaration(text []byte) (*Declaration, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var d Declaration
	if err := decoder.Decode(&d); err != nil {
		return nil, fmt.Errorf("hold-outs: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("hold-outs: the file holds more than one document")
	}
	for _, h := range d.HoldOuts {
		bounds := h.ClientsAbove > 0 || h.ReplicasAbove > 0 || len(h.SizesNot) > 0 || h.Topology != ""
		if h.Kind == "" || h.Says == "" || len(h.Operations) == 0 || bounds == h.EachPath {
			return nil, fmt.Errorf("hold-outs: kind %q needs says, operations, and either bounds or each_path", h.Kind)
		}
	}
	return &d, nil
}

// holds says whether a cell is held out.
func (h *HoldOut) holds(c Cell) bool {
	operation, _, _ := strings.Cut(c.Path, "=")
	switch {
	case !slices.Contains(h.Operations, operation):
		return false
	case h.ClientsAbove > 0 && c.Clients <= h.ClientsAbove:
		return false
	case h.ReplicasAbove > 0 && c.Replicas <= h.ReplicasAbove:
		return false
	case len(h.SizesNot) > 0 && slices.Contains(h.SizesNot, c.SizeBytes):
		return false
	case h.Topology != "" && c.Topology != h.Topology:
		return false
	}
	return true
}
