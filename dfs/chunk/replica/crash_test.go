package replica

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

var errCrashed = errors.New("crashed")

// crashingDisk does `left` changes, a part of one more, and then none.
type crashingDisk struct {
	realDisk
	left    int
	part    func(length int) int
	crashed bool
}

func (d *crashingDisk) step() (whole bool, err error) {
	switch {
	case d.crashed:
		return false, errCrashed
	case d.left == 0:
		d.crashed = true
		return false, nil
	}
	d.left--
	return true, nil
}

func (d *crashingDisk) writeAt(f *os.File, b []byte, offset int64) error {
	whole, err := d.step()
	if err != nil {
		return err
	}
	if whole {
		return d.realDisk.writeAt(f, b, offset)
	}
	if err := d.realDisk.writeAt(f, b[:d.part(len(b))], offset); err != nil {
		return err
	}
	return errCrashed
}

func (d *crashingDisk) truncate(f *os.File, size int64) error {
	if whole, err := d.step(); err != nil || !whole {
		return errCrashed
	}
	return d.realDisk.truncate(f, size)
}

func (d *crashingDisk) sync(f *os.File) error {
	if d.crashed {
		return errCrashed
	}
	return d.realDisk.sync(f)
}

func (d *crashingDisk) rename(from, to string) error {
	if whole, err := d.step(); err != nil || !whole {
		return errCrashed
	}
	return d.realDisk.rename(from, to)
}

// crash gives up a store as the end of its process would: nothing more is written.
func crash(t *testing.T, s *Store) {
	t.Helper()
	for _, r := range s.replicas {
		if r.files != nil {
			r.files.release()
			r.files = nil
		}
	}
	require.NoError(t, s.lock.Close())
}

var parts = map[string]func(int) int{
	"nothing":     func(int) int { return 0 },
	"some bytes":  func(n int) int { return min(n, 70) },
	"half":        func(n int) int { return n / 2 },
	"whole pages": func(n int) int { return n - n%4096 },
	"all":         func(n int) int { return n },
}

// everyCrash calls try with a disk that crashes, later each time, until try
// gets through. After each crash it opens the store again, crashing that too at
// every point, and hands what was recovered to check.
func everyCrash(t *testing.T, prepare func(t *testing.T, s *Store), try func(s *Store) error, check func(t *testing.T, s *Store)) {
	for name, part := range parts {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			for steps, done := 0, false; !done; steps++ {
				for again, recovered := 0, false; !recovered; again++ {
					s := openStore(t, directory)
					require.NoError(t, s.Delete(chunk))
					prepare(t, s)
					require.NoError(t, s.Close())
					d := &crashingDisk{left: steps, part: part}
					s, err := open(directory, Options{Log: slog.New(slog.DiscardHandler)}, d)
					require.NoError(t, err)
					err = try(s)
					done = err == nil
					crash(t, s)
					if !done {
						require.ErrorIs(t, err, errCrashed)
					}
					d = &crashingDisk{left: again, part: part}
					if s, err = open(directory, Options{Log: slog.New(slog.DiscardHandler)}, d); err == nil {
						crash(t, s)
					}
					recovered = !d.crashed
					s = openStore(t, directory)
					check(t, s)
					require.NoError(t, s.Close())
				}
			}
		})
	}
}

func TestAWriteSurvivesACrashAtEveryStep(t *testing.T) {
	before := pattern(1, 21_000)
	for name, w := range map[string]Write{
		"overwrite":              makeWrite(3, 5000, pattern(2, 9000)),
		"overwrite whole blocks": makeWrite(3, 4096, pattern(2, 8192)),
		"append":                 makeWrite(3, 21_000, pattern(2, 9000)),
		"append over the end":    makeWrite(3, 15_000, pattern(2, 12_000)),
		"behind a gap":           makeWrite(3, 50_000, pattern(2, 6000)),
		"large":                  makeWrite(3, 3, pattern(2, 400_000)),
	} {
		t.Run(name, func(t *testing.T) {
			after := applyTo(before, w)
			everyCrash(t, func(t *testing.T, s *Store) {
				r := newReplica(t, s)
				for i, half := range [][]byte{before[:10_000], before[10_000:]} {
					_, err := r.Write(makeWrite(uint64(i+1), uint64(10_000*i), half))
					require.NoError(t, err)
				}
			}, func(s *Store) error {
				r, err := s.Get(chunk)
				if err != nil {
					return err
				}
				_, err = r.Write(w)
				return err
			}, func(t *testing.T, s *Store) {
				r, err := s.Get(chunk)
				require.NoError(t, err)
				checkAfterCrash(t, r, before, after, w)
				// The same write again makes it whole, unless a block that it covers in part
				// is half old and half new: then the rest of that block is lost here.
				_, corrupt := contentWithDamage(t, r)
				state, err := r.Write(w)
				if damaged := new(CorruptError); errors.As(err, &damaged) {
					require.Contains(t, corrupt, damaged.Offset/wire.BlockSize)
					return
				}
				require.NoError(t, err)
				require.Equal(t, State{Chunk: chunk, Epoch: epoch, Sequence: 3, Length: uint64(len(after))}, state)
				require.True(t, bytes.Equal(after, content(t, r)))
			})
		})
	}
}

// checkAfterCrash checks that a write was applied whole, or not at all, or the
// replica says that it is torn and holds old and new bytes in the write's range.
func checkAfterCrash(t *testing.T, r *Replica, before, after []byte, w Write) {
	t.Helper()
	state := r.State()
	got, corrupt := contentWithDamage(t, r)
	require.EqualValues(t, len(got), state.Length)
	require.False(t, state.Doubtful, "the machine has not lost power")
	if !state.Torn {
		require.Empty(t, corrupt)
	}
	switch {
	case state.Sequence == w.Sequence:
		require.False(t, state.Torn)
		require.True(t, bytes.Equal(after, got), "an applied write must be whole")
	case !state.Torn:
		require.Equal(t, w.Sequence-1, state.Sequence)
		require.True(t, bytes.Equal(before, got), "what is not torn must be as before")
	default:
		require.Equal(t, w.Sequence-1, state.Sequence)
		require.Len(t, got, len(before))
		for i := range got {
			if got[i] != before[i] && got[i] != after[i] {
				t.Fatalf("byte %d of a torn replica is neither old nor new", i)
			}
		}
		for start := 0; start < len(got); start += wire.BlockSize {
			end := min(start+wire.BlockSize, len(got))
			if !slices.Contains(corrupt, uint64(start/wire.BlockSize)) {
				block := string(got[start:end])
				require.True(t, block == string(before[start:end]) || block == string(after[start:end]), "block at %d is mixed and matches its checksum", start)
			}
		}
	}
}

func TestAnAcknowledgedWriteSurvivesTheNextOnesCrash(t *testing.T) {
	first, second := makeWrite(1, 0, pattern(1, 9000)), makeWrite(2, 4096, pattern(2, 9000))
	middle := applyTo(nil, first)
	for steps := 0; ; steps++ {
		directory := t.TempDir()
		s, err := open(directory, Options{}, &crashingDisk{left: 4 + steps, part: parts["half"]})
		require.NoError(t, err)
		r := newReplica(t, s) // one step
		_, err = r.Write(first)
		require.NoError(t, err) // three
		_, err = r.Write(second)
		crash(t, s)
		r, getErr := openStore(t, directory).Get(chunk)
		require.NoError(t, getErr)
		checkAfterCrash(t, r, middle, applyTo(middle, second), second)
		if err == nil {
			return
		}
	}
}

func TestATruncationSurvivesACrashAtEveryStep(t *testing.T) {
	before := pattern(1, 21_000)
	for _, length := range []uint64{0, 4096, 9000} {
		t.Run(strconv.FormatUint(length, 10), func(t *testing.T) {
			everyCrash(t, func(t *testing.T, s *Store) {
				_, err := newReplica(t, s).Write(makeWrite(1, 0, before))
				require.NoError(t, err)
			}, func(s *Store) error {
				r, err := s.Get(chunk)
				if err != nil {
					return err
				}
				_, err = r.Truncate(epoch+1, length)
				return err
			}, func(t *testing.T, s *Store) {
				r, err := s.Get(chunk)
				require.NoError(t, err)
				require.False(t, r.State().Torn)
				require.Contains(t, []uint64{length, 21_000}, r.State().Length)
				require.True(t, bytes.Equal(before[:r.State().Length], content(t, r)))
			})
		})
	}
}

func TestACopySurvivesACrashAtEveryStep(t *testing.T) {
	before, after := pattern(1, 9000), pattern(2, 12_000)
	done := State{Chunk: chunk, Epoch: epoch + 1, Sequence: 8, Length: uint64(len(after))}
	for _, existed := range []bool{true, false} {
		t.Run(fmt.Sprintf("existed %v", existed), func(t *testing.T) {
			everyCrash(t, func(t *testing.T, s *Store) {
				if existed {
					_, err := newReplica(t, s).Write(makeWrite(1, 0, before))
					require.NoError(t, err)
				}
			}, func(s *Store) error {
				var old *State
				if r, err := s.Get(chunk); err == nil {
					state := r.State()
					old = &state
				}
				c, err := s.NewCopy(chunk)
				if err != nil {
					return err
				}
				if err := c.WriteAt(after, 0); err != nil {
					return err
				}
				return c.Install(old, done, wire.AppendChecksums(nil, 0, after))
			}, func(t *testing.T, s *Store) {
				r, err := s.Get(chunk)
				if !existed && errors.Is(err, ErrNotFound) {
					return
				}
				require.NoError(t, err)
				if r.State() == done {
					require.True(t, bytes.Equal(after, content(t, r)))
					return
				}
				require.True(t, existed)
				require.EqualValues(t, 1, r.State().Sequence)
				require.True(t, bytes.Equal(before, content(t, r)))
			})
		})
	}
}

func TestACopyDoesNotReplaceWhatChangedMeanwhile(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	r := newReplica(t, s)
	old := r.State()
	c, err := s.NewCopy(chunk)
	require.NoError(t, err)
	_, err = s.NewCopy(chunk)
	require.ErrorIs(t, err, ErrBusy)
	_, err = r.Write(makeWrite(1, 0, []byte("new")))
	require.NoError(t, err)
	require.ErrorIs(t, c.Install(&old, State{Chunk: chunk}, nil), ErrChanged)
	require.ErrorIs(t, c.Install(nil, State{Chunk: chunk}, nil), ErrChanged)
	require.NoError(t, c.Discard())
	require.NoFileExists(t, s.path(chunk, newDataSuffix))
	require.Equal(t, "new", string(content(t, r)))
}

// killed is the child of the next test: it writes and says what was acknowledged.
func killed(directory string) {
	s, err := Open(directory, Options{})
	if err == nil {
		var r *Replica
		if r, err = s.Create(chunk, epoch); err == nil {
			for sequence := r.State().Sequence + 1; err == nil; sequence++ {
				if _, err = r.Write(numberedWrite(sequence)); err == nil {
					fmt.Println(sequence)
				}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// numberedWrite is the write that a sequence stands for.
func numberedWrite(sequence uint64) Write {
	random := rand.New(rand.NewPCG(sequence, 9))
	return makeWrite(sequence, uint64(random.IntN(300<<10)), pattern(byte(sequence), 1+random.IntN(200<<10)))
}

func TestMain(m *testing.M) {
	if directory := os.Getenv("WAGGLE_TEST_KILLED"); directory != "" {
		killed(directory)
	}
	os.Exit(m.Run())
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	directory := t.TempDir()
	var model []byte
	modelled := uint64(0)
	for round := range 25 {
		acknowledged := runUntilKilled(t, directory, round%4 != 0, rand.N(50*time.Millisecond))
		s := openStore(t, directory)
		r, err := s.Get(chunk)
		if errors.Is(err, ErrNotFound) && acknowledged == 0 && modelled == 0 {
			require.NoError(t, s.Close())
			continue
		}
		require.NoError(t, err)
		state := r.State()
		require.GreaterOrEqual(t, state.Sequence, acknowledged, "round %d lost an acknowledged write", round)
		for ; modelled < state.Sequence; modelled++ {
			model = applyTo(model, numberedWrite(modelled+1))
		}
		next := numberedWrite(state.Sequence + 1)
		checkAfterCrash(t, r, model, applyTo(model, next), next)
		require.NoError(t, s.Close())
	}
	require.Greater(t, modelled, uint64(25), "the child must have written something")
}

// runUntilKilled runs the child, kills it some time after its start or its first
// acknowledgement, and returns the last sequence that it said was acknowledged.
func runUntilKilled(t *testing.T, directory string, working bool, after time.Duration) (acknowledged uint64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "WAGGLE_TEST_KILLED="+directory)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	kill := func() { time.AfterFunc(after, func() { _ = child.Process.Kill() }) }
	if !working {
		kill()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		require.NoError(t, err)
		if acknowledged == 0 && working {
			kill()
		}
		acknowledged = n
	}
	require.Error(t, child.Wait())
	return acknowledged
}
