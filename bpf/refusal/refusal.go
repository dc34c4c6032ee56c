// Package refusal says, as data, why a machine can't do what a package of bpf
// offers: which feature it is about, from which kernel on there is one, which
// rights it takes, and which of these is missing here.
//
// There are three answers to "can this machine do it?": nil for yes; an *[Error]
// whose Reason is OldKernel, NoRight or Refused for no; and one whose Reason is
// Unknown where it could not be found out, such as for lack of memory. Whoever
// skips a test must take the second for a skip and no other: see refusaltest.
package refusal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Reason is why something can't be done.
type Reason string

// The reasons.
const (
	OldKernel Reason = "kernel too old"
	NoRight   Reason = "missing right"
	// Refused: the kernel is new enough and the rights are there, and it says no
	// all the same: not built in, or not allowed on this machine.
	Refused Reason = "refused by this kernel"
	// Unknown: it could not be found out.
	Unknown Reason = "could not find out"
)

// Version is a kernel's version; the zero Version is older than any.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("Linux %d.%d", v.Major, v.Minor) }

// Before reports whether a version is older than another.
func (v Version) Before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// Capability is a right by its number (capabilities(7)).
type Capability uint

// The capabilities that packages of bpf ask for.
const (
	NetAdmin Capability = unix.CAP_NET_ADMIN
	NetRaw   Capability = unix.CAP_NET_RAW
	SysAdmin Capability = unix.CAP_SYS_ADMIN
	BPF      Capability = unix.CAP_BPF
	Perfmon  Capability = unix.CAP_PERFMON
)

var names = map[Capability]string{
	NetAdmin: "CAP_NET_ADMIN", NetRaw: "CAP_NET_RAW", SysAdmin: "CAP_SYS_ADMIN", BPF: "CAP_BPF", Perfmon: "CAP_PERFMON",
}

func (c Capability) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return "capability " + strconv.Itoa(int(c))
}

// Feature is something that a machine may or may not be able to do.
type Feature struct {
	// Name is for people, such as "sockmap relay".
	Name string
	// Since is the first kernel that has all the feature needs.
	Since Version
	// Needs are the rights that it takes.
	Needs []Capability
}

// Error says why a machine can't do something.
type Error struct {
	Feature Feature
	Reason  Reason
	// Kernel is the running one.
	Kernel Version
	// Missing are the rights that this process lacks of those that are needed.
	Missing []Capability
	// Cause is what the kernel said.
	Cause error
}

func (e *Error) Error() string {
	switch e.Reason {
	case OldKernel:
		return fmt.Sprintf("%s needs %s or later, this is %s: %v", e.Feature.Name, e.Feature.Since, e.Kernel, e.Cause)
	case NoRight:
		return fmt.Sprintf("%s needs %s: run as root: %v", e.Feature.Name, join(e.Missing), e.Cause)
	case Refused:
		return fmt.Sprintf("%s is refused by this kernel (%s), which is new enough: %v", e.Feature.Name, e.Kernel, e.Cause)
	}
	return fmt.Sprintf("whether there is %s could not be found out: %v", e.Feature.Name, e.Cause)
}

func (e *Error) Unwrap() error { return e.Cause }

func join(all []Capability) string {
	texts := make([]string, len(all))
	for i, c := range all {
		texts[i] = c.String()
	}
	return strings.Join(texts, " and ")
}

// passing are errors that say nothing about what a machine can do: they pass, or
// are those of whoever asked.
var passing = []error{unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR, unix.EBUSY, unix.EADDRINUSE, unix.ENOSPC}

// Explain turns the error of trying a feature into an *Error; nil stays nil.
func (f Feature) Explain(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Feature: f, Reason: Refused, Cause: err}
	var unknown error
	if e.Kernel, unknown = Running(); unknown == nil {
		e.Missing, unknown = missing(f.Needs)
	}
	switch {
	case unknown != nil:
		e.Reason, e.Cause = Unknown, errors.Join(err, unknown)
	case e.Kernel.Before(f.Since):
		e.Reason = OldKernel
	case len(e.Missing) > 0:
		e.Reason = NoRight
	case slices.ContainsFunc(passing, func(p error) bool { return errors.Is(err, p) }):
		e.Reason = Unknown
	}
	return e
}

// Running gives the version of the running kernel.
func Running() (Version, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Version{}, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	return ParseVersion(unix.ByteSliceToString(name.Release[:]))
}

// ParseVersion reads the start of a kernel's release, such as "6.1.0-18-amd64".
func ParseVersion(release string) (Version, error) {
	major, rest, ok := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(rest[:end])
	if !ok || errA != nil || errB != nil || a < 0 {
		return Version{}, fmt.Errorf("kernel release %q does not begin with a version, such as 6.1", release)
	}
	return Version{a, b}, nil
}

// missing gives the rights that this thread lacks. CAP_SYS_ADMIN stands for
// CAP_BPF and CAP_PERFMON, as it did before there were these.
func missing(needs []Capability) ([]Capability, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	has := func(c Capability) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var lacking []Capability
	for _, c := range needs {
		if !has(c) && !(has(SysAdmin) && (c == BPF || c == Perfmon)) {
			lacking = append(lacking, c)
		}
	}
	return lacking, nil
}
