package client

import (
	"context"
	"fmt"
	"time"

	"waggle/dfs/wire"
)

// Explanation says how a lookup was answered.
type Explanation struct {
	// AnsweredBy is "the kernel" (the XDP program of lookup=xdp) or "user space".
	AnsweredBy string `json:"answered_by"`
	// Microseconds from sending the datagram to having its answer.
	Microseconds float64 `json:"microseconds"`
	// Names is how many of the path's names it asked for: at most 16.
	Names int `json:"names"`
}

// Explain looks a path up once more, with a single datagram, and says who answered
// it and in what time. A path that does not exist is no error.
func (c *Client) Explain(ctx context.Context, path string) (Explanation, error) {
	var q wire.LookupRequest
	if _, err := c.hashNames(&q, path); err != nil {
		return Explanation{}, fmt.Errorf("explain %s: %w", path, err)
	}
	s := c.session.Load()
	q.Session, q.Start = s.id, wire.RootInode
	_, who, err := s.lookups.Explain(ctx, &q)
	if err != nil {
		return Explanation{}, fmt.Errorf("explain %s: %w", path, err)
	}
	e := Explanation{AnsweredBy: "user space", Microseconds: float64(who.Took) / float64(time.Microsecond), Names: int(q.Components)}
	if who.InKernel {
		e.AnsweredBy = "the kernel"
	}
	return e, nil
}
