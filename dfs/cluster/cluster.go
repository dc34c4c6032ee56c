// Package cluster runs a whole cluster on one machine: a metadata server and
// chunk servers as child processes, which end with their parent however it ends.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/client"
)

const (
	readyTime = 60 * time.Second // for all servers to have registered
	stopTime  = 10 * time.Second // for a role to end by itself
)

// Config says what cluster to run. All fields but Advertise and Metrics must be set.
type Config struct {
	Program      string // has the subcommands meta and chunk
	Directory    string // made if it does not exist
	Meta         string // address of the metadata server, "ip:port"
	ChunkServers int
	// Advertise is the IP address that others reach this machine at, if Meta is the
	// unspecified address; default: that of the machine's route to others.
	Advertise string
	// Metrics is where the metadata server's metrics are, "host:port"; those of the
	// chunk servers are on the ports behind. Empty for nowhere.
	Metrics string
	Output  io.Writer // what the roles have to say
	Ready   func()    // called once everything can be used
}

// metricsAddress is where a role serves its metrics; the metadata server is role
// 0.
func (c *Config) metricsAddress(role int) (string, error) {
	if c.Metrics == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(c.Metrics)
	first, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || first == 0 || first+uint64(role) > math.MaxUint16 {
		return "", fmt.Errorf("serve metrics on %q: give HOST:PORT, or :PORT for this machine only, with a free port for each of %d roles from there on",
			c.Metrics, 1+c.ChunkServers)
	}
	return net.JoinHostPort(host, strconv.FormatUint(first+uint64(role), 10)), nil
}

// Run runs the cluster until ctx ends, which is no error, or a role does.
func Run(ctx context.Context, config Config) error {
	if _, err := config.metricsAddress(config.ChunkServers); err != nil {
		return err
	}
	unlock, err := lock(config.Directory)
	if err != nil {
		return err
	}
	defer unlock()
	if err := checkFree(config.Meta); err != nil {
		return err
	}
	// The kernel signals a child when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	roles := &roles{config: config, ended: make(chan error, config.ChunkServers+1)}
	return errors.Join(roles.run(ctx), roles.stop())
}

// lock makes the directory and takes it for this process.
func lock(directory string) (unlock func(), err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("make the cluster's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(directory, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cluster's directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("a cluster runs on %s already: use it, stop it, or choose another directory", directory)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// checkFree says in one line what would otherwise be a role's failure.
func checkFree(address string) error {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("something listens on %s already: use that cluster, stop it, or choose another address", address)
	}
	if err != nil {
		return fmt.Errorf("listen on %q: %w", address, err)
	}
	return l.Close()
}

// roles are the processes of a cluster, the metadata server first.
type roles struct {
	config    Config
	processes []*exec.Cmd
	ended     chan error // one value for each process
	waiting   int        // processes that have not ended
}

// launch starts a role that keeps its data in a directory of its name.
func (r *roles) launch(name string, args ...string) error {
	directory := filepath.Join(r.config.Directory, name)
	if err := os.Mkdir(directory, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a directory for %s: %w", name, err)
	}
	metrics, err := r.config.metricsAddress(len(r.processes))
	if err != nil {
		return err
	}
	// The address of the metrics is given even if it is empty: the environment may
	// name one, which is not for every role.
	cmd := exec.Command(r.config.Program, append(args, "--dir", directory, "--metrics-address", metrics)...)
	cmd.Stderr = r.config.Output
	// In a group of its own a role does not get the terminal's Ctrl-C, so that
	// roles are stopped in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	r.processes = append(r.processes, cmd)
	r.waiting++
	go func() {
		cmd.Wait()
		r.ended <- fmt.Errorf("%s ended: %s", name, cmd.ProcessState)
	}()
	return nil
}

// run starts the roles and waits until ctx or a role ends.
func (r *roles) run(ctx context.Context) error {
	addresses, err := r.config.chunkAddresses()
	if err != nil {
		return err
	}
	if err := r.launch("meta", "meta", "--address", r.config.Meta); err != nil {
		return err
	}
	var c *client.Client
	err = r.await(ctx, func(ctx context.Context) (err error) {
		c, err = client.Dial(ctx, r.config.Meta, client.Options{Name: "waggle up", DialPatience: readyTime})
		return err
	})
	if c != nil {
		defer c.Close()
	}
	if err == nil {
		err = r.runChunkServers(ctx, c, addresses)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// runChunkServers starts the chunk servers and waits until ctx or a role ends.
func (r *roles) runChunkServers(ctx context.Context, c *client.Client, addresses []string) error {
	for i := range r.config.ChunkServers {
		args := append([]string{"chunk", "--meta", r.config.Meta}, addresses...)
		if err := r.launch(fmt.Sprintf("chunk-%d", i+1), args...); err != nil {
			return err
		}
	}
	err := r.await(ctx, func(ctx context.Context) error { return awaitAlive(ctx, c, r.config.ChunkServers) })
	if err != nil {
		return err
	}
	r.config.Ready()
	return r.await(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
}

// await returns what do returns, or why a role has ended before that.
func (r *roles) await(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	select {
	case err := <-done:
		return err
	case err := <-r.ended:
		r.waiting--
		cancel()
		<-done
		return err
	}
}

// awaitAlive waits until so many chunk servers are alive.
func awaitAlive(ctx context.Context, c *client.Client, count int) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		state, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		alive := 0
		for _, server := range state.Servers {
			if server.Alive {
				alive++
			}
		}
		if alive >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d chunk servers have registered", alive, count)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the roles, chunk servers first, and waits for them.
func (r *roles) stop() error {
	for i := len(r.processes) - 1; i >= 0; i-- {
		r.processes[i].Process.Signal(syscall.SIGTERM) // fails if it has ended
	}
	patience := time.NewTimer(stopTime)
	defer patience.Stop()
	for r.waiting > 0 {
		select {
		case <-r.ended:
			r.waiting--
		case <-patience.C:
			for _, p := range r.processes {
				p.Process.Kill()
			}
			for ; r.waiting > 0; r.waiting-- {
				<-r.ended
			}
			return fmt.Errorf("roles did not end within %v and were killed", stopTime)
		}
	}
	return nil
}
