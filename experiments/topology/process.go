package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"waggle/bpf/congestion"
	"waggle/dfs/datapath"
)

// Command is a role to start.
type Command struct {
	Role string   // a role is "meta", "chunk", "client" or "floor"
	Name string   // of this process, unique in the run: "chunk-1"
	Args []string // the program and its arguments
	Env  []string // added to ours
	Log  string   // file that standard error, and output if not wanted, is added to
	// Pipes asks for the process's standard input and output.
	Pipes bool
	// Congestion, if not "", is the congestion control that a program on the
	// process's control group gives each of its TCP sockets. It is for programs
	// that can't be asked to set it themselves.
	Congestion string
}

// Process is a role that runs.
type Process struct {
	Role, Name string
	// Input and Output are set if Command.Pipes was.
	Input  io.WriteCloser
	Output io.Reader

	cmd    *exec.Cmd
	host   *Host
	cgroup string
	// congestion is the program that Command.Congestion asked for, or nil.
	congestion *congestion.Attached
	done       chan struct{}
	err        error
}

// Start starts a role on the host. It is killed if the host or this process
// ends before it.
func (h *Host) Start(c Command) (*Process, error) {
	p := &Process{Role: c.Role, Name: c.Name, host: h, done: make(chan struct{})}
	p.cmd = exec.Command(c.Args[0], c.Args[1:]...)
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // Ctrl-C at the terminal is for us, and we stop roles in order
		Pdeathsig: syscall.SIGKILL,
	}
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", c.Name, err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.start(h, c); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Name, err), p.detach())
	}
	go p.wait()
	return p, nil
}

func (p *Process) start(h *Host, c Command) (err error) {
	if c.Pipes {
		p.cmd.Stdout = nil
		if p.Input, err = p.cmd.StdinPipe(); err != nil {
			return err
		}
		// Not exec's own pipe: that is closed when the process ends, with what
		// it last said still in it.
		out, in, err := os.Pipe()
		if err != nil {
			return err
		}
		defer in.Close()
		p.Output, p.cmd.Stdout = out, in
	}
	if h.owner.cgroup != "" {
		p.cgroup = filepath.Join(h.owner.cgroup, c.Name)
		if err := os.Mkdir(p.cgroup, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make its cgroup: %w", err)
		}
		dir, err := os.Open(p.cgroup)
		if err != nil {
			return fmt.Errorf("open its cgroup: %w", err)
		}
		defer dir.Close()
		p.cmd.SysProcAttr.UseCgroupFD, p.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := p.setCongestion(c.Congestion); err != nil {
		return err
	}
	return onThread(h.thread, p.cmd.Start)
}

// setCongestion attaches the program that gives the process's sockets a congestion
// control, if one is asked for.
func (p *Process) setCongestion(name string) (err error) {
	if name == "" {
		return nil
	}
	if p.cgroup == "" {
		return fmt.Errorf("set congestion control %s from outside: %w: the process has no control group of its own", name, datapath.ErrUnsupported)
	}
	p.congestion, err = congestion.Attach(p.cgroup, name)
	return err
}

func (p *Process) detach() error {
	if p.congestion == nil {
		return nil
	}
	return p.congestion.Close()
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Cgroup is the directory of the process's own cgroup, or "".
func (p *Process) Cgroup() string { return p.cgroup }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended says how the process ended, or nil while it runs.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s", p.Name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// Stop asks the process to end, kills it if ctx ends first, and waits for it.
func (p *Process) Stop(ctx context.Context) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if out, ok := p.Output.(*os.File); ok {
		out.Close()
	}
	_ = p.detach() // goes with the control group if it fails
	if p.cgroup != "" {
		_ = os.Remove(p.cgroup) // Owner.Close removes it otherwise
	}
}

// CPU is the processor time the process has used, all its threads included:
// from its cgroup to the microsecond, or without one from /proc/PID/stat to the
// hundredth of a second.
func (p *Process) CPU() (time.Duration, error) {
	if p.cgroup != "" {
		return cgroupCPU(p.cgroup)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", p.Name, err)
	}
	return parseProcessCPU(string(stat))
}

// userHZ is the unit of processor time in /proc: on Linux always 1/100 s.
const userHZ = 100

// parseProcessCPU adds the user and system time of a /proc/PID/stat.
func parseProcessCPU(stat string) (time.Duration, error) {
	// The second field is the program's name in parentheses, and may hold both.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat has %d fields behind the name, expected 50", len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}
