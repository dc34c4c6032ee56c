package copies

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	maxRoles            = 64 // MAX_ROLES in ledger.bpf.h
	maxCgroups          = 16 // MAX_CGROUPS
	maxCgroupDepth      = 32 // a guard against nonsense; the kernel has no fixed limit
	defaultMaxProcesses = 16384
)

// Options of a ledger.
type Options struct {
	Backend Backend
	// MaxProcesses is how many processes can be followed at one time; 0 stands for 16384.
	// Children beyond it are not counted, and show up in Losses.Processes.
	MaxProcesses int
}

// A Ledger counts the copies of processes and control groups, each under the name of a
// role. Nothing is pinned: when the process that opened it ends, however it ends, the
// kernel detaches everything. Its methods may be called from several goroutines.
type Ledger struct {
	backend  Backend
	reason   string
	programs []*ebpf.Program
	links    []link.Link
	boundary boundaryMaps
	sites    *siteCounter // nil with backend boundary

	mu      sync.Mutex
	roles   []string // by index
	cgroups boundaryCgroupTargets
}

// Open loads and attaches a ledger. Nothing is counted until a target is added.
func Open(o Options) (*Ledger, error) {
	backend, reason, err := choose(o.Backend)
	if err != nil {
		return nil, err
	}
	l := &Ledger{backend: backend, reason: reason}
	if err := l.open(o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Ledger) open(o Options) error {
	if err := l.attachBoundary(o); err != nil {
		return fmt.Errorf("open the copy ledger: %w", err)
	}
	if l.backend != Sites {
		return nil
	}
	if err := l.attachSites(); err != nil {
		return fmt.Errorf("open the copy ledger's backend sites: %w", err)
	}
	return nil
}

func (l *Ledger) attachBoundary(o Options) error {
	spec, err := loadBoundary()
	if err != nil {
		return fmt.Errorf("read the compiled programs: %w", err)
	}
	if spec.Maps["targets"].MaxEntries = defaultMaxProcesses; o.MaxProcesses > 0 {
		spec.Maps["targets"].MaxEntries = uint32(o.MaxProcesses)
	}
	tracepoints, err := adaptToKernel(spec)
	if err != nil {
		return err
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer collection.Close()
	if err := collection.Assign(&l.boundary); err != nil {
		return err
	}
	for name, tracepoint := range tracepoints {
		if err := l.attach(collection.DetachProgram(name), tracepoint); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) attach(program *ebpf.Program, tracepoint string) error {
	l.programs = append(l.programs, program)
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: program})
	if err != nil {
		return fmt.Errorf("attach to tracepoint %s: %w", tracepoint, err)
	}
	l.links = append(l.links, attached)
	return nil
}

// adaptToKernel removes what the running kernel does not have, and says which tracepoint
// each program belongs to.
func adaptToKernel(spec *ebpf.CollectionSpec) (map[string]string, error) {
	tracepoints := make(map[string]string)
	for name, program := range spec.Programs {
		tracepoints[name] = program.AttachTo
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	completion, err := tracepointParameters(kernel, "io_uring_complete")
	if errors.Is(err, btf.ErrNotFound) { // a kernel without io_uring
		for _, name := range []string{"account_completion", "remember_request"} {
			delete(spec.Programs, name)
			delete(tracepoints, name)
		}
		return tracepoints, nil
	}
	if err != nil {
		return nil, err
	}
	// (private, ring, request, completion) since 6.13; before, the completion's fields.
	if err := spec.Variables["completion_by_value"].Set(completion > 4); err != nil {
		return nil, err
	}
	if _, err := tracepointParameters(kernel, "io_uring_submit_req"); errors.Is(err, btf.ErrNotFound) {
		tracepoints["remember_request"] = "io_uring_submit_sqe" // until 6.3
	}
	return tracepoints, nil
}

// tracepointParameters is how many parameters the probe of a tracepoint takes.
func tracepointParameters(kernel *btf.Spec, tracepoint string) (int, error) {
	var definition *btf.Typedef
	if err := kernel.TypeByName("btf_trace_"+tracepoint, &definition); err != nil {
		return 0, fmt.Errorf("find tracepoint %s: %w", tracepoint, err)
	}
	pointer, ok := btf.UnderlyingType(definition).(*btf.Pointer)
	if !ok {
		return 0, fmt.Errorf("tracepoint %s has an unexpected type", tracepoint)
	}
	function, ok := btf.UnderlyingType(pointer.Target).(*btf.FuncProto)
	if !ok {
		return 0, fmt.Errorf("tracepoint %s has an unexpected type", tracepoint)
	}
	return len(function.Params), nil
}

// Backend is the one that counts, never Automatic.
func (l *Ledger) Backend() Backend { return l.backend }

// Reason says why this backend was chosen.
func (l *Ledger) Reason() string { return l.reason }

// Close detaches everything. Counts that were not taken with Snapshot are gone.
func (l *Ledger) Close() error {
	var errs []error
	for _, attached := range l.links {
		errs = append(errs, attached.Close())
	}
	for _, program := range l.programs {
		errs = append(errs, program.Close())
	}
	if l.sites != nil {
		errs = append(errs, l.sites.close())
	}
	errs = append(errs, l.boundary.Close())
	return errors.Join(errs...)
}

// roleIndex finds or makes the index of a role. The caller holds l.mu.
func (l *Ledger) roleIndex(role string) (uint16, error) {
	for i, name := range l.roles {
		if name == role {
			return uint16(i), nil
		}
	}
	if len(l.roles) == maxRoles {
		return 0, fmt.Errorf("add role %q to the copy ledger: it holds at most %d roles", role, maxRoles)
	}
	l.roles = append(l.roles, role)
	return uint16(len(l.roles) - 1), nil
}

// Start starts a command and counts it, with all its descendants, from the first
// instruction of its program on.
func (l *Ledger) Start(role string, command *exec.Cmd) error {
	l.mu.Lock()
	index, err := l.roleIndex(role)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	// The kernel hands the mark of a forking thread to its child, and counts the child
	// once it executes its program. So this goroutine must stay on its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := uint32(unix.Gettid())
	if err := l.boundary.Starters.Put(thread, boundaryTarget{Role: index, WaitsForExec: 1}); err != nil {
		return fmt.Errorf("mark the thread that starts %s: %w", command.Path, err)
	}
	startErr := command.Start()
	if err := l.boundary.Starters.Delete(thread); err != nil {
		return errors.Join(startErr, fmt.Errorf("unmark the thread that started %s: %w", command.Path, err))
	}
	return startErr
}
