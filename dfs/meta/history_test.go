package meta

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Histories of concurrent clients of lookup=xdp are recorded and checked for
// linearizability: whatever was acknowledged is seen by every lookup that begins
// after, whoever answers it.

const (
	quietHistories  = 200 // the server runs on
	killedHistories = 8   // the server is killed and starts again
	historyClients  = 4
	historySteps    = 8 // of each client: a mutation in three of them, and some lookups of one path
	checkTime       = 20 * time.Second
)

// historySeed is random, or what WAGGLE_TEST_SEED says.
func historySeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if wanted := os.Getenv("WAGGLE_TEST_SEED"); wanted != "" {
		var err error
		seed, err = strconv.ParseUint(wanted, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("WAGGLE_TEST_SEED=%d", seed)
	return seed
}

// recorder collects a history.
type recorder struct {
	began time.Time

	mu         sync.Mutex
	operations []porcupine.Operation
	clients    int
	inKernel   int // lookups
}

func (r *recorder) now() int64 { return time.Since(r.began).Nanoseconds() }

// newClient numbers a client. One that does not know how its operation ended
// goes on as another, because the operation is still under way.
func (r *recorder) newClient() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients++
	return r.clients
}

func (r *recorder) record(client int, o operation, call int64, seen observation) {
	returned := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations = append(r.operations, porcupine.Operation{ClientId: client, Input: o, Call: call, Output: seen, Return: returned})
}

// history ends the operations whose outcome is unknown, and returns all.
func (r *recorder) history() []porcupine.Operation {
	end := r.now()
	for i := range r.operations {
		if r.operations[i].Output.(observation).unknown {
			r.operations[i].Return = end
		}
	}
	return r.operations
}

// actor is one client of a history.
type actor struct {
	*user
	*recorder
	top    string // the directory that the history takes place in
	random *rand.Rand
	client int
}

func (a *actor) run() {
	for range historySteps {
		if a.random.IntN(3) == 0 {
			a.mutate(a.choose())
		}
		// The same path more than once: only that brings it into the kernel.
		for at := a.spot(); ; {
			a.look(at)
			if a.random.IntN(4) == 0 {
				break
			}
		}
	}
}

// spot is mostly one of a few, so that clients meet.
func (a *actor) spot() spot {
	if a.random.IntN(2) == 0 {
		return []spot{1, 3, 7}[a.random.IntN(3)]
	}
	return spot(1 + a.random.IntN(modelPlaces-1))
}

func (a *actor) choose() operation {
	o := operation{at: a.spot(), mode: a.random.Uint32() & 0o777}
	switch a.random.IntN(8) {
	case 0, 1:
		o.kind, o.content = "create", strconv.FormatUint(a.random.Uint64(), 36)
	case 2, 3:
		o.kind = "mkdir"
	case 4:
		o.kind = "remove"
	case 5:
		o.kind = "rmdir"
	case 6:
		o.kind = "chmod"
	case 7:
		o.kind = "rename"
		level := spot(1)<<o.at.depth() - 1
		o.to = level + spot(a.random.IntN(int(level)+1))
	}
	return o
}

func (a *actor) node(s spot) *control.Node { return node(a.top + "/" + s.path()) }

func (a *actor) mutate(o operation) {
	var change any
	switch o.kind {
	case "create":
		change = &control.Create{Node: a.node(o.at), Mode: o.mode, Exclusive: true, Inline: []byte(o.content)}
	case "mkdir":
		change = &control.Mkdir{Node: a.node(o.at), Mode: o.mode}
	case "remove", "rmdir":
		change = &control.Remove{Node: a.node(o.at), Directory: o.kind == "rmdir"}
	case "chmod":
		change = &control.SetAttributes{Node: a.node(o.at), Mode: &o.mode}
	case "rename":
		change = &control.Rename{From: a.node(o.at), To: a.node(o.to)}
	}
	call := a.now()
	_, err := a.try(change)
	seen := observation{ok: err == nil, unknown: status.Code(err) == codes.Unavailable}
	a.record(a.client, o, call, seen)
	if seen.unknown {
		a.client = a.newClient()
	}
}

// look records a lookup. One that nobody answered has no effect, and is left out.
func (a *actor) look(at spot) {
	call := a.now()
	found, who, err := a.explain(a.top + "/" + at.path())
	if err != nil {
		return
	}
	o := operation{kind: "lookup", at: at, answered: "user space"}
	if who.InKernel {
		o.answered = "the kernel"
		a.mu.Lock()
		a.inKernel++
		a.mu.Unlock()
	}
	seen := observation{status: found.Status, ok: found.Status == wire.LookupOK}
	if found.Walked > 0 {
		seen.walked = found.Walked - 1 // the first component is the top
	}
	if seen.ok {
		seen.found = thing{mode: found.Attributes.Mode, content: string(found.Inline)}
	}
	a.record(a.client, o, call, seen)
}

// play records one history in a new directory.
func play(users []*user, seed uint64, meanwhile func()) *recorder {
	top := fmt.Sprintf("%x", seed)
	users[0].must(&control.Mkdir{Node: node(top), Mode: topDirectory.mode &^ unix.S_IFMT})
	r := &recorder{began: time.Now()}
	var all sync.WaitGroup
	for i, u := range users {
		a := &actor{user: u, recorder: r, top: top, random: rand.New(rand.NewPCG(seed, uint64(i))), client: r.newClient()}
		all.Go(a.run)
	}
	meanwhile()
	all.Wait()
	return r
}

func check(history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(namespaceModel, history, checkTime)
}

func describeHistory(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		fmt.Fprintf(&text, "%8d to %8d us, client %d: %s\n", o.Call/1000, o.Return/1000, o.ClientId, namespaceModel.DescribeOperation(o.Input, o.Output))
	}
	return text.String()
}

func requireLinearizable(t *testing.T, seed uint64, history []porcupine.Operation) {
	t.Helper()
	if result := check(history); result != porcupine.Ok {
		t.Fatalf("the history of seed %d is not linearizable (%s):\n%s", seed, result, describeHistory(history))
	}
}

func historyUsers(r *rig) (users []*user) {
	for range historyClients {
		users = append(users, r.open(0))
	}
	return users
}

func TestHistoriesAreLinearizable(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	seed := historySeed(t)
	users := historyUsers(newRig(t, withXDP, func(c *Config) { c.lookupSizes, c.SessionTime = smallTables, time.Hour }))
	inKernel, operations := 0, 0
	for i := range uint64(quietHistories) {
		r := play(users, seed+i, func() {})
		inKernel += r.inKernel
		operations += len(r.operations)
		requireLinearizable(t, seed+i, r.history())
	}
	t.Logf("%d histories, %d operations; %d lookups answered in the kernel", quietHistories, operations, inKernel)
	require.Greater(t, inKernel, quietHistories, "the kernel must have had its part in it")
}

func TestHistoriesWithAKilledServerAreLinearizable(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	seed := historySeed(t)
	c := startChild(t)
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(
		grpc.ConnectParams{MinConnectTimeout: time.Second, Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, MaxDelay: 50 * time.Millisecond, Multiplier: 1.5}}))
	require.NoError(t, err)
	defer conn.Close()
	users := historyUsers(&rig{t: t, conn: conn, meta: control.NewMetaClient(conn)})
	unknown, inKernel := 0, 0
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range uint64(killedHistories) {
		eventually(t, "a connection", func() bool {
			_, err := users[0].meta.KeepAlive(context.Background(), &control.SessionID{Session: users[0].session})
			return err == nil
		})
		r := play(users, seed+i, func() {
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			c.kill()
			c.start()
		})
		history := r.history()
		for _, o := range history {
			if o.Output.(observation).unknown {
				unknown++
			}
		}
		inKernel += r.inKernel
		requireLinearizable(t, seed+i, history)
	}
	t.Logf("%d histories; %d operations with an unknown outcome; %d lookups answered in the kernel", killedHistories, unknown, inKernel)
	require.Positive(t, unknown)
	require.Positive(t, inKernel)
}

// The same checker finds a server that acknowledges first and forgets then.
func TestABrokenOrderIsFound(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	seed := historySeed(t)
	users := historyUsers(newRig(t, withXDP, func(c *Config) {
		c.lookupSizes, c.SessionTime, c.forgetDelay = smallTables, time.Hour, time.Millisecond
	}))
	for i := range uint64(quietHistories) {
		history := play(users, seed+i, func() {}).history()
		if check(history) == porcupine.Illegal {
			t.Logf("found in history %d:\n%s", i+1, describeHistory(history))
			return
		}
	}
	t.Fatalf("%d histories of a server whose kernel tables are late seem to be linearizable", quietHistories)
}
