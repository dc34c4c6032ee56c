package copies

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Backend is a way of counting. The zero value chooses one.
type Backend string

const (
	// Automatic is Sites where it works, because it counts more, else Boundary.
	Automatic Backend = "auto"
	// Boundary counts what crosses between user space and the kernel, from tracepoints.
	Boundary Backend = "boundary"
	// Sites also counts at the kernel's copying functions, with programs at their return.
	Sites Backend = "sites"
)

// An UnsupportedError says why a backend can't run here, and what would help.
type UnsupportedError struct {
	Backend Backend
	Reason  string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("counting copies with backend %s is not supported here: %s", e.Backend, e.Reason)
}

// Supported returns nil if a backend works for this process on this machine, else an
// *[UnsupportedError]. It tries for real: it loads and attaches the programs, then removes them.
func Supported(b Backend) error {
	l, err := Open(Options{Backend: b})
	if err != nil {
		return err
	}
	return l.Close()
}

// choose turns Automatic into a backend, and says why.
func choose(wanted Backend) (Backend, string, error) {
	switch wanted {
	case Boundary, Sites:
		return wanted, "asked for", preconditions(wanted)
	case Automatic, "":
		if err := functionsTraceable(); err != nil {
			return Boundary, "automatic: " + err.Error(), preconditions(Boundary)
		}
		return Sites, "automatic: the kernel's functions can be traced", preconditions(Sites)
	}
	return "", "", fmt.Errorf("unknown backend %q: choose %s, %s or %s", wanted, Automatic, Boundary, Sites)
}

func preconditions(b Backend) error {
	checks := []func() error{registersKnown, initialProcessNamespace, rights, kernelTypes}
	if b == Sites {
		checks = append(checks, functionsTraceable)
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return &UnsupportedError{b, err.Error()}
		}
	}
	return nil
}

func registersKnown() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("it reads system call arguments from the registers of x86-64, this is %s", runtime.GOARCH)
	}
	return nil
}

// The inode number of the initial namespace is part of the kernel's ABI (PROC_PID_INIT_INO).
const initialProcessNamespaceLink = "pid:[4026531836]"

func initialProcessNamespace() error {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("which process namespace this is can't be read: %w", err)
	}
	if link != initialProcessNamespaceLink {
		return errors.New("process numbers differ inside a process namespace: run outside of the container, or with the host's (docker run --pid=host)")
	}
	return nil
}

var neededCapabilities = map[int]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON"}

func rights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	has := func(capability int) bool { return data[capability/32].Effective&(1<<(capability%32)) != 0 }
	if has(unix.CAP_SYS_ADMIN) {
		return nil
	}
	var missing []string
	for _, capability := range []int{unix.CAP_BPF, unix.CAP_PERFMON} {
		if !has(capability) {
			missing = append(missing, neededCapabilities[capability])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("it needs %s: run as root, or once: sudo setcap cap_bpf,cap_perfmon+ep %s",
			strings.Join(missing, " and "), executable())
	}
	return nil
}

func executable() string {
	path, err := os.Executable()
	if err != nil {
		return "THE_PROGRAM"
	}
	return path
}

func kernelTypes() error {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("the kernel's type information (CONFIG_DEBUG_INFO_BTF) can't be read: %w", err)
	}
	return nil
}

// functionsTraceable finds out whether programs can be attached to the kernel's functions. The
// kernel's error is of no help: EPERM, EINVAL, ENOTSUPP or EBUSY, and no reason.
func functionsTraceable() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "pskb_expand_head", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err == nil {
		var attached link.Link
		if attached, err = link.AttachTracing(link.TracingOptions{Program: program}); err == nil {
			err = attached.Close()
		}
		err = errors.Join(err, program.Close())
	}
	if err != nil {
		return errors.New("this kernel lets no program attach to its functions (fexit)")
	}
	return nil
}
