package client

import (
	"context"

	"waggle/dfs/wire"
)

// Locate tells where a chunk of the file is, for a caller that moves its bytes
// itself. Its Chunk is 0 for a hole. With again the metadata server is asked
// even if the location is known, because it turned out to be wrong.
func (f *File) Locate(ctx context.Context, index uint32, again bool) (wire.Location, error) {
	if again {
		f.forget(index)
	}
	location, err := f.location(ctx, index)
	return location, f.wrap("locate", err)
}
