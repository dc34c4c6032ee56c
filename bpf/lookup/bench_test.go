package lookup

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// benchDirectories is how many directories the files of a benchmark are in.
const benchDirectories = 64

// BenchmarkEntries looks up files at random, /DIRECTORY/FILE, in tables of one
// size that hold more and more names: what one lookup takes in the program, from
// the kernel's own clock, and how much memory the tables take. A lookup of a
// million names meets colder caches, and no longer way. The tables have room for
// two million, because those of the kind that forgets what is least recently used
// begin with that before they are full.
func BenchmarkEntries(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	for _, files := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) { benchmarkEntries(b, files) })
	}
}

func benchmarkEntries(b *testing.B, files int) {
	table, err := Open(Options{Port: testPort, IPv4: serverIPv4, MAC: serverMAC, Entries: 1 << 21, Locations: 1 << 16, Contents: 1 << 17, Sessions: 16384})
	require.NoError(b, err)
	defer table.Close()
	fillMany(b, table, files)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		file := rand.IntN(files)
		packet := overIPv4(request(0, 0, nameOf(file%benchDirectories), nameOf(benchDirectories+file)))
		action, d, err := table.objects.AnswerLookups.Benchmark(packet, 1, nil)
		if err != nil || action != xdpTX {
			b.Fatalf("file %d: action %d, %v", file, action, err)
		}
		took = append(took, d)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "kernel-p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "kernel-p99-ns")
	b.ReportMetric(tableMiB(b, table), "MiB")
}

// nameOf is the hash of a name by its number.
func nameOf(number int) (hash [HashSize]byte) {
	binary.LittleEndian.PutUint64(hash[:], uint64(number)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(hash[8:], uint64(number))
	return hash
}

// fillMany makes directories and as many files in them, many with one call.
func fillMany(b *testing.B, table *Table, files int) {
	var keys []lookupEntryKey
	var children, inodes []uint64
	var values [][AttributesSize]byte
	add := func(parent uint64, number int, mode uint32) {
		inode := uint64(2 + number)
		keys, children = append(keys, lookupEntryKey{Parent: parent, Hash: nameOf(number)}), append(children, inode)
		inodes, values = append(inodes, inode), append(values, attributes(inode, mode, 0))
	}
	for d := range benchDirectories {
		add(1, d, directory)
	}
	for f := range files {
		add(uint64(2+f%benchDirectories), benchDirectories+f, regular)
	}
	require.NoError(b, table.Update(func(w *Writer) {
		require.NoError(b, w.PutSession(testSession, Session{}))
		w.PutInode(1, attributes(1, directory, 0))
	}))
	_, err := table.objects.Entries.BatchUpdate(keys, children, nil)
	require.NoError(b, err)
	_, err = table.objects.Inodes.BatchUpdate(inodes, values, nil)
	require.NoError(b, err)
}

// tableMiB is the memory that the kernel says the tables take.
func tableMiB(b *testing.B, table *Table) float64 {
	var bytes uint64
	o := &table.objects
	for _, m := range []*ebpf.Map{o.Sessions, o.Entries, o.Inodes, o.Locations, o.ContentsSmall, o.ContentsMiddle, o.ContentsLarge} {
		info, err := m.Info()
		require.NoError(b, err)
		n, ok := info.Memlock()
		require.True(b, ok)
		bytes += n
	}
	return float64(bytes) / (1 << 20)
}
