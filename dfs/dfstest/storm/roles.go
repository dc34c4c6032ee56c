package storm

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/chunk"
	"waggle/dfs/meta"
)

// roleVariable makes this program a role.
const roleVariable = "WAGGLE_STORM_ROLE"

// role is what a process is told to be.
type role struct {
	Directory string
	Address   string // IP address of its host
	Meta      string // address of the metadata server, for a chunk server
}

// Times of a cluster in which storms are short: what takes seconds elsewhere
// takes a tenth of it.
const (
	heartbeat   = 50 * time.Millisecond
	deadAfter   = 400 * time.Millisecond
	repairDelay = 600 * time.Millisecond
	sessionTime = 600 * time.Millisecond
	peerTimeout = 500 * time.Millisecond
)

const (
	metaPort = "9430"
	dataPort = "9440"
)

// ServeRole serves a role until it is killed, if this process was started as
// one. A test's TestMain calls it first.
func ServeRole() {
	text := os.Getenv(roleVariable)
	if text == "" {
		return
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = r.serve()
	}
	fmt.Fprintf(os.Stderr, "role %s: %v\n", text, err)
	os.Exit(1)
}

func (r *role) serve() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if r.Meta == "" {
		server, err := meta.Open(context.Background(), meta.Config{
			// Clients have an address each to ask at, so that each can be cut off alone.
			Directory: r.Directory, Control: "0.0.0.0:" + metaPort, Lookup: r.Address + ":" + metaPort, Log: log, CacheBytes: 16 << 20,
			Heartbeat: heartbeat, DeadAfter: deadAfter, RepairDelay: repairDelay, RepairsPerSecond: 10_000, SessionTime: sessionTime,
		})
		if err != nil {
			return err
		}
		return server.Serve(context.Background())
	}
	server, err := chunk.New(chunk.Config{Directory: r.Directory, Meta: r.Meta, Log: log, PeerTimeout: peerTimeout,
		DataAddress: r.Address + ":" + dataPort, ControlAddress: r.Address + ":0"})
	if err != nil {
		return err
	}
	return server.Serve(context.Background())
}

// machine is a host with a role.
type machine struct {
	*host
	name    string
	role    role
	logs    string // file that the role writes its log to
	process *exec.Cmd
	stopped bool // by SIGSTOP
}

func (m *machine) start() error {
	encoded, err := json.Marshal(m.role)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.process = exec.Command(os.Args[0])
	m.process.Env = append(os.Environ(), roleVariable+"="+string(encoded))
	m.process.Stdout, m.process.Stderr = log, log
	if err := m.host.start(m.process); err != nil {
		return fmt.Errorf("start %s: %w", m.name, err)
	}
	return nil
}

func (m *machine) kill() {
	if m.process != nil {
		_ = m.process.Process.Kill() // also one that is stopped
		_ = m.process.Wait()
		m.process, m.stopped = nil, false
	}
}

func (m *machine) pause() {
	if m.process != nil {
		_ = m.process.Process.Signal(unix.SIGSTOP)
		m.stopped = true
	}
}

func (m *machine) resume() {
	if m.process != nil {
		_ = m.process.Process.Signal(unix.SIGCONT)
		m.stopped = false
	}
}

// revive starts the role again, if it does not run, on a disk that is well.
func (m *machine) revive() error {
	if m.disk.failing {
		m.kill()
		if err := m.disk.remount(); err != nil {
			return err
		}
	}
	if m.disk.ballast {
		if err := m.disk.unfill(); err != nil {
			return err
		}
	}
	switch {
	case m.process == nil:
		return m.start()
	case m.stopped:
		m.resume()
	}
	return nil
}

func (m *machine) dataAddress() string { return m.role.Address + ":" + dataPort }

// replicas is where a chunk server's are, by the design of package replica.
func (m *machine) replicas() string { return filepath.Join(m.role.Directory, "replicas") }
