// Package storm tries a cluster as the world would: clients use it while links
// lose packets or are cut, processes are paused and killed, disks fill up and
// fail, and machines lose power. All of a storm's faults follow from a seed.
//
// What is judged does not depend on time: a cell of a file that is read holds the
// last acknowledged write or one that was under way (cells.go); what was
// acknowledged and, where power was lost, synced is there at the end; the
// namespace's history is linearizable (names.go). When all is healed the check of
// the file system is clean and the replicas are the same, byte by byte.
//
// How it works, by file: disk.go makes disks that can lose power, fill up and
// fail; hosts.go makes machines and the network between them; roles.go runs the
// servers on them, as processes; cluster.go puts a cluster together; plan.go
// draws the faults of a storm; load.go, cells.go and names.go are the clients and
// what is known of what they did; this file carries a storm out.
//
// All of this is in mount and network namespaces of a process of its own, and goes
// with it, however it ends.
package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/wire/control"
)

// storm is one storm over a cluster.
type storm struct {
	*load
	plan  *plan
	begun time.Time // from when on the plan's events happen
}

// String is the plan, by the clock of what the clients did.
func (s *storm) String() string {
	return fmt.Sprintf("%s\nbegun at %s ms", s.plan, ms(s.begun.Sub(s.clock.began).Nanoseconds()))
}

// healTime bounds how long a cluster may take to be well again. It is no
// judgement of speed: a cluster that is not well by then never will be.
var healTime = time.Minute

// run carries out a storm. What the file system did wrong is then in its list; the
// error is about what could not be carried out.
func (c *cluster) run(p *plan) (*storm, error) {
	s := &storm{load: newLoad(c, p.seed), plan: p}
	ctx := context.Background()
	if err := c.awaitAlive(ctx); err != nil {
		return s, fmt.Errorf("before the storm: %w", err)
	}
	if err := s.prepare(ctx); err != nil {
		return s, fmt.Errorf("prepare: %w", err)
	}
	s.begun = time.Now()
	closeClients, err := s.blow()
	defer closeClients()
	if err != nil {
		return s, err
	}
	if err := c.awaitAlive(ctx); err != nil {
		return s, fmt.Errorf("after the storm: %w", err)
	}
	s.verify(ctx)
	closeClients()
	if err := s.awaitClean(ctx); err != nil {
		s.fault("%v", err)
	}
	s.history.judge()
	if len(s.wrong) > 0 {
		return s, nil
	}
	if err := c.watcher.RemoveAll(ctx, s.directory); err != nil {
		s.fault("remove everything: %v", err)
	}
	return s, nil
}

// blow has the clients work while the faults happen. They stay, and hold nothing
// open any more, until they are closed.
func (s *storm) blow() (closeClients func(), err error) {
	working, stop := context.WithCancel(context.Background())
	defer stop()
	var all sync.WaitGroup
	var dialled []*client.Client
	closeClients = sync.OnceFunc(func() {
		for _, c := range dialled {
			_ = c.Close()
		}
	})
	for i := range clients {
		c, err := s.cluster.dial(clientAlias + i)
		if err != nil {
			return closeClients, err
		}
		dialled = append(dialled, c)
		u := &user{load: s.load, client: c, random: rand.New(rand.NewPCG(s.seed, uint64(1+i))), number: i}
		all.Go(func() { u.run(working) })
		n := &namer{namespaceHistory: s.history, client: c, random: rand.New(rand.NewPCG(s.seed, uint64(100+i))), number: s.history.newClient()}
		all.Go(func() { n.run(working) })
	}
	err = errors.Join(s.happen(), s.cluster.heal())
	stop()
	all.Wait()
	return closeClients, err
}

// happen has the plan's events happen.
func (s *storm) happen() error {
	for _, e := range s.plan.events {
		time.Sleep(time.Until(s.begun.Add(e.after)))
		if err := e.do(s); err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
	}
	return nil
}

func (s *storm) machines(numbers []int) (list []*machine) {
	for _, n := range numbers {
		list = append(list, s.cluster.machines()[n])
	}
	return list
}

// losePower takes the power of machines at one moment. They stay off.
func (s *storm) losePower(victims []int, scatter uint64) error {
	list := s.machines(victims)
	random := rand.New(rand.NewPCG(scatter, 0))
	for _, m := range list {
		if err := m.disk.scatter(random); err != nil {
			return err
		}
	}
	err := each(list, func(m *machine) error {
		m.kill()
		return m.disk.losePower()
	})
	s.loseUnsynced()
	return err
}

// loseUnsynced tells the model that what was not synced may be lost, where the
// other machines need not have it.
func (s *storm) loseUnsynced() {
	if s.plan.lossy {
		for _, file := range s.files {
			file.lose()
		}
	}
}

// healNetwork ends all that is wrong with the network.
func (c *cluster) healNetwork() error {
	var failed error
	for _, h := range c.network.hosts {
		failed = errors.Join(failed, h.to.ClearAll(), h.from.ClearAll())
	}
	return failed
}

// awaitAlive waits until all chunk servers are.
func (c *cluster) awaitAlive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	for {
		state, err := c.watcher.Cluster(ctx)
		alive := 0
		for _, s := range state.GetServers() {
			if s.Alive {
				alive++
			}
		}
		if err == nil && alive >= chunkServers {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d chunk servers are alive (%w)", alive, chunkServers, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// awaitClean waits until the check finds nothing and the replicas are the same.
func (s *storm) awaitClean(ctx context.Context) error {
	var problems []string
	for end := time.Now().Add(healTime); ; {
		// A metadata server that is killed while a chunk is made can leave an empty
		// replica that nobody references: KNOWN_ISSUES. It takes room, holds nothing that
		// was acknowledged, and goes with fsck --repair.
		repair := time.Until(end) < healTime/2 && onlyOrphans(problems)
		problems = nil
		err := s.cluster.watcher.Check(ctx, &control.CheckRequest{Replicas: true, Data: true, Repair: repair}, func(p *control.CheckProgress) {
			if p.Problem != "" {
				problems = append(problems, p.Problem)
			}
		})
		if err != nil {
			problems = append(problems, err.Error())
		}
		if len(problems) == 0 {
			problems, err = s.differences(ctx)
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
		if len(problems) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the check does not come clean: %s", strings.Join(problems, "; "))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// onlyOrphans reports whether all problems are replicas that nobody references.
func onlyOrphans(problems []string) bool {
	return len(problems) > 0 && !slices.ContainsFunc(problems, func(p string) bool { return !strings.Contains(p, "that nobody references") })
}

// differences compares the replicas of the storm's files without the file
// system's help.
func (s *storm) differences(ctx context.Context) (problems []string, err error) {
	names := []string{s.log()}
	for i := range s.files {
		names = append(names, s.shared(i))
	}
	for name := range s.load.made {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		chunks, err := s.cluster.watcher.Chunks(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, chunk := range chunks {
			if chunk.ID == 0 {
				continue
			}
			if problem := s.compare(chunk); problem != "" {
				problems = append(problems, fmt.Sprintf("%s: %s", name, problem))
			}
		}
	}
	return problems, nil
}

// compare reads a chunk's replicas from the servers' disks.
func (s *storm) compare(chunk client.Chunk) string {
	var first []byte
	for _, address := range chunk.Replicas {
		i := slices.IndexFunc(s.cluster.chunks, func(m *machine) bool { return m.dataAddress() == address })
		if i < 0 {
			return fmt.Sprintf("chunk %d is said to be at %s, where no server is", chunk.ID, address)
		}
		matches, err := filepath.Glob(filepath.Join(s.cluster.chunks[i].replicas(), "*", fmt.Sprintf("%016x.data", chunk.ID)))
		if err != nil || len(matches) != 1 {
			return fmt.Sprintf("chunk %d has %d data files on %s (%v)", chunk.ID, len(matches), s.cluster.chunks[i].name, err)
		}
		data, err := os.ReadFile(matches[0])
		if err != nil {
			return err.Error()
		}
		if first == nil {
			first = data
		} else if difference := difference(data, first); difference != "the same" {
			return fmt.Sprintf("chunk %d on %s: %s, another replica has %d bytes", chunk.ID, s.cluster.chunks[i].name, difference, len(first))
		}
	}
	return ""
}
