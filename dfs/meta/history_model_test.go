package meta

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// The model of a small namespace: three levels of directories in which each name
// is "a" or "b". A place in it is a node of a complete binary tree, numbered as in
// a heap: 0 is the directory that stands there from the start, and 2n+1 and 2n+2
// are "a" and "b" in n.
const (
	modelPlaces   = 15
	modelInner    = 7 // the first place in the last level, in which nothing can be
	modelPlaceTop = spot(0)
)

type spot int

func (s spot) parent() spot { return (s - 1) / 2 }

func (s spot) depth() (levels int) {
	for ; s > 0; s = s.parent() {
		levels++
	}
	return levels
}

// path is relative to the top: "" or "a/b".
func (s spot) path() string {
	if s == modelPlaceTop {
		return ""
	}
	return strings.TrimPrefix(s.parent().path()+"/"+string("ba"[s%2]), "/")
}

// thing is what stands at a place; its mode is 0 if there is nothing. Contents
// are never written twice, and permissions are random, so that one thing is not
// taken for another.
type thing struct {
	mode    uint32
	content string
}

func (t thing) is(kind uint32) bool { return t.mode&unix.S_IFMT == kind }

type tree [modelPlaces]thing

func (t *tree) empty(s spot) bool {
	return s >= modelInner || t[2*s+1].mode == 0 && t[2*s+2].mode == 0
}

// move takes what stands at a place, with all below it, to another place on the
// same level.
func (t *tree) move(from, to spot) {
	t[to], t[from] = t[from], thing{}
	if from < modelInner {
		t.move(2*from+1, 2*to+1)
		t.move(2*from+2, 2*to+2)
	}
}

// operations of a history.
type operation struct {
	kind     string // create, mkdir, remove, rmdir, rename, chmod or lookup
	at, to   spot
	mode     uint32 // permission bits
	content  string
	answered string // lookup: by whom, for whoever reads the history
}

// outcomes of operations. For mutations only whether they succeeded.
type observation struct {
	unknown bool // the server was killed meanwhile
	ok      bool
	status  wire.LookupStatus
	walked  uint8
	found   thing
}

// apply carries out a mutation, or leaves the tree as it is and returns false.
func (t *tree) apply(o operation) bool {
	at := &t[o.at]
	free := at.mode == 0 && t[o.at.parent()].is(unix.S_IFDIR)
	switch o.kind {
	case "create":
		if free {
			*at = thing{unix.S_IFREG | o.mode, o.content}
		}
		return free
	case "mkdir":
		if free {
			*at = thing{mode: unix.S_IFDIR | o.mode}
		}
		return free
	case "remove":
		if !at.is(unix.S_IFREG) {
			return false
		}
		*at = thing{}
		return true
	case "rmdir":
		if !at.is(unix.S_IFDIR) || !t.empty(o.at) {
			return false
		}
		*at = thing{}
		return true
	case "chmod":
		if at.mode == 0 {
			return false
		}
		at.mode = at.mode&unix.S_IFMT | o.mode
		return true
	case "rename":
		to := &t[o.to]
		switch {
		case at.mode == 0 || !t[o.to.parent()].is(unix.S_IFDIR):
			return false
		case o.at == o.to:
			return true
		case to.mode != 0 && (at.mode&unix.S_IFMT != to.mode&unix.S_IFMT || !t.empty(o.to)):
			return false
		}
		t.move(o.at, o.to)
		return true
	}
	panic("no operation is called " + o.kind)
}

// look is what a lookup of a place observes.
func (t *tree) look(s spot) observation {
	levels := s.depth()
	if s == modelPlaceTop {
		return observation{ok: true, found: t[s]}
	}
	above := t.look(s.parent())
	switch {
	case above.status != wire.LookupOK:
		return above
	case !above.found.is(unix.S_IFDIR):
		return observation{status: wire.LookupNotDirectory, walked: uint8(levels - 1)}
	case t[s].mode == 0:
		return observation{status: wire.LookupNotFound, walked: uint8(levels - 1)}
	}
	return observation{ok: true, walked: uint8(levels), found: t[s]}
}

// namespaceModel says which histories are linearizable. An operation during which
// the server was killed may have happened at any time after it began, or never:
// it is recorded as ending with the history, where its effect is seen by nobody.
var namespaceModel = porcupine.Model{
	Init: func() any {
		var t tree
		t[modelPlaceTop] = topDirectory
		return t
	},
	Step: func(state, input, output any) (bool, any) {
		t, o, seen := state.(tree), input.(operation), output.(observation)
		if o.kind == "lookup" {
			return seen == t.look(o.at), t
		}
		done := t.apply(o)
		return seen.unknown || seen.ok == done, t
	},
	DescribeOperation: func(input, output any) string {
		o, seen := input.(operation), output.(observation)
		what := fmt.Sprintf("%s %q", o.kind, o.at.path())
		switch {
		case o.kind == "lookup":
			return fmt.Sprintf("%s by %s: status %d after %d, %o %q", what, o.answered, seen.status, seen.walked, seen.found.mode, seen.found.content)
		case o.kind == "rename":
			what += fmt.Sprintf(" to %q", o.to.path())
		case o.kind != "remove" && o.kind != "rmdir":
			what += fmt.Sprintf(" %o %q", o.mode, o.content)
		}
		if seen.unknown {
			return what + ": unknown"
		}
		return fmt.Sprintf("%s: %t", what, seen.ok)
	},
}

var topDirectory = thing{mode: unix.S_IFDIR | 0o755}
