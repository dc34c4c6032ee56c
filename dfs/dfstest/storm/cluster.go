package storm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

const (
	chunkServers = 3
	clients      = 3
	// Numbers of hosts in their network; the clients of the storm itself are 1.
	metaHost    = 2
	chunkHost   = 10
	clientAlias = 100
)

// cluster is a metadata server and chunk servers on machines of their own.
type cluster struct {
	network *network
	meta    *machine
	chunks  []*machine
	mu      sync.Mutex // held while a machine is started or ended
	// watcher is a client that no fault meets.
	watcher *client.Client
}

// newCluster makes a cluster, which must be closed.
func newCluster(number int, disks *disks, logs string) (*cluster, error) {
	n, err := newNetwork(number)
	if err != nil {
		return nil, err
	}
	c := &cluster{network: n}
	addresses := []int{metaHost}
	for i := range clients {
		addresses = append(addresses, clientAlias+i)
	}
	if c.meta, err = c.newMachine(disks, logs, "meta", addresses...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	for i := range chunkServers {
		m, err := c.newMachine(disks, logs, fmt.Sprint("chunk-", i), chunkHost+i)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		m.role.Meta = c.meta.address().String() + ":" + metaPort
		c.chunks = append(c.chunks, m)
	}
	for _, m := range c.machines() {
		if err := m.start(); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if c.watcher, err = c.dial(metaHost); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cluster) newMachine(disks *disks, logs, name string, addresses ...int) (*machine, error) {
	h, err := c.network.newHost(addresses...)
	if err != nil {
		return nil, fmt.Errorf("make a host for %s: %w", name, err)
	}
	if h.disk, err = disks.newDisk(); err != nil {
		return nil, fmt.Errorf("make a disk for %s: %w", name, err)
	}
	return &machine{host: h, name: name, logs: filepath.Join(logs, fmt.Sprintf("%d-%s.log", c.network.number, name)),
		role: role{Directory: filepath.Join(h.disk.mounted, "waggle"), Address: h.address().String()}}, nil
}

// machines are all of them, the metadata server first.
func (c *cluster) machines() []*machine { return append([]*machine{c.meta}, c.chunks...) }

// dial makes a client that reaches the metadata server at one of its addresses.
func (c *cluster) dial(address int) (*client.Client, error) {
	return client.Dial(context.Background(), c.network.address(address).String()+":"+metaPort, client.Options{
		Name: fmt.Sprint("storm-", address), ChunkSize: wire.MinChunkSize, Patience: 4 * time.Second, LeaseWait: 2 * time.Second, LeaseIdle: 100 * time.Millisecond, DialPatience: 30 * time.Second,
	})
}

// each does something to several machines at once.
func each(machines []*machine, do func(*machine) error) error {
	var all errgroup.Group
	for _, m := range machines {
		all.Go(func() error {
			if err := do(m); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			return nil
		})
	}
	return all.Wait()
}

// heal ends all faults.
func (c *cluster) heal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.healNetwork()
	return errors.Join(err, each(c.machines(), (*machine).revive))
}

func (c *cluster) close() error {
	var failed error
	if c.watcher != nil {
		failed = c.watcher.Close()
	}
	for _, h := range c.network.hosts {
		for _, in := range []interface{ Close() error }{h.to, h.from} {
			failed = errors.Join(failed, in.Close())
		}
	}
	for _, m := range c.machines() {
		if m != nil {
			m.kill()
			failed = errors.Join(failed, m.disk.unmount(), os.Remove(m.disk.backing), m.namespace.Close())
		}
	}
	return failed
}
