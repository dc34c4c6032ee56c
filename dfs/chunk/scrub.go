package chunk

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"waggle/dfs/chunk/replica"
)

// scrubPause lies between two passes over all replicas.
const scrubPause = time.Minute

// scrub reads all replicas over and over, slowly, and reports the blocks that do
// not match their checksums, and the replicas that can't be read. It ends with ctx.
func (s *Server) scrub(ctx context.Context) error {
	if s.config.ScrubRate <= 0 {
		return nil
	}
	limit := rate.NewLimiter(rate.Limit(s.config.ScrubRate), replica.VerifyWindow)
	read := s.Counters().Counter("chunk_scrubbed_bytes")
	for ctx.Err() == nil {
		for _, id := range s.store.IDs() {
			r, err := s.store.Get(id)
			if err != nil { // deleted meanwhile
				continue
			}
			err = r.Verify(func(bytes int) error {
				read.Add(int64(bytes))
				return limit.WaitN(ctx, bytes)
			}, func(offset uint64) {
				s.warn("block does not match its checksum", "chunk", id, "offset", offset)
				s.reportCorrupt(id, offset)
			})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil && !errors.Is(err, replica.ErrNotFound) {
				s.reportFailing(id, err)
				s.warn("can't read a replica", "chunk", id, "error", err)
			}
		}
		sleep(ctx, scrubPause)
	}
	return nil
}
