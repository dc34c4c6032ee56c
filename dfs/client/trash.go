package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"waggle/dfs/wire/control"
)

// Trashed is a removed file that can be undeleted.
type Trashed struct {
	Inode   uint64    `json:"inode"`
	Path    string    `json:"path"` // as it was removed by
	Size    uint64    `json:"size_bytes"`
	UID     uint32    `json:"uid"`
	Removed time.Time `json:"removed"`
	Expires time.Time `json:"expires"` // then it is removed for good, or before if there is no room
}

// Trash lists the removed files that can be undeleted, the one removed first comes
// first: all for root, their own for others.
func (c *Client) Trash(ctx context.Context) ([]Trashed, error) {
	var all []Trashed
	var after []byte
	for {
		reply, err := call(ctx, c, func(ctx context.Context, s *session) (*control.TrashReply, error) {
			return c.control.Trash(ctx, &control.TrashRequest{Session: s.id, After: after}, wait)
		})
		if err != nil {
			return nil, fmt.Errorf("list the trash: %w", err)
		}
		for _, e := range reply.Entries {
			all = append(all, Trashed{e.Inode, e.Path, e.Size, e.Uid, time.Unix(0, e.RemovedNs), time.Unix(0, e.ExpiresNs)})
		}
		if after = reply.Next; len(after) == 0 {
			return all, nil
		}
	}
}

// FindTrashed returns what was removed last of all that a path, or an inode's number
// behind "#", names in the trash.
func (c *Client) FindTrashed(ctx context.Context, name string) (Trashed, error) {
	all, err := c.Trash(ctx)
	if err != nil {
		return Trashed{}, err
	}
	number, isNumber := strings.CutPrefix(name, "#")
	inode, bad := strconv.ParseUint(number, 10, 64)
	path := "/" + strings.Trim(name, "/")
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Path == path || isNumber && bad == nil && all[i].Inode == inode {
			return all[i], nil
		}
	}
	return Trashed{}, pathError("find in the trash", name, fs.ErrNotExist)
}

// Undelete gives a removed file a name again, which must be free.
func (c *Client) Undelete(ctx context.Context, inode uint64, to string) error {
	named, err := node(to, false)
	if err != nil {
		return pathError("undelete", to, err)
	}
	_, err = call(ctx, c, func(ctx context.Context, s *session) (*control.Attributes, error) {
		return c.control.Undelete(ctx, &control.UndeleteRequest{Session: s.id, Inode: inode, To: named}, wait)
	})
	if err != nil {
		return pathError("undelete", to, err)
	}
	return nil
}

// Decommission drains a chunk server and then takes it from the cluster. It tells how
// many replicas are left on it, and returns when the server was removed. If ctx ends
// before, the server is drained all the same.
func (c *Client) Decommission(ctx context.Context, server uint32, tell func(left uint64)) error {
	return c.drain(ctx, &control.DecommissionRequest{Server: server}, tell)
}

// KeepServer goes on with a chunk server that is being drained.
func (c *Client) KeepServer(ctx context.Context, server uint32) error {
	return c.drain(ctx, &control.DecommissionRequest{Server: server, Cancel: true}, func(uint64) {})
}

func (c *Client) drain(ctx context.Context, request *control.DecommissionRequest, tell func(left uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.control.Decommission(ctx, request)
	for err == nil {
		var progress *control.DrainProgress
		if progress, err = stream.Recv(); err == nil {
			tell(progress.ReplicasLeft)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("decommission chunk server %d: %w", request.Server, fromStatus(err))
}

// Rebalance has replicas moved from full chunk servers to empty ones, and returns how
// many chunks were put into the queue for that.
func (c *Client) Rebalance(ctx context.Context) (moves uint64, err error) {
	reply, err := call(ctx, c, func(ctx context.Context, _ *session) (*control.RebalanceReply, error) {
		return c.control.Rebalance(ctx, &control.Empty{}, wait)
	})
	if err != nil {
		return 0, fmt.Errorf("rebalance: %w", err)
	}
	return reply.Moves, nil
}
