// Package claims puts published claims about fast data paths to the test on
// the machine of whoever asks.
//
// The claims are data (claims.yaml): a sentence, its source, and for each what
// a run of Waggle measures that would have to come out so. [Judge] gives each a
// verdict from one run's records. A claim is only called not reproduced where
// the measurement is good enough to say so; everything else is "not testable
// here" with the reason.
package claims

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"waggle/results"
)

//go:embed claims.yaml
var published []byte

// Catalogue is the contents of a claims file.
type Catalogue struct {
	// EBPF names the levels that are eBPF programs, by factor.
	EBPF map[string][]string `yaml:"ebpf"`
	// Controls names the levels of path factors that are no data path.
	Controls []string `yaml:"controls"`
	Claims   []Claim  `yaml:"claims"`
}

// Claim is one published claim.
type Claim struct {
	ID     string `yaml:"id"`
	Claim  string `yaml:"claim"`
	Source string `yaml:"source"`
	// Untestable says why no run of this program can test the claim. It is given
	// instead of Tests.
	Untestable string `yaml:"untestable"`
	// Simulated says that no machine at hand can test the claim, and that simulated
	// records are judged instead of measured ones. Its verdicts are others, so that
	// nobody takes a simulation for a measurement.
	Simulated bool `yaml:"simulated"`
	// Tests must all come out for the claim to be reproduced.
	Tests []Test `yaml:"tests"`
}

// Test is one thing that would have to be so. It is of one of three kinds: a
// comparison of Treatment with Baseline, a Share of two counters, or Winners.
type Test struct {
	Experiment string `yaml:"experiment"`
	// Where keeps only the cells that have these levels.
	Where results.Cell `yaml:"where"`
	// Note says how the test differs from what the authors did.
	Note string `yaml:"note"`

	// A comparison: of every pair of cells that differ in nothing but having the
	// treatment's levels instead of the baseline's.
	Metric    string       `yaml:"metric"`
	Baseline  results.Cell `yaml:"baseline"`
	Treatment results.Cell `yaml:"treatment"`
	Expect    Expectation  `yaml:"expect"`
	// Authors is the authors' ratio of the metric, treatment over baseline; 0 if
	// they give none.
	Authors float64 `yaml:"authors"`
	Pairs   Pairs   `yaml:"pairs"`

	Share   *Share   `yaml:"share"`
	Winners *Winners `yaml:"winners"`
}

// Expectation is what a comparison should find.
type Expectation string

// The expectations.
const (
	Better    Expectation = "better"
	Worse     Expectation = "worse"
	NotBetter Expectation = "not better"
)

// Pairs says which pairs of cells must come out as expected.
type Pairs string

// Best asks for the pair with the largest effect ("up to"), Every for all pairs
// about which something can be said.
const (
	Best  Pairs = "best"
	Every Pairs = "every"
)

// Share expects that one counter of the paths' proof is at least a share of
// another, over all trials of the experiment.
type Share struct {
	Of      string  `yaml:"of"`
	In      string  `yaml:"in"`
	AtLeast float64 `yaml:"at_least"`
}

// Winners expects that in at least a share of the cells, the best eBPF path is
// not better than the best other path.
type Winners struct {
	Experiments []string `yaml:"experiments"`
	Metric      string   `yaml:"metric"`
	AtLeast     float64  `yaml:"at_least"`
}

// Published gives the claims that come with the program.
func Published() (*Catalogue, error) { return Parse(published) }

// Parse reads a claims file strictly.
func Parse(text []byte) (*Catalogue, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var c Catalogue
	if err := decoder.Decode(&c); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("claims: the file holds more than one document")
	}
	seen := map[string]bool{}
	for _, claim := range c.Claims {
		if err := claim.check(); err != nil {
			return nil, fmt.Errorf("claims: claim %q: %w", claim.ID, err)
		}
		if seen[claim.ID] {
			return nil, fmt.Errorf("claims: claim %q is given twice", claim.ID)
		}
		seen[claim.ID] = true
	}
	return &c, nil
}

func (c *Claim) check() error {
	if c.ID == "" || c.Claim == "" || c.Source == "" {
		return errors.New("it needs id, claim and source")
	}
	if (c.Untestable == "") == (len(c.Tests) == 0) {
		return errors.New("it needs either tests or a reason why it is untestable")
	}
	for i, t := range c.Tests {
		if err := t.check(); err != nil {
			return fmt.Errorf("test %d: %w", i+1, err)
		}
	}
	return nil
}

func (t *Test) check() error {
	switch comparison := t.Metric != ""; {
	case t.Winners != nil && t.Share == nil && !comparison:
		return t.Winners.check()
	case t.Experiment == "":
		return errors.New("it needs an experiment")
	case t.Share != nil && !comparison:
		return t.Share.check()
	case comparison && t.Share == nil && t.Winners == nil:
		return t.checkComparison()
	}
	return errors.New("it must be one of a comparison (metric), a share or winners")
}

func (t *Test) checkComparison() error {
	if _, err := results.MetricNamed(t.Metric); err != nil {
		return err
	}
	if len(t.Baseline) == 0 || len(t.Treatment) == 0 {
		return errors.New("a comparison needs baseline and treatment")
	}
	if t.Expect != Better && t.Expect != Worse && t.Expect != NotBetter {
		return fmt.Errorf("expect is %q, not %q, %q or %q", t.Expect, Better, Worse, NotBetter)
	}
	if t.Pairs != Best && t.Pairs != Every {
		return fmt.Errorf("pairs is %q, not %q or %q", t.Pairs, Best, Every)
	}
	if t.Pairs == Best && t.Expect == NotBetter {
		return errors.New("that the best pair is not better is asked of every pair")
	}
	if !(t.Authors >= 0) {
		return fmt.Errorf("authors is %v, not a ratio", t.Authors)
	}
	return nil
}

func (s *Share) check() error {
	if s.Of == "" || s.In == "" || !(s.AtLeast > 0 && s.AtLeast <= 1) {
		return errors.New("a share needs of, in, and at_least above 0 and at most 1")
	}
	return nil
}

func (w *Winners) check() error {
	if len(w.Experiments) == 0 || !(w.AtLeast > 0 && w.AtLeast <= 1) {
		return errors.New("winners needs experiments, and at_least above 0 and at most 1")
	}
	_, err := results.MetricNamed(w.Metric)
	return err
}
