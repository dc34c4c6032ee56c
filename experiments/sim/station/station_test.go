package station

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/sim/engine"
)

// finish runs what has been started to its end, and gives the times at which jobs ended.
func finish(t *testing.T, n *Network, start func()) (ends []int64) {
	n.Finished = func(int32, Job) { ends = append(ends, n.Engine.Now()) }
	start()
	n.Engine.Run(engine.Never)
	require.NoError(t, n.CheckLittle())
	for i := range n.stations {
		require.Zero(t, n.Station(ID(i)).Inside(), "station %d (%T) keeps a job", i, n.stations[i])
	}
	return ends
}

func TestSoftInterruptsGoFirst(t *testing.T) {
	n := NewNetwork(1, 0)
	p, err := NewProcessors(Scheduling{Cores: 1})
	at := add(t, n, p, err)
	process := program(t, n, Step{At: at, Amount: 1000, Role: 1})
	soft := program(t, n, Step{At: at, Amount: 100, Soft: true})
	pause := n.Add(&Delay{})
	later := program(t, n, Step{At: pause, Amount: 300}, Step{At: at, Amount: 100, Soft: true})
	ends := finish(t, n, func() {
		n.Start(process, 0, 0, 0)
		n.Start(process, 0, 0, 0)
		n.Start(soft, 0, 0, 0) // takes the core from the first at once
		n.Start(later, 0, 0, 0)
	})
	require.Equal(t, []int64{100, 400, 1200, 2200}, ends)
	require.Equal(t, int64(200), n.SoftIRQ)
	require.Equal(t, int64(2000), n.Processor[1])
}

func TestOnlyIdleProcessorsAreWoken(t *testing.T) {
	n := NewNetwork(1, 0)
	p, err := NewProcessors(Scheduling{Cores: 1})
	at := add(t, n, p, err)
	id := program(t, n, Step{At: at, Amount: 1000, Wake: 50})
	ends := finish(t, n, func() { n.Start(id, 0, 0, 0); n.Start(id, 0, 0, 0); n.Start(id, 0, 0, 0) })
	require.Equal(t, []int64{1050, 2050, 3050}, ends)
	require.Equal(t, int64(1), n.Wakes)
}

func TestSlicesSwitchAndMigrate(t *testing.T) {
	n := NewNetwork(1, 0)
	p, err := NewProcessors(Scheduling{Cores: 1, SliceNS: 400, SwitchNS: 10})
	at := add(t, n, p, err)
	id := program(t, n, Step{At: at, Amount: 1000})
	// 400 of each in turns, four switches at 10 before their last turns of 220.
	require.Equal(t, []int64{1820, 2040}, finish(t, n, func() { n.Start(id, 0, 0, 0); n.Start(id, 0, 0, 0) }))

	n = NewNetwork(1, 0)
	p, err = NewProcessors(Scheduling{Cores: 2, MigrateNS: 7})
	at = add(t, n, p, err)
	pause := n.Add(&Delay{})
	id = program(t, n, Step{At: at, Amount: 100}, Step{At: pause, Amount: 50}, Step{At: at, Amount: 100})
	soft := program(t, n, Step{At: pause, Amount: 120}, Step{At: at, Amount: 1000, Soft: true})
	require.Equal(t, []int64{257, 1120}, finish(t, n, func() { n.Start(id, 0, 0, 0); n.Start(soft, 0, 0, 0) }))
}

func TestLinkLosesWhatItsQueueCantHold(t *testing.T) {
	n := NewNetwork(1, 0)
	l, err := NewLink(Wire{BytesPerSecond: 1e9, LatencyNS: 5, QueueBytes: 250, RetransmitNS: 1000})
	at := add(t, n, l, err)
	id := program(t, n, Step{At: at, Amount: 100})
	ends := finish(t, n, func() {
		for range 4 {
			n.Start(id, 0, 0, 0)
		}
	})
	require.Equal(t, []int64{105, 205, 1105, 1205}, ends)
	require.Equal(t, int64(2), n.Station(at).Dropped)
}

func TestGroupCommit(t *testing.T) {
	n := NewNetwork(1, 0)
	at := n.Add(&Commit{})
	id := program(t, n, Step{At: at, Amount: 100})
	ends := finish(t, n, func() {
		for range 5 {
			n.Start(id, 0, 0, 0)
		}
	})
	require.Equal(t, []int64{100, 200, 200, 200, 200}, ends)
}

func TestCacheKeepsWhatWasUsedLast(t *testing.T) {
	n := NewNetwork(1, 0)
	c, err := NewCache(4, 2)
	at := add(t, n, c, err)
	disk := n.Add(&Delay{})
	id := program(t, n, Step{At: at, Skip: 1}, Step{At: disk, Amount: 10}, Step{At: disk, Amount: 1})
	var ends []int64
	for _, key := range []int32{0, 1, 0, 2, 0, 1} { // 2 takes the place of 1
		ends = append(ends, finish(t, n, func() { n.Start(id, 0, 0, key) })...)
	}
	require.Equal(t, []int64{11, 22, 23, 34, 35, 46}, ends)
	require.Equal(t, int64(2), c.Hits)
}

func TestWritersWaitForWriteback(t *testing.T) {
	n := NewNetwork(1, 0)
	d, err := NewDirty(1000, 1e9)
	at := add(t, n, d, err)
	id := program(t, n, Step{At: at, Amount: 600})
	ends := finish(t, n, func() {
		for range 4 {
			n.Start(id, 0, 0, 0)
		}
	})
	require.Len(t, ends, 4)
	require.Equal(t, []int64{0, 0}, ends[:2], "there is room")
	require.InDelta(t, 200, ends[2], 2)
	require.InDelta(t, 800, ends[3], 3)
}

// Two flows share link 0, one of them and a third share link 1, which is three
// times as wide: max-min gives 1/2, 1/2 and 5/2.
func TestFabricSharesByMaxMin(t *testing.T) {
	routes := [][]int32{{0}, {0, 1}, {1}}
	n := NewNetwork(1, 0)
	f, err := NewFabric([]float64{1e9, 3e9}, func(client, _ int32) []int32 { return routes[client] })
	at := add(t, n, f, err)
	small := program(t, n, Step{At: at, Amount: 500})
	large := program(t, n, Step{At: at, Amount: 2500})
	var ends []int64
	n.Finished = func(_ int32, j Job) { ends = append(ends, n.Engine.Now()) }
	n.Start(small, 0, 0, 0)
	n.Start(large, 1, 0, 0)
	n.Start(large, 2, 0, 0)
	n.Engine.Run(engine.Never)
	// At 1000 the first and the third end; the second has 2000 left at full rate.
	require.Equal(t, []int64{1000, 1000, 3000}, ends)
	require.NoError(t, n.CheckLittle())
}

func TestForksWaitForTheirQuorum(t *testing.T) {
	for need, want := range map[int32]int64{1: 101, 2: 201, 3: 301} {
		n := NewNetwork(1, 0)
		row := n.Add(&Delay{})
		for range 2 {
			n.Add(&Delay{})
		}
		queue, err := NewServers(1)
		at := add(t, n, queue, err)
		child := program(t, n, Step{At: at, Amount: 100}, Step{At: row, By: ServerHost, Amount: 1})
		parent := program(t, n, Step{Fork: &Fork{Child: child, Count: 3, Need: need, Elsewhere: 3}})
		require.Equal(t, []int64{want}, finish(t, n, func() { n.Start(parent, 0, 0, 0) }))
		for i := range 3 {
			require.Equal(t, int64(1), n.Station(row+ID(i)).Arrived)
		}
	}
}

func TestProgramsThatCantBe(t *testing.T) {
	n := NewNetwork(1, 0)
	at := n.Add(&Delay{})
	for _, p := range []Program{
		{},
		{{At: at}},
		{{At: 7, Amount: 1}},
		{{At: at, Amount: -1}},
		{{At: at, Amount: 1, Skip: 1}},
		{{At: at, Amount: 1, Role: MaxRoles}},
		{{Fork: &Fork{Child: 3, Count: 1, Need: 1}}},
	} {
		_, err := n.Program(p)
		require.Error(t, err)
	}
	for _, err := range []error{
		second(NewServers(0)), second(NewSharing(0)), second(NewProcessors(Scheduling{})), second(NewLink(Wire{})),
		second(NewDisk(Drive{})), second(NewCache(0, 1)), second(NewDirty(0, 1)), second(Table(nil)), second(Table([]float64{-1})),
		second(NewFabric([]float64{-1}, nil)),
	} {
		require.Error(t, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestARunningNetworkAllocatesNothing(t *testing.T) {
	n := NewNetwork(1, 256)
	servers, _ := NewServers(2)
	sharing, _ := NewSharing(1)
	cores, _ := NewProcessors(Scheduling{Cores: 2, SliceNS: 300})
	link, _ := NewLink(Wire{BytesPerSecond: 1e9})
	disk, _ := NewDisk(Drive{Channels: 2, AccessNS: 100, BytesPerSecond: 1e9})
	var steps []Step
	for _, s := range []Station{servers, sharing, cores, link, disk, &Commit{}} {
		steps = append(steps, Step{At: n.Add(s), Amount: 100, Noise: Exponential, Wake: 10})
	}
	id := program(t, n, steps...)
	n.Finished = func(_ int32, j Job) { n.Start(id, j.Client, 0, 0) }
	for range 100 {
		n.Start(id, 0, 0, 0)
	}
	until := int64(1e7)
	n.Engine.Run(until)
	require.Zero(t, testing.AllocsPerRun(5, func() {
		until += 1e6
		n.Engine.Run(until)
	}))
}

// BenchmarkNetwork has 1,000 hosts with two processors and a link each, and 32,000
// jobs that go round between them.
func BenchmarkNetwork(b *testing.B) {
	const hosts, jobs = 1000, 32_000
	n := NewNetwork(1, jobs)
	var cores, links ID
	for i := range hosts {
		p, _ := NewProcessors(Scheduling{Cores: 2})
		if id := n.Add(p); i == 0 {
			cores = id
		}
	}
	for i := range hosts {
		l, _ := NewLink(Wire{BytesPerSecond: 1e9, LatencyNS: 1000})
		if id := n.Add(l); i == 0 {
			links = id
		}
	}
	id, err := n.Program(Program{
		{At: cores, By: ClientHost, Amount: 1000, Noise: Exponential}, {At: links, By: ClientHost, Amount: 100},
		{At: cores, By: ServerHost, Amount: 1000, Noise: Exponential}, {At: links, By: ServerHost, Amount: 1000}})
	if err != nil {
		b.Fatal(err)
	}
	n.Finished = func(_ int32, j Job) { n.Start(id, j.Client, n.Random.Int32N(hosts), 0) }
	for i := range int32(jobs) {
		n.Start(id, i%hosts, n.Random.Int32N(hosts), 0)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n.Engine.Handled() < uint64(b.N) {
		n.Engine.Run(n.Engine.Now() + 10_000)
	}
	b.ReportMetric(float64(n.Engine.Handled())/b.Elapsed().Seconds()/1e6, "Mevents/s")
	if err := n.CheckLittle(); err != nil {
		b.Fatal(err)
	}
}
