package copies

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// A Site is one way into a kernel function that copies.
type Site struct {
	Function  string
	Direction Direction
	Callers   string // the functions above it, nearest first, joined by " < "
}

// SiteCount is what a site copied. Laid out as struct site_count in sites.bpf.c.
type SiteCount struct {
	Calls uint64
	Bytes uint64
}

func (c *SiteCount) add(o SiteCount) {
	c.Calls += o.Calls
	c.Bytes += o.Bytes
}

func (c SiteCount) minus(o SiteCount) SiteCount {
	return SiteCount{c.Calls - o.Calls, c.Bytes - o.Bytes}
}

// siteCounter is the kernel side of backend sites.
type siteCounter struct {
	counts    *ebpf.Map
	stacks    *ebpf.Map
	functions []string // by the number that the kernel knows them by
	programs  []*ebpf.Program
	links     []link.Link
	symbols   kernelSymbols    // read when first needed
	callers   map[int32]string // by stack number, which stays what it is
}

func (l *Ledger) attachSites() error {
	s := &siteCounter{callers: make(map[int32]string)}
	l.sites = s
	spec, err := loadSites()
	if err != nil {
		return fmt.Errorf("read the compiled programs: %w", err)
	}
	spec.Maps["targets"].MaxEntries = l.boundary.Targets.MaxEntries()
	if err := removeAbsentFunctions(spec); err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{"targets": l.boundary.Targets, "cgroups": l.boundary.Cgroups, "lost": l.boundary.Lost}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer collection.Close()
	s.counts, s.stacks = collection.DetachMap("site_counts"), collection.DetachMap("stacks")
	for name, program := range spec.Programs {
		if err := s.attach(program, collection.DetachProgram(name)); err != nil {
			return err
		}
	}
	return nil
}

// removeAbsentFunctions drops the programs for functions that this kernel does not have,
// because they came, went, or were inlined.
func removeAbsentFunctions(spec *ebpf.CollectionSpec) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	for name, program := range spec.Programs {
		var function *btf.Func
		err := kernel.TypeByName(program.AttachTo, &function)
		if errors.Is(err, btf.ErrNotFound) {
			delete(spec.Programs, name)
		} else if err != nil {
			return fmt.Errorf("find the kernel's function %s: %w", program.AttachTo, err)
		}
	}
	return nil
}

func (s *siteCounter) attach(spec *ebpf.ProgramSpec, program *ebpf.Program) error {
	number := uint64(len(s.functions))
	s.functions = append(s.functions, spec.AttachTo)
	s.programs = append(s.programs, program)
	attached, err := link.AttachTracing(link.TracingOptions{
		Program: program, AttachType: spec.AttachType, Cookie: number,
	})
	if err != nil {
		return fmt.Errorf("attach to the kernel's function %s: %w", spec.AttachTo, err)
	}
	s.links = append(s.links, attached)
	return nil
}

func (s *siteCounter) close() error {
	var errs []error
	for _, attached := range s.links {
		errs = append(errs, attached.Close())
	}
	for _, program := range s.programs {
		errs = append(errs, program.Close())
	}
	return errors.Join(append(errs, s.counts.Close(), s.stacks.Close())...)
}

func (s *siteCounter) read(roles []Counts) error {
	for i := range roles {
		roles[i].Sites = make(map[Site]SiteCount)
	}
	var key sitesSiteKey
	var perCPU []SiteCount
	entries := s.counts.Iterate()
	for entries.Next(&key, &perCPU) {
		if int(key.Role) >= len(roles) || int(key.Site) >= len(s.functions) {
			return fmt.Errorf("an entry names role %d and site %d", key.Role, key.Site)
		}
		callers, err := s.callersOf(key.Stack, s.functions[key.Site])
		if err != nil {
			return err
		}
		site := Site{s.functions[key.Site], Direction(key.Direction), callers}
		sum := roles[key.Role].Sites[site]
		for _, count := range perCPU {
			sum.add(count)
		}
		roles[key.Role].Sites[site] = sum
	}
	return entries.Err()
}

const (
	stackDepth   = 12 // STACK_DEPTH in sites.bpf.c
	callersShown = 4
)

// callersOf names the functions above a copy function. A stack that the kernel could not
// store has a negative number.
func (s *siteCounter) callersOf(stack int32, function string) (string, error) {
	if stack < 0 {
		return "unknown", nil
	}
	if callers, ok := s.callers[stack]; ok {
		return callers, nil
	}
	var addresses [stackDepth]uint64
	if err := s.stacks.Lookup(uint32(stack), &addresses); err != nil {
		return "", fmt.Errorf("read a call stack: %w", err)
	}
	if s.symbols == nil {
		symbols, err := readKernelSymbols()
		if err != nil {
			return "", err
		}
		s.symbols = symbols
	}
	var names []string
	for _, address := range addresses {
		if address == 0 || len(names) == callersShown {
			break
		}
		if name := s.symbols.nameOf(address); name != function && !strings.HasPrefix(name, "bpf_") {
			names = append(names, name)
		}
	}
	s.callers[stack] = strings.Join(names, " < ")
	return s.callers[stack], nil
}
