// Package lookup answers lookup datagrams in the network driver: an XDP program
// walks a path through tables in the kernel and sends the answer back without
// waking a process. What it can't answer goes up to the UDP server unchanged.
//
// The package knows the layout of the datagrams (lookup.bpf.c) and nothing of
// the file system behind them: whoever uses it keeps the tables true. The rule
// is: every key that is in a table holds what the server itself would answer
// now. So a change removes the keys that it touches before it happens, and puts
// nothing back until it has happened.
package lookup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Sizes in bytes of what the tables hold, in the form that it has in an answer.
const (
	AttributesSize = 64
	LocationSize   = 216
	MaxContent     = 1024
	HashSize       = 16
	// MaxGroups is how many supplementary groups a session can have here.
	MaxGroups = 16
)

// Options say how large the tables are and which server they speak for.
type Options struct {
	// Port is the UDP port of the server that the program stands before.
	Port uint16
	// IPv4 and IPv6 are the server's addresses; zeros stand for any address.
	IPv4 [4]byte
	IPv6 [16]byte
	// MAC is the hardware address of the interface that the program is for; zeros
	// on loopback. Frames for others, and for all, are left alone.
	MAC [6]byte
	// Entries is how many directory entries the tables hold, and as many inodes.
	// Beyond it the least recently used go. Locations and Contents likewise.
	Entries, Locations, Contents uint32
	Sessions                     uint32
}

// Table is the tables in the kernel with the program that reads them. Its
// methods may be called from any goroutine.
type Table struct {
	mac        [6]byte
	objects    lookupObjects
	mu         sync.Mutex // one writer
	generation *uint64    // shared with the program; odd while the tables change
	mapped     []byte
	stopped    bool // the generation stays odd
	updates    atomic.Uint64
}

// Open loads the program and makes its tables. It needs CAP_BPF, CAP_NET_ADMIN
// and CAP_PERFMON. All is gone when the Table is closed or the process ends.
func Open(o Options) (*Table, error) {
	if o.Port == 0 || o.Entries == 0 || o.Locations == 0 || o.Contents == 0 || o.Sessions == 0 {
		return nil, errors.New("open lookup tables: port and all sizes must be set")
	}
	spec, err := loadLookup()
	if err != nil {
		return nil, fmt.Errorf("read the lookup program: %w", err)
	}
	for name, size := range map[string]uint32{
		"sessions": o.Sessions, "entries": o.Entries, "inodes": o.Entries, "locations": o.Locations,
		"contents_small": o.Contents, "contents_middle": o.Contents, "contents_large": o.Contents,
	} {
		spec.Maps[name].MaxEntries = size
	}
	port := [2]byte{}
	binary.BigEndian.PutUint16(port[:], o.Port)
	for name, value := range map[string]any{"server_port": port, "server_ipv4": o.IPv4, "server_ipv6": o.IPv6, "server_mac": o.MAC} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of the lookup program: %w", name, err)
		}
	}
	t := &Table{mac: o.MAC}
	if err := spec.LoadAndAssign(&t.objects, nil); err != nil {
		return nil, fmt.Errorf("load the lookup program: %w", err)
	}
	t.mapped, err = unix.Mmap(t.objects.Generation.FD(), 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.objects.Close()
		return nil, fmt.Errorf("map the lookup tables' generation: %w", err)
	}
	t.generation = (*uint64)(unsafe.Pointer(&t.mapped[0]))
	return t, nil
}

// Stop has nothing answered from the tables any more, from now on and for ever,
// wherever the program is attached. Updates do nothing then.
func (t *Table) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.stopped = true
		atomic.AddUint64(t.generation, 1)
	}
}

// Close stops the program, unloads it and drops the tables. Only Update, Stop and
// the Has... methods may still be called.
func (t *Table) Close() error {
	t.Stop()
	return errors.Join(unix.Munmap(t.mapped), t.objects.Close())
}

// Session is who asks. It decides which directories may be searched.
type Session struct {
	UID, GID uint32
	Groups   []uint32 // at most MaxGroups
}

// Writer changes the tables; see Table.Update. The first error stays.
type Writer struct {
	t   *Table
	err error
}

// Update calls change, which may use the Writer until it returns. Lookups that
// come meanwhile, or that a change overtakes, go to the server. So a change
// should be short.
func (t *Table) Update(change func(*Writer)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return nil
	}
	w := Writer{t: t}
	atomic.AddUint64(t.generation, 1)
	defer atomic.AddUint64(t.generation, 1)
	t.updates.Add(1)
	change(&w)
	return w.err
}

// Updates returns how often the tables were changed. While they change, lookups
// go to the server.
func (t *Table) Updates() uint64 { return t.updates.Load() }

// HasEntry says whether the tables know what a name in a directory stands for.
func (t *Table) HasEntry(parent uint64, hash [HashSize]byte) bool {
	return t.has(t.objects.Entries, lookupEntryKey{Parent: parent, Hash: hash})
}

// HasInode says whether the tables hold an inode's attributes.
func (t *Table) HasInode(inode uint64) bool { return t.has(t.objects.Inodes, inode) }

// HasContent says whether the tables hold the bytes of a small file of that size.
func (t *Table) HasContent(inode uint64, size int) bool {
	m, _ := t.contents(size)
	return m != nil && t.has(m, inode)
}

// HasLocation says whether the tables hold the location of a file's chunk.
func (t *Table) HasLocation(inode uint64, index uint32) bool {
	return t.has(t.objects.Locations, lookupLocationKey{Inode: inode, Index: uint64(index)})
}

// has holds nothing to be in a table that is stopped, which may be closed.
func (t *Table) has(m *ebpf.Map, key any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	value, err := m.LookupBytes(key)
	return err == nil && value != nil
}

// contents returns the table for small files of a size, and how many bytes each
// has there; nil if there is none.
func (t *Table) contents(size int) (m *ebpf.Map, bytes int) {
	switch {
	case size <= len(lookupContentSmall{}.Bytes):
		return t.objects.ContentsSmall, len(lookupContentSmall{}.Bytes)
	case size <= len(lookupContentMiddle{}.Bytes):
		return t.objects.ContentsMiddle, len(lookupContentMiddle{}.Bytes)
	case size <= MaxContent:
		return t.objects.ContentsLarge, MaxContent
	}
	return nil, 0
}

func (w *Writer) put(m *ebpf.Map, what string, key, value any) {
	if err := m.Put(key, value); err != nil && w.err == nil {
		w.err = fmt.Errorf("put a lookup %s into the kernel: %w", what, err)
	}
}

// remove says whether the key was there.
func (w *Writer) remove(m *ebpf.Map, what string, key any) bool {
	err := m.Delete(key)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && w.err == nil {
		w.err = fmt.Errorf("remove a lookup %s from the kernel: %w", what, err)
	}
	return err == nil
}

// PutSession admits a session.
func (w *Writer) PutSession(id uint64, s Session) error {
	if len(s.Groups) > MaxGroups {
		return fmt.Errorf("session has %d groups: the kernel's tables hold %d", len(s.Groups), MaxGroups)
	}
	value := lookupSession{Uid: s.UID, Gid: s.GID, GroupCount: uint32(len(s.Groups))}
	copy(value.Groups[:], s.Groups)
	w.put(w.t.objects.Sessions, "session", id, value)
	return nil
}

// RemoveSession ends a session.
func (w *Writer) RemoveSession(id uint64) { w.remove(w.t.objects.Sessions, "session", id) }

// PutEntry says which inode a name in a directory stands for; 0 says that there
// is no such name.
func (w *Writer) PutEntry(parent uint64, hash [HashSize]byte, inode uint64) {
	w.put(w.t.objects.Entries, "entry", lookupEntryKey{Parent: parent, Hash: hash}, inode)
}

// RemoveEntry forgets what is known of a name in a directory.
func (w *Writer) RemoveEntry(parent uint64, hash [HashSize]byte) {
	w.remove(w.t.objects.Entries, "entry", lookupEntryKey{Parent: parent, Hash: hash})
}

// PutInode gives an inode's attributes, as they stand in an answer.
func (w *Writer) PutInode(inode uint64, attributes [AttributesSize]byte) {
	w.put(w.t.objects.Inodes, "inode", inode, attributes)
}

// RemoveInode forgets an inode's attributes and its small content. It says
// whether the attributes were there.
func (w *Writer) RemoveInode(inode uint64) (present bool) {
	present = w.remove(w.t.objects.Inodes, "inode", inode)
	for _, m := range []*ebpf.Map{w.t.objects.ContentsSmall, w.t.objects.ContentsMiddle, w.t.objects.ContentsLarge} {
		w.remove(m, "content", inode)
	}
	return present
}

// PutContent gives the bytes of a small file, all of them: at most MaxContent.
func (w *Writer) PutContent(inode uint64, content []byte) {
	m, size := w.t.contents(len(content))
	if m == nil {
		w.err = errors.Join(w.err, fmt.Errorf("put a lookup content of %d bytes into the kernel: at most %d fit", len(content), MaxContent))
		return
	}
	value := make([]byte, size)
	copy(value, content)
	w.put(m, "content", inode, value)
}

// PutLocation gives the location of a file's chunk, as it stands in an answer.
func (w *Writer) PutLocation(inode uint64, index uint32, location [LocationSize]byte) {
	w.put(w.t.objects.Locations, "location", lookupLocationKey{Inode: inode, Index: uint64(index)}, location)
}

// RemoveLocation forgets the location of a file's chunk.
func (w *Writer) RemoveLocation(inode uint64, index uint32) {
	w.remove(w.t.objects.Locations, "location", lookupLocationKey{Inode: inode, Index: uint64(index)})
}

// RemoveLocations forgets the locations of all chunks. If it can't go through
// all of them, that is the Writer's error, and some are still there.
func (w *Writer) RemoveLocations() {
	var key lookupLocationKey
	var value []byte
	var keys []lookupLocationKey
	all := w.t.objects.Locations.Iterate()
	for all.Next(&key, &value) {
		keys = append(keys, key)
	}
	if err := all.Err(); err != nil && w.err == nil {
		w.err = fmt.Errorf("go through the lookup locations in the kernel: %w", err)
	}
	for _, key := range keys {
		w.remove(w.t.objects.Locations, "location", key)
	}
}
