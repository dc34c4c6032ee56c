// Package history says which histories of a small namespace are linearizable:
// whatever was acknowledged is seen by everything that begins after. Tests record
// what concurrent clients did and saw, and porcupine looks for an order.
package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// The model of a small namespace: three levels of directories in which each name
// is "a" or "b". A place in it is a node of a complete binary tree, numbered as in
// a heap: 0 is the directory that stands there from the start, and 2n+1 and 2n+2
// are "a" and "b" in n.
const (
	places = 15
	inner  = 7 // the first place in the last level, in which nothing can be
)

// Place is one of the namespace's.
type Place int

func (p Place) parent() Place { return (p - 1) / 2 }

func (p Place) depth() (levels int) {
	for ; p > 0; p = p.parent() {
		levels++
	}
	return levels
}

// Path is relative to the top: "" or "a/b".
func (p Place) Path() string {
	if p == 0 {
		return ""
	}
	return strings.TrimPrefix(p.parent().Path()+"/"+string("ba"[p%2]), "/")
}

// RandomPlace is mostly one of a few, so that clients meet.
func RandomPlace(random *rand.Rand) Place {
	if random.IntN(2) == 0 {
		return []Place{1, 3, 7}[random.IntN(3)]
	}
	return Place(1 + random.IntN(places-1))
}

// Thing is what stands at a place; its mode is 0 if there is nothing. Contents
// are never written twice, and permissions are random, so that one thing is not
// taken for another.
type Thing struct {
	Mode    uint32
	Content string
}

func (t Thing) is(kind uint32) bool { return t.Mode&unix.S_IFMT == kind }

// Top stands at place 0.
var Top = Thing{Mode: unix.S_IFDIR | 0o755}

type tree [places]Thing

func (t *tree) empty(p Place) bool {
	return p >= inner || t[2*p+1].Mode == 0 && t[2*p+2].Mode == 0
}

// move takes what stands at a place, with all below it, to another place on the
// same level.
func (t *tree) move(from, to Place) {
	t[to], t[from] = t[from], Thing{}
	if from < inner {
		t.move(2*from+1, 2*to+1)
		t.move(2*from+2, 2*to+2)
	}
}

// Kind is what an operation does.
type Kind string

// The kinds.
const (
	Create          Kind = "create" // a file that must not be there
	Mkdir           Kind = "mkdir"
	Remove          Kind = "remove"
	RemoveDirectory Kind = "rmdir"
	RemoveAny       Kind = "remove any" // a file or an empty directory
	Rename          Kind = "rename"
	Chmod           Kind = "chmod"
	Lookup          Kind = "lookup"
)

// Operation of a history.
type Operation struct {
	Kind     Kind
	At, To   Place
	Mode     uint32 // permission bits
	Content  string
	Answered string // lookup: by whom, for whoever reads the history
}

// RandomMutation is any operation but a lookup.
func RandomMutation(random *rand.Rand) Operation {
	o := Operation{At: RandomPlace(random), Mode: random.Uint32() & 0o777}
	switch random.IntN(8) {
	case 0, 1:
		o.Kind, o.Content = Create, fmt.Sprintf("%x", random.Uint64())
	case 2, 3:
		o.Kind = Mkdir
	case 4:
		o.Kind = Remove
	case 5:
		o.Kind = RemoveDirectory
	case 6:
		o.Kind = Chmod
	case 7:
		o.Kind = Rename
		level := Place(1)<<o.At.depth() - 1
		o.To = level + Place(random.IntN(int(level)+1))
	}
	return o
}

// Observation is how an operation ended. Of mutations only whether they succeeded
// counts.
type Observation struct {
	Unknown bool // a mutation: nobody has said
	OK      bool
	Status  wire.LookupStatus
	// Walked is how many components a lookup got through, or NotTold.
	Walked int
	Found  Thing
}

// NotTold is the Walked of a lookup whose answer has no such thing.
const NotTold = -1

// checkTime bounds the search for an order.
const checkTime = 20 * time.Second

// apply carries out a mutation, or leaves the tree as it is and returns false.
func (t *tree) apply(o Operation) bool {
	at := &t[o.At]
	free := at.Mode == 0 && t[o.At.parent()].is(unix.S_IFDIR)
	switch o.Kind {
	case Create:
		if free {
			*at = Thing{unix.S_IFREG | o.Mode, o.Content}
		}
		return free
	case Mkdir:
		if free {
			*at = Thing{Mode: unix.S_IFDIR | o.Mode}
		}
		return free
	case Remove:
		if !at.is(unix.S_IFREG) {
			return false
		}
		*at = Thing{}
		return true
	case RemoveAny:
		if at.is(unix.S_IFREG) {
			o.Kind = Remove
		} else {
			o.Kind = RemoveDirectory
		}
		return t.apply(o)
	case RemoveDirectory:
		if !at.is(unix.S_IFDIR) || !t.empty(o.At) {
			return false
		}
		*at = Thing{}
		return true
	case Chmod:
		if at.Mode == 0 {
			return false
		}
		at.Mode = at.Mode&unix.S_IFMT | o.Mode
		return true
	case Rename:
		to := &t[o.To]
		switch {
		case at.Mode == 0 || !t[o.To.parent()].is(unix.S_IFDIR):
			return false
		case o.At == o.To:
			return true
		case to.Mode != 0 && (at.Mode&unix.S_IFMT != to.Mode&unix.S_IFMT || !t.empty(o.To)):
			return false
		}
		t.move(o.At, o.To)
		return true
	}
	panic("no mutation is called " + o.Kind)
}

// look is what a lookup of a place observes.
func (t *tree) look(p Place) Observation {
	levels := p.depth()
	if p == 0 {
		return Observation{OK: true, Found: t[p]}
	}
	above := t.look(p.parent())
	switch {
	case above.Status != wire.LookupOK:
		return above
	case !above.Found.is(unix.S_IFDIR):
		return Observation{Status: wire.LookupNotDirectory, Walked: levels - 1}
	case t[p].Mode == 0:
		return Observation{Status: wire.LookupNotFound, Walked: levels - 1}
	}
	return Observation{OK: true, Walked: levels, Found: t[p]}
}

func (t *tree) explains(at Place, seen Observation) bool {
	truth := t.look(at)
	if seen.Walked == NotTold {
		truth.Walked = NotTold
	}
	return seen == truth
}

// model says which histories are linearizable. An operation whose outcome is
// unknown may have happened at any time after it began, or never: it is recorded
// as ending with the history, where its effect is seen by nobody.
var model = porcupine.Model{
	Init: func() any {
		var t tree
		t[0] = Top
		return t
	},
	Step: func(state, input, output any) (bool, any) {
		t, o, seen := state.(tree), input.(Operation), output.(Observation)
		if o.Kind == Lookup {
			return t.explains(o.At, seen), t
		}
		done := t.apply(o)
		return seen.Unknown || seen.OK == done, t
	},
	DescribeOperation: describe,
}

func describe(input, output any) string {
	o, seen := input.(Operation), output.(Observation)
	what := fmt.Sprintf("%s %q", o.Kind, o.At.Path())
	switch o.Kind {
	case Lookup:
		return fmt.Sprintf("%s by %s: status %d after %d, %o %q", what, o.Answered, seen.Status, seen.Walked, seen.Found.Mode, seen.Found.Content)
	case Rename:
		what += fmt.Sprintf(" to %q", o.To.Path())
	case Create, Mkdir, Chmod:
		what += fmt.Sprintf(" %o %q", o.Mode, o.Content)
	}
	if seen.Unknown {
		return what + ": unknown"
	}
	return fmt.Sprintf("%s: %t", what, seen.OK)
}

// End gives operations whose outcome is unknown the end of the history.
func End(history []porcupine.Operation, end int64) {
	for i := range history {
		if history[i].Output.(Observation).Unknown {
			history[i].Return = end
		}
	}
}

// Check looks for an order that explains a history.
func Check(history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model, history, checkTime)
}

// Describe writes a history down for a person.
func Describe(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		fmt.Fprintf(&text, "%8d to %8d us, client %d: %s\n", o.Call/1000, o.Return/1000, o.ClientId, model.DescribeOperation(o.Input, o.Output))
	}
	return text.String()
}
