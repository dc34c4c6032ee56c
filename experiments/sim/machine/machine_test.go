package machine

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryModelThatComesWithWaggleLoads(t *testing.T) {
	require.Contains(t, Names(), "two-core-vm")
	for _, name := range Names() {
		m, err := Load(name)
		require.NoError(t, err)
		require.Equal(t, name, m.Name)
		require.NotEmpty(t, m.Summary)
		for number, v := range m.Values() {
			require.NotEmpty(t, v.Source, number)
		}
		require.Contains(t, m.Disks(), "nvme")
		require.Contains(t, m.Cards(), "400g")
		require.Contains(t, m.PathNames("read"), "rdma")
	}
}

const good = `name: mine
processors:
  cores: {is: 4, source: counted}
card:
  gigabits_per_second: {is: 10, source: label}
paths:
  read=warp:
    operation: {call: {is: 2, source: guess}}
`

func TestErrorsNameFileAndLine(t *testing.T) {
	m, err := Parse("m.yaml", []byte(good))
	require.NoError(t, err)
	require.InDelta(t, 4, m.Number("processors.cores", 0), 0)
	require.InDelta(t, 7, m.Number("memory.gigabytes_per_second", 7), 0)
	d, ok := m.Demand("read=warp")
	require.True(t, ok)
	require.InDelta(t, 2, d.Operation["call"], 0)
	for _, c := range []struct{ from, to, want string }{
		{"{is: 4, source: counted}", "4", "m.yaml:3: processors.cores has no source: write {is: 4, source:"},
		{"{is: 4, source: counted}", "{is: 4}", "m.yaml:3: processors.cores has no source"},
		{"{is: 4, source: counted}", "{is: 4, source: \" \"}", "m.yaml:3: processors.cores has no source"},
		{"is: 10", "is: -10", "m.yaml:5: card.gigabits_per_second is -10: must be from"},
		{"is: 10", "is: .nan", "m.yaml:5: card.gigabits_per_second is"},
		{"card:", "cart:", "m.yaml:5: there is no cart.gigabits_per_second in a machine model: its stations are processors,"},
		{"gigabits_per_second", "furlongs", "m.yaml:5: there is no card.furlongs in a machine model: there are card.gigabits_per_second,"},
		{"call:", "yell:", "m.yaml:8: there is no paths.read=warp.operation.yell"},
		{"source: label", "because: label", "m.yaml:5: card.gigabits_per_second has a field \"because\""},
		{"name: mine", "name: [", "m.yaml:"},
		{"name: mine", "name: [x]", "m.yaml:1: name must be text"},
		{"paths:", "---\npaths:", "more than one document"},
	} {
		t.Run(c.to, func(t *testing.T) {
			require.Contains(t, good, c.from)
			_, err := Parse("m.yaml", []byte(strings.Replace(good, c.from, c.to, 1)))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err = Load("moon")
	require.ErrorContains(t, err, "choose from rack-100g")
	_, err = Load("/does/not/exist.yaml")
	require.ErrorContains(t, err, "read a machine model")
}

func TestVaryingANumber(t *testing.T) {
	m, err := Load("rack-25g")
	require.NoError(t, err)
	varied, err := m.With("card.gigabits_per_second", 1.3)
	require.NoError(t, err)
	require.InDelta(t, 32.5, varied.Number("card.gigabits_per_second", 0), 1e-9)
	require.InDelta(t, 25, m.Number("card.gigabits_per_second", 0), 0)
	varied, err = m.With("cost.switch", 0.7)
	require.NoError(t, err)
	require.InDelta(t, 0.7, varied.Number("cost.switch", 1), 0)
	_, err = m.With("card.colour", 2)
	require.ErrorContains(t, err, "no number")
	_, err = m.With("cost.colour", 2)
	require.ErrorContains(t, err, "no cost")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Parse("m.yaml", text); err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("more than one line: %q", err)
		}
	})
}
