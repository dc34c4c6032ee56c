package meta

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// sumsStart is where the checksums begin in a replica's file of sums.
const sumsStart = 20 << 10

// files returns the paths of a replica's files.
func (h *host) files(chunk uint64) (data, sums string) {
	at := filepath.Join(h.directory, "replicas", fmt.Sprintf("%02x", chunk%256), fmt.Sprintf("%016x", chunk))
	return at + ".data", at + ".sums"
}

// losePower stops a host and takes the data and the checksums of a replica back to
// what they were, as a disk does that had only the headers when the power went.
func (h *host) losePower(chunk uint64, data, sums []byte) {
	h.rig.t.Helper()
	h.stop()
	dataPath, sumsPath := h.files(chunk)
	require.NoError(h.rig.t, os.WriteFile(dataPath, data, 0o644))
	now, err := os.ReadFile(sumsPath)
	require.NoError(h.rig.t, err)
	require.NoError(h.rig.t, os.WriteFile(sumsPath, append(now[:sumsStart:sumsStart], sums[sumsStart:]...), 0o644))
}

// synced reads what the files of a replica hold.
func (h *host) synced(chunk uint64) (data, sums []byte) {
	dataPath, sumsPath := h.files(chunk)
	data, err := os.ReadFile(dataPath)
	require.NoError(h.rig.t, err)
	sums, err = os.ReadFile(sumsPath)
	require.NoError(h.rig.t, err)
	return data, sums
}

func TestAReplicaThatLostPowerServesNoOldBlocks(t *testing.T) {
	for _, lost := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d of 3", lost), func(t *testing.T) {
			u, hosts := cluster(t, 3)
			old := strings.Repeat("old!", 2*wire.BlockSize/4)
			inode, chunk := u.store("/f", old)
			var before [3][2][]byte
			for i, h := range hosts {
				before[i][0], before[i][1] = h.synced(chunk)
			}
			l := u.lease(inode, 0)
			l.writeAll(strings.Repeat("new!", wire.BlockSize/4))
			l.write(uint64(len(old)-1), "?", 3)
			if lost < len(hosts) { // otherwise the release would say that the writes are durable
				require.NoError(t, l.release(true))
			}
			want := strings.Repeat("new!", wire.BlockSize/4) + old[wire.BlockSize:len(old)-1] + "?"
			require.True(t, u.has("/f", 3, want))
			for i, h := range hosts[:lost] {
				h.losePower(chunk, before[i][0], before[i][1])
			}
			for _, h := range hosts[:lost] {
				h.start()
			}
			if lost < len(hosts) {
				eventually(t, "the replica is made anew", func() bool {
					got := u.copies("/f")
					for _, content := range got {
						require.NotContains(t, content, "old!old!new", "an old block")
						require.False(t, strings.HasPrefix(content, "old!"), "an old block is served")
					}
					return u.has("/f", 3, want)
				})
			} else { // nobody has the write, which was not synced: all are as before it
				eventually(t, "the replicas are equal", func() bool { return u.has("/f", 3, old) })
			}
			u.checkClean()
		})
	}
}

func TestAReplicaThatTheDiskFailsIsReplaced(t *testing.T) {
	u, hosts := cluster(t, 4)
	_, chunk := u.store("/f", "hello")
	holder := u.lookup("/f", wire.WantLocation).Location.Replicas[0].Server
	for _, h := range hosts {
		if h.status().Server == holder {
			h.failing(chunk)
		}
	}
	eventually(t, "another replica is made, and this one deleted", func() bool {
		for _, r := range u.lookup("/f", wire.WantLocation).Location.Replicas {
			if r.Server == holder {
				return false
			}
		}
		return u.has("/f", 3, "hello")
	})
	u.checkClean()
}

// failing reports that the disk can't read a replica.
func (h *host) failing(chunk uint64) {
	_, err := h.rig.meta.ReportCorrupt(h.rig.t.Context(), &control.CorruptRequest{Chunk: chunk, Server: h.status().Server, Failing: true})
	require.NoError(h.rig.t, err)
}

// A chunk of which nothing was durable, not even that its files exist, can be written
// again after all its servers have lost power.
func TestAChunkThatWasNeverDurableIsEmptyAfterAPowerLoss(t *testing.T) {
	u, hosts := cluster(t, 3)
	u.store("/kept", "kept")
	n := u.must(&control.Create{Node: node("/f"), Mode: 0o644, ChunkSize: wire.MinChunkSize})
	l := u.lease(n.Inode, 0)
	l.writeAll("acknowledged, and not synced")
	for _, h := range hosts {
		h.stop()
		data, sums := h.files(l.Location.Chunk)
		require.NoError(t, os.Remove(data))
		require.NoError(t, os.Remove(sums))
	}
	for _, h := range hosts {
		h.start()
	}
	var again *lease
	eventually(t, "a lease of the chunk", func() (ok bool) {
		var err error
		again, err = u.tryLease(n.Inode, 0)
		return err == nil
	})
	require.Zero(t, again.Length)
	again.writeAll("new")
	u.must(&control.SetSize{Node: node("/f"), Size: 3, GrowOnly: true})
	require.NoError(t, again.release(true))
	eventually(t, "three replicas", func() bool { return u.has("/f", 3, "new") })
	require.True(t, u.has("/kept", 3, "kept"))
}

// A writer whose writes were not durable is told when no replica can be trusted to
// have them any more, also if the chunk was settled before the writer asks.
func TestAWriterIsToldThatAllReplicasLostPower(t *testing.T) {
	u, hosts := cluster(t, 3)
	inode, chunk := u.store("/f", strings.Repeat("old!", wire.BlockSize/4))
	l := u.lease(inode, 0)
	require.Equal(t, u.session, l.LastWriter)
	l.writeAll(strings.Repeat("new!", wire.BlockSize/4))
	for _, h := range hosts { // the header and the checksums are on the disk, the data is half there
		data, sums := h.synced(chunk)
		h.losePower(chunk, append([]byte("old!"), data[4:]...), sums)
	}
	for _, h := range hosts {
		h.start()
	}
	var again *lease
	eventually(t, "a lease of the chunk", func() (ok bool) {
		var err error
		again, err = u.tryLease(inode, 0)
		return err == nil
	})
	require.EqualValues(t, wire.WritesLost, again.LastWriter)
	again.writeAll(strings.Repeat("last", wire.BlockSize/4))
	require.Equal(t, u.session, u.lease(inode, 0).LastWriter, "from then on all is well")
}
