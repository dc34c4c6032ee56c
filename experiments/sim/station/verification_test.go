package station

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/sim/engine"
	"waggle/experiments/sim/estimate"
)

// These tests compare stations and networks with what queueing theory says of
// them exactly. "Equal" means that theory is within the simulation's own interval,
// or within its width of it: of many 95 % intervals, some miss by a little.

const operations = 120_000

func add(t *testing.T, n *Network, s Station, err error) ID {
	require.NoError(t, err)
	return n.Add(s)
}

func program(t *testing.T, n *Network, steps ...Step) int32 {
	p, err := n.Program(steps)
	require.NoError(t, err)
	return p
}

// open runs a program under Poisson arrivals, one in so many nanoseconds.
func open(t *testing.T, n *Network, p int32, gap float64) estimate.Result {
	return openFor(t, n, p, gap, operations)
}

func openFor(t *testing.T, n *Network, p int32, gap float64, operations int) estimate.Result {
	return observe(t, n, operations, func(Job) {}, func() {
		n.Arrive(1e9/gap, func() { n.Start(p, 0, 0, 0) })
	})
}

// closed keeps so many jobs going.
func closed(t *testing.T, n *Network, p int32, jobs int) estimate.Result {
	return observe(t, n, operations, func(j Job) { n.Start(p, j.Client, j.Server, 0) }, func() {
		for i := range jobs {
			n.Start(p, int32(i), 0, 0)
		}
	})
}

// observe runs a network until so many jobs have ended.
func observe(t *testing.T, n *Network, operations int, ended func(Job), start func()) estimate.Result {
	b := estimate.New(0)
	seen := 0
	n.Finished = func(_ int32, j Job) {
		if b.Observe(n.Engine.Now() - j.Began) {
			b.Close(n.Engine.Now(), estimate.Amounts{})
		}
		if seen++; seen == operations {
			n.Engine.Stop()
			return
		}
		ended(j)
	}
	start()
	n.Engine.Run(engine.Never)
	require.NoError(t, n.CheckLittle())
	r, err := b.Result()
	require.NoError(t, err)
	return r
}

func requireEqual(t *testing.T, want float64, got estimate.Interval, what string) {
	t.Helper()
	require.Less(t, got.HalfWidth(), 0.1, "%s is not known well enough: %v", what, got)
	wide := got.High - got.Low
	require.True(t, want >= got.Low-wide/2 && want <= got.High+wide/2, "%s: theory %.6g, simulated %v", what, want, got)
}

// erlangC is the probability that a job of an M/M/c queue waits.
func erlangC(c int, load float64) float64 {
	term, sum := 1.0, 0.0
	for k := range c {
		sum += term
		term *= load / float64(k+1)
	}
	last := term * float64(c) / (float64(c) - load)
	return last / (sum + last)
}

func TestMMc(t *testing.T) {
	for _, c := range []struct {
		servers int
		load    float64 // of each
	}{{1, .3}, {1, .7}, {2, .8}, {8, .9}} {
		t.Run(fmt.Sprint(c.servers, " servers ", c.load), func(t *testing.T) {
			const service = 10_000
			load := c.load * float64(c.servers)
			theory := service + erlangC(c.servers, load)*service/(float64(c.servers)-load)

			n := NewNetwork(1, 64)
			s, err := NewServers(c.servers)
			at := add(t, n, s, err)
			r := open(t, n, program(t, n, Step{At: at, Amount: service, Noise: Exponential}), service/load)
			requireEqual(t, theory/1e9, r.Mean, "mean time in a station of servers")

			// Processors without slices, and without any cost of switching, are such servers.
			n = NewNetwork(2, 64)
			cores, err := NewProcessors(Scheduling{Cores: c.servers})
			at = add(t, n, cores, err)
			r = open(t, n, program(t, n, Step{At: at, Amount: service, Noise: Exponential}), service/load)
			requireEqual(t, theory/1e9, r.Mean, "mean time at processors")
			utilisation := float64(n.Station(at).Busy) / float64(n.Engine.Now()) / float64(c.servers)
			require.InDelta(t, c.load, utilisation, 0.01)
		})
	}
}

func TestMM1Percentiles(t *testing.T) {
	const service, load = 10_000, 0.6
	n := NewNetwork(3, 64)
	s, err := NewServers(1)
	at := add(t, n, s, err)
	r := open(t, n, program(t, n, Step{At: at, Amount: service, Noise: Exponential}), service/load)
	mean := service / (1 - load) / 1e9 // the time is exponential
	require.InEpsilon(t, mean*math.Ln2, r.P50.Value, 0.03)
	require.InEpsilon(t, mean*math.Log(100), float64(r.Latency.ValueAtQuantile(99))/1e9, 0.05)
}

// Pollaczek and Khinchine: the wait follows from the mean and the variance of service.
func TestMD1AndMG1(t *testing.T) {
	twoPoint, err := Table([]float64{.25, .25, .25, .25, .25, .25, .25, .25, .25, 7.75})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		noise    *Noise
		variance float64 // over the mean squared
	}{
		"deterministic": {nil, 0},
		"two points":    {twoPoint, (.9*.25*.25 + .1*7.75*7.75) - 1},
	} {
		t.Run(name, func(t *testing.T) {
			const service, load = 10_000, 0.6
			theory := service * (1 + load*(1+c.variance)/2/(1-load))
			n := NewNetwork(4, 64)
			s, err := NewServers(1)
			at := add(t, n, s, err)
			r := open(t, n, program(t, n, Step{At: at, Amount: service, Noise: c.noise}), service/load)
			requireEqual(t, theory/1e9, r.Mean, "mean time")

			n = NewNetwork(5, 64)
			d, err := NewDisk(Drive{Channels: 1, AccessNS: service, BytesPerSecond: 1e18, Noise: c.noise})
			at = add(t, n, d, err)
			r = open(t, n, program(t, n, Step{At: at, Amount: 1}), service/load)
			requireEqual(t, theory/1e9, r.Mean, "mean time at a disk")
		})
	}
	t.Run("link", func(t *testing.T) {
		const load = 0.7
		n := NewNetwork(6, 64)
		l, err := NewLink(Wire{BytesPerSecond: 1e8, LatencyNS: 500, PacketBytes: 400, PacketOverhead: 100})
		at := add(t, n, l, err)
		service := (1000 + 3*100) * 10.0 // three packets
		r := open(t, n, program(t, n, Step{At: at, Amount: 1000}), service/load)
		requireEqual(t, (500+service*(1+load/2/(1-load)))/1e9, r.Mean, "mean time on a link")
	})
}

// With processor sharing the mean time depends on no more than the mean need.
func TestProcessorSharing(t *testing.T) {
	spread, err := Table([]float64{.1, .1, .1, .1, 4.6})
	require.NoError(t, err)
	for name, noise := range map[string]*Noise{"deterministic": nil, "exponential": Exponential, "spread": spread} {
		t.Run(name, func(t *testing.T) {
			const service, load = 10_000, 0.7
			n := NewNetwork(7, 64)
			s, err := NewSharing(1)
			at := add(t, n, s, err)
			r := open(t, n, program(t, n, Step{At: at, Amount: service, Noise: noise}), service/load)
			requireEqual(t, service/(1-load)/1e9, r.Mean, "mean time of processor sharing")

			// Slices far shorter than what jobs need come to the same.
			n = NewNetwork(8, 64)
			p, err := NewProcessors(Scheduling{Cores: 1, SliceNS: 250})
			at = add(t, n, p, err)
			r = openFor(t, n, program(t, n, Step{At: at, Amount: service, Noise: noise}), service/load, operations)
			require.InEpsilon(t, service/(1-load)/1e9, r.Mean.Value, 0.1)
		})
	}
	t.Run("limited", func(t *testing.T) { // with capacity 2, exponential needs are an M/M/2 queue
		const service, load = 10_000, 1.6
		n := NewNetwork(9, 64)
		s, err := NewSharing(2)
		at := add(t, n, s, err)
		r := open(t, n, program(t, n, Step{At: at, Amount: service, Noise: Exponential}), service/load)
		requireEqual(t, (service+erlangC(2, load)*service/(2-load))/1e9, r.Mean, "mean time of two shared servers")
	})
}

// In an open Jackson network each station is an M/M/c queue of its own, however
// often a job comes by.
func TestJacksonNetwork(t *testing.T) {
	const gap = 10_000
	n := NewNetwork(10, 64)
	first, err := NewServers(1)
	a := add(t, n, first, err)
	second, err := NewServers(3)
	b := add(t, n, second, err)
	third, err := NewSharing(1)
	c := add(t, n, third, err)
	r := open(t, n, program(t, n, Step{At: a, Amount: 3000, Noise: Exponential}, Step{At: b, Amount: 24_000, Noise: Exponential},
		Step{At: c, Amount: 2000, Noise: Exponential}, Step{At: a, Amount: 3000, Noise: Exponential}), gap)
	inA, inC := 3000/(1-.6), 2000/(1-.2)
	inB := 24_000 + erlangC(3, 2.4)*24_000/(3-2.4)
	requireEqual(t, (2*inA+inB+inC)/1e9, r.Mean, "mean time in the network")
	require.InEpsilon(t, inA, meanTime(n.Station(a)), 0.05)
	require.InEpsilon(t, inB, meanTime(n.Station(b)), 0.05)
	require.InEpsilon(t, inC, meanTime(n.Station(c)), 0.05)
}

func meanTime(b Books) float64 { return float64(b.Spent) / float64(b.Left) }

// Mean value analysis is exact for closed networks of such stations.
func TestClosedNetwork(t *testing.T) {
	demands := []float64{4000, 9000, 6000}
	const think = 20_000
	for _, jobs := range []int{1, 4, 16} {
		t.Run(fmt.Sprint(jobs), func(t *testing.T) {
			queue := make([]float64, len(demands))
			var rate, time float64
			for k := 1; k <= jobs; k++ {
				time = 0
				inside := make([]float64, len(demands))
				for i, d := range demands {
					inside[i] = d * (1 + queue[i])
					time += inside[i]
				}
				rate = float64(k) / (think + time)
				for i := range queue {
					queue[i] = rate * inside[i]
				}
			}
			n := NewNetwork(12, 64)
			thinking := n.Add(&Delay{})
			servers, err := NewServers(1)
			a := add(t, n, servers, err)
			sharing, err := NewSharing(1)
			b := add(t, n, sharing, err)
			cores, err := NewProcessors(Scheduling{Cores: 1})
			c := add(t, n, cores, err)
			r := closed(t, n, program(t, n, Step{At: thinking, Amount: think, Noise: Exponential},
				Step{At: a, Amount: 4000, Noise: Exponential}, Step{At: b, Amount: 9000, Noise: Exponential},
				Step{At: c, Amount: 6000, Noise: Exponential}), jobs)
			requireEqual(t, rate*1e9, r.Rate, "operations a second")
			requireEqual(t, (think+time)/1e9, r.Mean, "mean time")
		})
	}
}
