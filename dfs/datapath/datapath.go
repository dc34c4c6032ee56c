// Package datapath is the registry of the data paths. A data path is one way of
// doing one operation, such as read=sendfile; the folders below hold one
// operation each and one file a path.
//
// A path says whether this machine supports it, and proves that it was taken
// with counters that whoever runs an experiment checks afterwards. No path ever
// falls back to another: what can't be done is an error.
package datapath

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Operation is what a data path moves.
type Operation string

// The operations.
const (
	Lookup Operation = "lookup" // name to attributes, location, and a small file's bytes
	Read   Operation = "read"   // chunk server to client
	Write  Operation = "write"  // client to every replica
	Relay  Operation = "relay"  // chunk server to HTTP client, through the gateway
	Mount  Operation = "mount"  // client library to a program, through the kernel
)

// Info is what every data path says about itself.
type Info struct {
	Operation Operation
	Name      string
	// Summary is one line for a person: how the bytes move.
	Summary string
	// EBPF says that the path loads BPF programs.
	EBPF bool
	// Polls says that a server of the path burns processor time while nobody asks
	// it anything: nothing else can be measured beside one.
	Polls bool
	// BetweenHosts says that the path is for two hosts, joined by a network
	// interface, and refuses to be taken within one.
	BetweenHosts bool
	// Supported returns nil if this machine can take the path, else the reason
	// why not, as one line. It may be called at any time and leaves nothing behind.
	Supported func() error
	// Proof names the counters that show how much went this way: those that end in
	// "_bytes" must have grown by nearly all of the payload, the others by nearly the
	// number of operations.
	Proof []string
	// HitsOnly says that the path leaves lookups of names that nobody asked for
	// before to another one, as it is meant to.
	HitsOnly bool
	// Lesser names counters that are above 0 where the path runs in a mode that is
	// not what it is meant for, as generic XDP is not on an interface whose driver
	// can do better.
	Lesser []string
	// Watched names counters that are worth recording beside the proof. They may
	// stay as they are.
	Watched []string
	// Stages are what an operation takes, from the asking to the answer: the
	// simulator's model of the path. A path without them can't be simulated.
	Stages []Stage
}

// String returns the path as it is written everywhere, such as "read=copy".
func (i Info) String() string { return string(i.Operation) + "=" + i.Name }

// Errors that the command line turns into exit codes.
var (
	// ErrUnsupported: this machine can't take the path (exit 3).
	ErrUnsupported = errors.New("not supported on this machine")
	// ErrUnknown: there is no path of that name (exit 2).
	ErrUnknown = errors.New("unknown data path")
)

// Registry holds the paths of one operation, in the order they registered. P is
// what a path of the operation can do.
type Registry[P interface{ About() Info }] struct {
	Operation Operation
	paths     []P
}

// Register adds a path. It panics on a second one of the same name: that is a
// mistake in the program.
func (r *Registry[P]) Register(path P) {
	info := path.About()
	if info.Operation != r.Operation {
		panic(fmt.Sprintf("datapath: %s registered under %s", info, r.Operation))
	}
	if r.find(info.Name) >= 0 {
		panic(fmt.Sprintf("datapath: %s registered twice", info))
	}
	r.paths = append(r.paths, path)
}

// All returns every path of the operation.
func (r *Registry[P]) All() []P { return slices.Clone(r.paths) }

// Get returns the path of that name, or an error that wraps ErrUnknown and
// names those there are.
func (r *Registry[P]) Get(name string) (P, error) {
	if i := r.find(name); i >= 0 {
		return r.paths[i], nil
	}
	var names []string
	for _, p := range r.paths {
		names = append(names, p.About().Name)
	}
	var none P
	return none, fmt.Errorf("%w %s=%q: choose one of %s", ErrUnknown, r.Operation, name, strings.Join(names, ", "))
}

// Use returns the path of that name if this machine supports it; otherwise an
// error that wraps ErrUnknown or ErrUnsupported.
func (r *Registry[P]) Use(name string) (P, error) {
	p, err := r.Get(name)
	if err != nil {
		return p, err
	}
	if err := p.About().Supported(); err != nil {
		var none P
		return none, fmt.Errorf("%s: %w: %w", p.About(), ErrUnsupported, err)
	}
	return p, nil
}

func (r *Registry[P]) find(name string) int {
	return slices.IndexFunc(r.paths, func(p P) bool { return p.About().Name == name })
}
