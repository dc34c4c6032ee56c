package client_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
)

const (
	benchFile = 64 << 20
	benchRead = 1 << 20
)

// BenchmarkFloor is what sequential reads are compared with: pread and write
// over one TCP connection, and nothing else.
func BenchmarkFloor(b *testing.B) {
	name := filepath.Join(b.TempDir(), "data")
	require.NoError(b, os.WriteFile(name, content(benchFile), 0o600))
	file, err := os.Open(name)
	require.NoError(b, err)
	defer file.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buffer := make([]byte, benchRead)
		for at := int64(0); ; at += benchRead {
			if _, err := file.ReadAt(buffer, at%benchFile); err != nil {
				return
			}
			if _, err := conn.Write(buffer); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(b, err)
	defer conn.Close()
	buffer := make([]byte, benchRead)
	b.SetBytes(benchRead)
	for b.Loop() {
		_, err := io.ReadFull(conn, buffer)
		require.NoError(b, err)
	}
}

func BenchmarkSequentialRead(b *testing.B) {
	c := dfstest.Start(b, dfstest.Options{}).Dial(client.Options{})
	require.NoError(b, c.WriteFile(b.Context(), "/f", content(benchFile), 0o644))
	f, err := c.Open(b.Context(), "/f")
	require.NoError(b, err)
	defer f.Close()
	buffer := make([]byte, benchRead)
	b.SetBytes(benchRead)
	b.ReportAllocs()
	for b.Loop() {
		_, err := io.ReadFull(f, buffer)
		if err == io.EOF {
			_, err = f.Seek(0, io.SeekStart)
		}
		require.NoError(b, err)
	}
}

func BenchmarkReadAt(b *testing.B) {
	c := dfstest.Start(b, dfstest.Options{}).Dial(client.Options{})
	require.NoError(b, c.WriteFile(b.Context(), "/f", content(benchFile), 0o644))
	f, err := c.Open(b.Context(), "/f")
	require.NoError(b, err)
	defer f.Close()
	for _, size := range []int64{4 << 10, 64 << 10, 1 << 20, 32 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			buffer := make([]byte, size)
			at := int64(0)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				_, err := f.ReadAt(buffer, at)
				require.NoError(b, err)
				at = (at + size) % benchFile
			}
		})
	}
}

func BenchmarkSequentialWrite(b *testing.B) {
	c := dfstest.Start(b, dfstest.Options{}).Dial(client.Options{})
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			f, err := c.Create(b.Context(), "/f")
			require.NoError(b, err)
			defer f.Close()
			data := content(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := f.Write(data)
				require.NoError(b, err)
				if at, _ := f.Seek(0, io.SeekCurrent); at >= benchFile {
					f.Seek(0, io.SeekStart)
				}
			}
		})
	}
}

// smallFiles is how many a benchmark reads.
const smallFiles = 1000

func BenchmarkReadSmallFiles(b *testing.B) {
	c := dfstest.Start(b, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	for i := range smallFiles {
		require.NoError(b, c.WriteFile(b.Context(), fmt.Sprint("/", i), content(1024), 0o644))
	}
	var next atomic.Int64
	b.SetParallelism(8) // 16 goroutines on 2 processors
	b.ReportAllocs()
	b.ResetTimer() // without making the files
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			got, err := c.ReadFile(b.Context(), fmt.Sprint("/", next.Add(1)%smallFiles))
			if err != nil || len(got) != 1024 {
				b.Error(len(got), err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkCreateSmallFiles(b *testing.B) {
	c := dfstest.Start(b, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	var next atomic.Int64
	data := content(1024)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := c.WriteFile(b.Context(), fmt.Sprint("/", next.Add(1)), data, 0o644); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
