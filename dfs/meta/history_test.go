package meta

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
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

	"waggle/dfs/dfstest/history"
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

func (r *recorder) record(client int, o history.Operation, call int64, seen history.Observation) {
	returned := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations = append(r.operations, porcupine.Operation{ClientId: client, Input: o, Call: call, Output: seen, Return: returned})
}

// history ends the operations whose outcome is unknown, and returns all.
func (r *recorder) history() []porcupine.Operation {
	history.End(r.operations, r.now())
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
			a.mutate(history.RandomMutation(a.random))
		}
		// The same path more than once: only that brings it into the kernel.
		for at := history.RandomPlace(a.random); ; {
			a.look(at)
			if a.random.IntN(4) == 0 {
				break
			}
		}
	}
}

func (a *actor) node(p history.Place) *control.Node { return node(a.top + "/" + p.Path()) }

func (a *actor) mutate(o history.Operation) {
	var change any
	switch o.Kind {
	case history.Create:
		change = &control.Create{Node: a.node(o.At), Mode: o.Mode, Exclusive: true, Inline: []byte(o.Content)}
	case history.Mkdir:
		change = &control.Mkdir{Node: a.node(o.At), Mode: o.Mode}
	case history.Remove, history.RemoveDirectory:
		change = &control.Remove{Node: a.node(o.At), Directory: o.Kind == "rmdir"}
	case history.Chmod:
		change = &control.SetAttributes{Node: a.node(o.At), Mode: &o.Mode}
	case history.Rename:
		change = &control.Rename{From: a.node(o.At), To: a.node(o.To)}
	}
	call := a.now()
	_, err := a.try(change)
	seen := history.Observation{OK: err == nil, Unknown: status.Code(err) == codes.Unavailable}
	a.record(a.client, o, call, seen)
	if seen.Unknown {
		a.client = a.newClient()
	}
}

// look records a lookup. One that nobody answered has no effect, and is left out.
func (a *actor) look(at history.Place) {
	call := a.now()
	found, who, err := a.explain(a.top + "/" + at.Path())
	if err != nil {
		return
	}
	o := history.Operation{Kind: history.Lookup, At: at, Answered: "user space"}
	if who.InKernel {
		o.Answered = "the kernel"
		a.mu.Lock()
		a.inKernel++
		a.mu.Unlock()
	}
	seen := history.Observation{Status: found.Status, OK: found.Status == wire.LookupOK}
	if found.Walked > 0 {
		seen.Walked = int(found.Walked) - 1 // the first component is the top
	}
	if seen.OK {
		seen.Found = history.Thing{Mode: found.Attributes.Mode, Content: string(found.Inline)}
	}
	a.record(a.client, o, call, seen)
}

// play records one history in a new directory.
func play(users []*user, seed uint64, meanwhile func()) *recorder {
	top := fmt.Sprintf("%x", seed)
	users[0].must(&control.Mkdir{Node: node(top), Mode: history.Top.Mode &^ unix.S_IFMT})
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

func requireLinearizable(t *testing.T, seed uint64, recorded []porcupine.Operation) {
	t.Helper()
	if result := history.Check(recorded); result != porcupine.Ok {
		t.Fatalf("the history of seed %d is not linearizable (%s):\n%s", seed, result, history.Describe(recorded))
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
	// Whether a kill meets an operation is chance: on until one has.
	for i := uint64(0); i < killedHistories || unknown == 0 && i < 20*killedHistories; i++ {
		eventually(t, "a connection", func() bool {
			_, err := users[0].meta.KeepAlive(context.Background(), &control.KeepAliveRequest{Session: users[0].session})
			return err == nil
		})
		r := play(users, seed+i, func() {
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			c.kill()
			c.start()
		})
		recorded := r.history()
		for _, o := range recorded {
			if o.Output.(history.Observation).Unknown {
				unknown++
			}
		}
		inKernel += r.inKernel
		requireLinearizable(t, seed+i, recorded)
	}
	t.Logf("%d operations with an unknown outcome; %d lookups answered in the kernel", unknown, inKernel)
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
		recorded := play(users, seed+i, func() {}).history()
		if history.Check(recorded) == porcupine.Illegal {
			t.Logf("found in history %d:\n%s", i+1, history.Describe(recorded))
			return
		}
	}
	t.Fatalf("%d histories of a server whose kernel tables are late seem to be linearizable", quietHistories)
}
