package meta

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"waggle/dfs/wire/control"
)

// Limits of extended attributes.
const (
	maxXattrs     = 64 // of an inode
	maxXattrName  = 255
	maxXattrValue = 4096 // bytes
)

func (m *mutation) setAttributes(q *control.SetAttributes) (*inode, error) {
	n, err := m.node(q.Node)
	if err != nil {
		return nil, err
	}
	if err := m.maySetAttributes(q, n); err != nil {
		return nil, err
	}
	if q.Mode != nil {
		n.Mode = n.Mode&unix.S_IFMT | *q.Mode&permissionBits
	}
	if (q.Uid != nil || q.Gid != nil) && isFile(n) && m.who.uid != 0 {
		n.Mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if q.Uid != nil {
		n.UID = *q.Uid
	}
	if q.Gid != nil {
		n.GID = *q.Gid
	}
	if q.ModifiedNs != nil {
		n.ModifiedNs = *q.ModifiedNs
	}
	m.putInode(n)
	return n, nil
}

func (m *mutation) maySetAttributes(q *control.SetAttributes, n *inode) error {
	switch {
	case m.who.uid == 0:
		return nil
	case m.who.uid != n.UID:
		return refusal(codes.PermissionDenied, "inode %d is not yours", n.Inode)
	case q.Uid != nil && *q.Uid != n.UID:
		return refusal(codes.PermissionDenied, "only root gives files away")
	case q.Gid != nil && *q.Gid != n.GID && !m.who.in(*q.Gid):
		return refusal(codes.PermissionDenied, "you are not in group %d", *q.Gid)
	}
	return nil
}

func (m *mutation) setXattr(q *control.SetXattr) (*inode, error) {
	if len(q.Name) == 0 || len(q.Name) > maxXattrName || len(q.Value) > maxXattrValue {
		return nil, refusal(codes.InvalidArgument, "extended attribute %.40q with %d bytes: a name of 1 to %d bytes and a value of at most %d are allowed",
			q.Name, len(q.Value), maxXattrName, maxXattrValue)
	}
	n, err := m.node(q.Node)
	if err != nil {
		return nil, err
	}
	if !m.maySetXattr(q.Name, n) {
		return nil, refusal(codes.PermissionDenied, "no permission to set extended attribute %q of inode %d", q.Name, n.Inode)
	}
	k := xattrKey(n.Inode)
	all, _ := load(m.change, k, decodeXattrs)
	at, exists := slices.BinarySearchFunc(all, q.Name, func(x xattr, name string) int { return strings.Compare(x.name, name) })
	switch {
	case !exists && (q.Remove || q.Replace):
		return nil, refusal(codes.NotFound, "inode %d has no extended attribute %q", n.Inode, q.Name)
	case exists && q.Create && !q.Remove:
		return nil, refusal(codes.AlreadyExists, "inode %d has extended attribute %q", n.Inode, q.Name)
	case !exists && len(all) == maxXattrs:
		return nil, refusal(codes.ResourceExhausted, "inode %d has %d extended attributes: no more are allowed", n.Inode, maxXattrs)
	}
	all = slices.Clone(all)
	switch value := bytes.Clone(q.Value); {
	case q.Remove:
		all = slices.Delete(all, at, at+1)
	case exists:
		all[at].value = value
	default:
		all = slices.Insert(all, at, xattr{q.Name, value})
	}
	if len(all) == 0 {
		m.delete(k)
	} else {
		m.put(k, all)
	}
	m.putInode(n)
	return n, nil
}

// maySetXattr follows Linux: what is not the user's is root's.
func (m *mutation) maySetXattr(name string, n *inode) bool {
	if !strings.HasPrefix(name, "user.") {
		return m.who.uid == 0
	}
	return m.who.may(&n.Attributes, mayWrite)
}
