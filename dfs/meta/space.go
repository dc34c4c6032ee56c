package meta

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire/control"
)

const (
	// spaceReserve is how many bytes of the disk are left alone: files can still be
	// removed then, and what was acknowledged has room to be put into tables. A
	// store that finds the disk full can only end its process.
	spaceReserve = 128 << 20
	spaceEvery   = 100 * time.Millisecond // looked at so often
)

// space knows whether the disk has room for more metadata.
type space struct {
	directory string

	mu     sync.Mutex
	looked time.Time
	err    error
}

// room returns a refusal if there is none.
func (s *space) room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) < spaceEvery {
		return s.err
	}
	s.looked, s.err = time.Now(), nil
	var disk unix.Statfs_t
	if unix.Statfs(s.directory, &disk) != nil {
		return nil // whoever writes there next says what is wrong
	}
	if disk.Blocks == 0 {
		return nil // as some file systems say that do not count
	}
	if left := disk.Bavail * uint64(disk.Bsize); left < spaceReserve {
		s.err = refuse("ENOSPC", "the metadata server's disk has %d MiB left, and takes nothing new below %d: free some, there or by removing files",
			left>>20, spaceReserve>>20)
	}
	return s.err
}

// grows says whether a mutation makes the metadata larger. One that does so only
// by a number, or to end what was begun, does not.
func grows(asked *control.Mutation) bool {
	switch q := asked.Change.(type) {
	case *control.Mutation_Create, *control.Mutation_Mkdir, *control.Mutation_Symlink, *control.Mutation_Link, *control.Mutation_WriteInline:
		return true
	case *control.Mutation_SetXattr:
		return !q.SetXattr.Remove
	}
	return false
}
