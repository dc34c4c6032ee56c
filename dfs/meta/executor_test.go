package meta

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func (u *user) mutate(below uint64, mutations ...*control.Mutation) ([]*control.MutationResult, error) {
	reply, err := u.meta.Mutate(u.t.Context(), &control.MutateRequest{Session: u.session, AnsweredBelow: below, Mutations: mutations})
	return reply.GetResults(), err
}

func creation(number uint64, name string) *control.Mutation {
	return &control.Mutation{Number: number, Change: &control.Mutation_Create{Create: &control.Create{Node: node(name), Exclusive: true}}}
}

func TestAMutationHappensOnce(t *testing.T) {
	u := newRig(t).open(0)
	first, err := u.mutate(0, creation(1, "/a"), creation(2, "/a"), creation(3, "/b"))
	require.NoError(t, err)
	require.EqualValues(t, codes.OK, first[0].Code)
	require.EqualValues(t, codes.AlreadyExists, first[1].Code, "by itself")
	require.EqualValues(t, codes.OK, first[2].Code, "the one before has not stopped it")

	again := func() {
		got, err := u.mutate(0, creation(3, "/b"), creation(1, "/a"), creation(2, "/a"))
		require.NoError(t, err)
		require.Equal(t, first[2].String(), got[0].String())
		require.Equal(t, first[0].String(), got[1].String())
		require.Equal(t, first[1].String(), got[2].String())
	}
	again()
	u.restart()
	again()
	_, err = u.mutate(3, creation(4, "/c"))
	require.NoError(t, err)
	got, err := u.mutate(3, creation(2, "/d"), creation(0, "/d"), creation(3+answerWindow, "/d"), creation(5, "/e"))
	require.NoError(t, err, "one that can't be carried out does not stop the others")
	require.EqualValues(t, codes.InvalidArgument, got[0].Code, "the client has said that it has the answer")
	require.EqualValues(t, codes.InvalidArgument, got[1].Code)
	require.EqualValues(t, codes.ResourceExhausted, got[2].Code)
	require.EqualValues(t, codes.OK, got[3].Code)
	_, err = u.mutate(3, make([]*control.Mutation, maxMutations+1)...)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	for n := uint64(6); n < 6+2*answerWindow; n += maxMutations { // slots are used again
		var batch []*control.Mutation
		for i := range uint64(maxMutations) {
			batch = append(batch, creation(n+i, "/a"))
		}
		_, err := u.mutate(n, batch...)
		require.NoError(t, err)
	}
	u.checkClean()
}

// Some client's answers are lost after it has had more than a window of others.
func TestNoAnswerIsForgottenThatMayBeAskedFor(t *testing.T) {
	u := newRig(t).open(0)
	const many = answerWindow + 3*maxMutations
	for n := uint64(1); n < many; n += maxMutations {
		var batch []*control.Mutation
		for i := range uint64(maxMutations) {
			batch = append(batch, creation(n+i, "/a"))
		}
		_, err := u.mutate(n, batch...)
		require.NoError(t, err)
	}
	removal := func(number uint64) *control.Mutation {
		return &control.Mutation{Number: number, Change: &control.Mutation_Remove{Remove: &control.Remove{Node: node("/a")}}}
	}
	first, err := u.mutate(many+1, removal(many+1))
	require.NoError(t, err)
	require.EqualValues(t, codes.OK, first[0].Code)
	u.restart()

	other := u.rig.open(0)
	other.create("/a", "another file")
	again, err := u.mutate(many+1, removal(many+1))
	require.NoError(t, err)
	require.Equal(t, first[0].String(), again[0].String())
	require.Equal(t, "another file", other.read("/a"))

	u.restart()
	late, err := u.mutate(1, removal(1))
	require.NoError(t, err)
	require.EqualValues(t, codes.InvalidArgument, late[0].Code, "its answer was overwritten: whether it was carried out can't be told")
	require.Equal(t, "another file", other.read("/a"))
}

func TestConcurrentMutationsShareCommits(t *testing.T) {
	r := newRig(t)
	before := r.server.published.sequence.Load()
	var all sync.WaitGroup
	const clients, each = 8, 50
	for i := range clients {
		u := r.open(0)
		all.Go(func() {
			for n := range uint64(each) {
				results, err := u.mutate(n, creation(n+1, fmt.Sprintf("/%d-%d", i, n)))
				if err != nil || results[0].Code != 0 {
					t.Error(err, results)
				}
			}
		})
	}
	all.Wait()
	commits := r.server.published.sequence.Load() - before
	require.Less(t, commits, uint64(clients*each), "commits for as many mutations")
	u := r.open(0)
	require.Len(t, u.list("/", 0), clients*each)
	u.checkClean()
}

// failing is a store whose commits fail from some time on.
type failing struct {
	store.Store
	fail chan struct{}
}

var errDisk = errors.New("the disk is gone")

func (f *failing) Commit(b store.Batch) (store.Pending, error) {
	p, err := f.Store.Commit(b)
	select {
	case <-f.fail:
		return broken{p}, err
	default:
		return p, err
	}
}

type broken struct{ store.Pending }

func (b broken) Wait() error { return errors.Join(b.Pending.Wait(), errDisk) }

func TestNothingIsAcknowledgedAfterTheStoreFailed(t *testing.T) {
	disk := &failing{fail: make(chan struct{})}
	embedded, err := store.OpenEmbedded(t.TempDir(), 1<<20, quiet)
	require.NoError(t, err)
	defer embedded.Close()
	disk.Store = embedded
	p := newPublished(disk.View(), 100)
	defer p.close()
	e := newExecutor(disk, p, func(chores) {})
	e.start()
	set := func(c *change) error { c.put(inodeKey(7), &inode{}); return nil }
	require.NoError(t, e.do(t.Context(), set))
	refused := errors.New("refused")
	require.ErrorIs(t, e.do(t.Context(), func(*change) error { return refused }), refused)

	close(disk.fail)
	require.Equal(t, codes.Unavailable, status.Code(e.do(t.Context(), set)))
	require.Equal(t, codes.Unavailable, status.Code(e.do(t.Context(), set)))
	require.EqualValues(t, 1, p.current.sequence, "nobody has seen what was not durable")
	require.ErrorIs(t, e.close(), errDisk)
}

func TestTheCacheTakesNothingOld(t *testing.T) {
	c := newCache(1000)
	k := inodeKey(1)
	c.fill(k, &inode{parent: 1}, 4)
	got, known := c.get(k)
	require.True(t, known)
	require.EqualValues(t, 1, got.(*inode).parent)
	c.forget([]key{k}, 5)
	_, known = c.get(k)
	require.False(t, known)
	c.fill(k, &inode{parent: 2}, 4) // read before the change, filled after it
	_, known = c.get(k)
	require.False(t, known)
	c.fill(k, nil, 5)
	got, known = c.get(k)
	require.True(t, known)
	require.Nil(t, got)
}

func TestKeysSeeWhatIsNotCommitted(t *testing.T) {
	s, err := store.OpenEmbedded(t.TempDir(), 1<<20, quiet)
	require.NoError(t, err)
	defer s.Close()
	c := &change{store: s}
	commit := func() {
		b := s.NewBatch()
		require.NoError(t, c.encode(b))
		p, err := s.Commit(b)
		require.NoError(t, err)
		require.NoError(t, p.Wait())
		c.begin(1)
	}
	c.begin(0)
	for i := range uint32(4) {
		c.put(leaseKey(place{9, i}), holder(i))
	}
	c.put(leaseKey(place{10, 0}), holder(1))
	commit()
	c.delete(leaseKey(place{9, 1}))
	c.put(leaseKey(place{9, 7}), holder(7))
	c.put(leaseKey(place{9, 2}), holder(8))
	var indexes []uint32
	for _, k := range c.keys(prefix(tableLease, 9), 100) {
		indexes = append(indexes, k.second())
	}
	require.Equal(t, []uint32{0, 2, 3, 7}, indexes)
	require.Len(t, c.keys(prefix(tableLease, 9), 2), 2)
	require.Len(t, c.keys([]byte{tableLease}, 100), 5)
}

func FuzzRecords(f *testing.F) {
	for _, r := range []record{
		&inode{Attributes: wire.Attributes{Inode: 1, Size: 2}, content: []byte("hi")}, entries{{"a", 1}, {"b", 2}},
		&chunk{id: 1, open: true, servers: []uint32{1, 2}}, owner{1, 2}, holder(3), &sessionRecord{client: "c"},
		&result{1, []byte("answer")}, &serverRecord{"1.2.3.4:5", "1.2.3.4:6"}, xattrs{{"user.a", []byte("v")}}, &totals{files: 3},
		&identity{format: recordFormat},
	} {
		f.Add(r.append(nil))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		refuzz(t, value, decodeInode)
		refuzz(t, value, decodeEntries)
		refuzz(t, value, decodeChunk)
		refuzz(t, value, decodeOwner)
		refuzz(t, value, decodeHolder)
		refuzz(t, value, decodeMark)
		refuzz(t, value, decodeSession)
		refuzz(t, value, decodeResult)
		refuzz(t, value, decodeServer)
		refuzz(t, value, decodeXattrs)
		refuzz(t, value, decodeTotals)
		refuzz(t, value, decodeIdentity)
	})
}

// refuzz demands that whatever a decoder accepts is what its encoder writes.
func refuzz[R record](t *testing.T, value []byte, decode func([]byte) (R, error)) {
	if r, err := decode(value); err == nil {
		require.Equal(t, value, append([]byte{}, r.append(nil)...))
	}
}
