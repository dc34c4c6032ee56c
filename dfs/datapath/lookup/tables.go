package lookup

import (
	"waggle/bpf/lookup"
	"waggle/dfs/wire"
)

// Tables are what a program in the kernel answers from. Whatever stands in them
// must be what the Resolver would answer, at every moment: so a record is
// forgotten before it changes, and put back only after everybody sees the
// change. The caller sees to that order.
type Tables struct {
	table *lookup.Table
}

// Disable has nothing answered from the tables any more.
func (t *Tables) Disable() { t.table.Stop() }

// Entry is a name in a directory; inode 0 says that there is no such name.
type Entry struct {
	Parent uint64
	Name   wire.NameHash
	Inode  uint64
}

// Place is a chunk's place in a file.
type Place struct {
	Inode uint64
	Index uint32
}

// Records are parts of the tables.
type Records struct {
	Entries   []Entry // to forget one, its Inode does not matter
	Inodes    []Inode
	Locations []Located
}

// Inode is an inode's attributes and, for a small file, its content. To forget
// one, only its number matters.
type Inode struct {
	Attributes wire.Attributes
	Content    []byte
}

// Located is where a chunk is. To forget it, only its place matters.
type Located struct {
	Place
	wire.Location
}

// Forget removes records. It returns the numbers of the inodes that were there.
func (t *Tables) Forget(r *Records) (present []uint64, err error) {
	err = t.table.Update(func(w *lookup.Writer) {
		for _, e := range r.Entries {
			w.RemoveEntry(e.Parent, e.Name)
		}
		for i := range r.Inodes {
			if number := r.Inodes[i].Attributes.Inode; w.RemoveInode(number) {
				present = append(present, number)
			}
		}
		for i := range r.Locations {
			w.RemoveLocation(r.Locations[i].Inode, r.Locations[i].Place.Index)
		}
	})
	return present, err
}

// ForgetLocations removes the locations of all chunks.
func (t *Tables) ForgetLocations() error {
	return t.table.Update(func(w *lookup.Writer) { w.RemoveLocations() })
}

// Put adds the records that are missing, in the place of the least recently used
// if there is no room. What is there is true, and is left alone: while the tables
// change nothing is answered from them.
func (t *Tables) Put(r *Records) error {
	missing := t.missing(r)
	if len(missing.Entries)+len(missing.Inodes)+len(missing.Locations) == 0 {
		return nil
	}
	return t.table.Update(func(w *lookup.Writer) { put(w, &missing) })
}

// missing returns the records that are not in the tables.
func (t *Tables) missing(r *Records) (missing Records) {
	for _, e := range r.Entries {
		if !t.table.HasEntry(e.Parent, e.Name) {
			missing.Entries = append(missing.Entries, e)
		}
	}
	for _, n := range r.Inodes {
		number, size := n.Attributes.Inode, int(n.Attributes.InlineSize)
		if !t.table.HasInode(number) || size > 0 && !t.table.HasContent(number, size) {
			missing.Inodes = append(missing.Inodes, n)
		}
	}
	for _, l := range r.Locations {
		if !t.table.HasLocation(l.Inode, l.Place.Index) {
			missing.Locations = append(missing.Locations, l)
		}
	}
	return missing
}

func put(w *lookup.Writer, r *Records) {
	for _, e := range r.Entries {
		w.PutEntry(e.Parent, e.Name, e.Inode)
	}
	for i := range r.Inodes {
		n := &r.Inodes[i]
		w.PutInode(n.Attributes.Inode, [lookup.AttributesSize]byte(n.Attributes.Append(nil)))
		if n.Attributes.InlineSize > 0 {
			w.PutContent(n.Attributes.Inode, n.Content)
		}
	}
	for i := range r.Locations {
		l := &r.Locations[i]
		w.PutLocation(l.Inode, l.Place.Index, [lookup.LocationSize]byte(l.Location.Append(nil)))
	}
}

// PutSession admits a session. One with more groups than the tables hold is
// left to user space.
func (t *Tables) PutSession(id uint64, uid, gid uint32, groups []uint32) error {
	if len(groups) > lookup.MaxGroups {
		return nil
	}
	return t.table.Update(func(w *lookup.Writer) {
		w.PutSession(id, lookup.Session{UID: uid, GID: gid, Groups: groups})
	})
}

// RemoveSession ends a session's lookups.
func (t *Tables) RemoveSession(id uint64) error {
	return t.table.Update(func(w *lookup.Writer) { w.RemoveSession(id) })
}
