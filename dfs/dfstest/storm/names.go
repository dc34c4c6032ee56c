package storm

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/dfstest/history"
	"waggle/dfs/wire"
)

// namespaceHistory is what clients did to a small directory tree and saw of it.
type namespaceHistory struct {
	load *load

	mu         sync.Mutex
	operations []porcupine.Operation
	clients    int
}

// maxHistory keeps the search for an order short.
const maxHistory = 100

func newNamespaceHistory(l *load) *namespaceHistory { return &namespaceHistory{load: l} }

// newClient numbers a client. One that does not know how its operation ended goes
// on as another, because the operation is still under way.
func (h *namespaceHistory) newClient() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return h.clients
}

// record adds an operation, and says whether there may be more.
func (h *namespaceHistory) record(o porcupine.Operation) bool {
	o.Return = h.load.clock.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
	return len(h.operations) < maxHistory
}

// judge looks for an order that explains the history.
func (h *namespaceHistory) judge() {
	history.End(h.operations, h.load.clock.now())
	if result := history.Check(h.operations); result == porcupine.Illegal {
		h.load.fault("the namespace's history is not linearizable:\n%s", history.Describe(h.operations))
	}
}

// namer is a client of the tree.
type namer struct {
	*namespaceHistory
	client *client.Client
	random *rand.Rand
	number int
}

func (n *namer) path(p history.Place) string { return n.load.directory + "/names/" + p.Path() }

func (n *namer) run(ctx context.Context) {
	// Directories to begin with: what stands in files' places is soon all there is.
	n.mutate(history.Operation{Kind: history.Mkdir, At: history.Place(1 + n.random.IntN(4)), Mode: 0o755})
	for ctx.Err() == nil {
		// Few operations, but during all of the storm.
		time.Sleep(time.Duration(n.random.IntN(40)) * time.Millisecond)
		more := false
		if n.random.IntN(3) == 0 {
			more = n.mutate(history.RandomMutation(n.random))
		} else {
			more = n.look(history.RandomPlace(n.random))
		}
		if !more {
			return
		}
	}
}

func (n *namer) mutate(o history.Operation) bool {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	o.Content = "" // what a file holds is not looked at here
	mode := fs.FileMode(o.Mode)
	call := n.load.clock.now()
	var err error
	switch o.Kind {
	case history.Create:
		var f *client.File
		f, err = n.client.OpenFile(ctx, n.path(o.At), os.O_CREATE|os.O_EXCL|os.O_WRONLY, client.FileOptions{Mode: mode})
		if err == nil {
			_ = f.Close() // nothing was written
		}
	case history.Mkdir:
		err = n.client.Mkdir(ctx, n.path(o.At), mode)
	case history.Remove, history.RemoveDirectory:
		// The library's Remove is one call after the other. If both were refused, what
		// was there may have changed between them.
		o.Kind = history.RemoveAny
		if err = n.client.Remove(ctx, n.path(o.At)); refused(err) {
			return true
		}
	case history.Chmod:
		err = n.client.Chmod(ctx, n.path(o.At), mode)
	case history.Rename:
		err = n.client.Rename(ctx, n.path(o.At), n.path(o.To))
	}
	seen := history.Observation{OK: err == nil, Unknown: err != nil && !refused(err)}
	n.load.count(string(o.Kind), err)
	more := n.record(porcupine.Operation{ClientId: n.number, Input: o, Call: call, Output: seen})
	if seen.Unknown {
		n.number = n.newClient()
	}
	return more
}

// refused says whether an error is the file system's answer, and no failure to
// get one.
func refused(err error) bool {
	for _, errno := range []error{unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (n *namer) look(at history.Place) bool {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	call := n.load.clock.now()
	info, err := n.client.Lstat(ctx, n.path(at))
	n.load.count("lookup", err)
	seen := history.Observation{OK: err == nil, Walked: history.NotTold}
	switch {
	case err == nil:
		seen.Found.Mode = info.Attributes().Mode
	case errors.Is(err, unix.ENOTDIR):
		seen.Status = wire.LookupNotDirectory
	case errors.Is(err, unix.ENOENT):
		seen.Status = wire.LookupNotFound
	default:
		return true // nobody has answered
	}
	return n.record(porcupine.Operation{ClientId: n.number, Input: history.Operation{Kind: history.Lookup, At: at, Answered: "the client library"}, Call: call, Output: seen})
}
