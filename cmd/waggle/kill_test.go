package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

var kills = flag.Int("kills", 6, "how often TestNothingAcknowledgedIsLostWhenRolesAreKilled kills a role")

// roleProcess is a role in a process of its own, which is killed and started
// again at the same addresses.
type roleProcess struct {
	args []string
	cmd  *exec.Cmd
}

func (r *roleProcess) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(os.Args[0], r.args...)
	r.cmd.Env = append(os.Environ(), asProgram+"=1")
	r.cmd.Stderr = t.Output()
	require.NoError(t, r.cmd.Start())
}

func (r *roleProcess) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// TestNothingAcknowledgedIsLostWhenRolesAreKilled kills roles at random moments
// while files are written, and then looks for every byte that was acknowledged.
func TestNothingAcknowledgedIsLostWhenRolesAreKilled(t *testing.T) {
	meta := freeAddress(t)
	roles := []*roleProcess{{args: []string{"meta", "--dir", t.TempDir(), "--address", meta, "--heartbeat", "200ms",
		"--repair-delay", "1s", "--repairs-per-second", "1000"}}}
	for range 3 {
		roles = append(roles, &roleProcess{args: []string{"chunk", "--dir", t.TempDir(), "--meta", meta,
			"--data-address", freeAddress(t), "--control-address", freeAddress(t), "--peer-timeout", "2s"}})
	}
	for _, r := range roles {
		r.start(t)
		t.Cleanup(r.kill)
	}
	c, err := client.Dial(t.Context(), meta, client.Options{Patience: 60 * time.Second})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		state, err := c.Cluster(t.Context())
		return err == nil && len(state.Servers) == 3
	}, 20*time.Second, 20*time.Millisecond)

	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var logs [8]writerLog
	for i := range logs {
		logs[i].id = i
		writers.Go(func() { logs[i].run(ctx, c, rand.New(rand.NewPCG(uint64(seed), uint64(i)))) })
	}
	random := rand.New(rand.NewPCG(uint64(seed), 99))
	for range *kills {
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		victim := roles[random.IntN(len(roles))]
		victim.kill()
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		victim.start(t)
	}
	time.Sleep(300 * time.Millisecond)
	stop()
	writers.Wait()

	files := 0
	for i := range logs {
		require.NoError(t, logs[i].failed)
		files += len(logs[i].acknowledged)
		for name, want := range logs[i].acknowledged {
			got, err := c.ReadFile(t.Context(), name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%s: %d bytes, want %d", name, len(got), len(want))
		}
	}
	require.Greater(t, files, len(logs))
	t.Logf("%d files are intact after %d kills", files, *kills)
	var code int
	var found string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		// At first replicas are missing that are being made again.
		if code, found, _ = waggle(t, "fsck", "--data", "--meta", meta); code == 0 {
			return
		}
	}
	t.Fatalf("fsck exits with %d: %s", code, found)
}

// writerLog is what one writer was told is there.
type writerLog struct {
	id           int
	acknowledged map[string][]byte
	failed       error
}

func (l *writerLog) run(ctx context.Context, c *client.Client, random *rand.Rand) {
	l.acknowledged = make(map[string][]byte)
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("/%d-%d", l.id, i)
		content := bytes.Repeat([]byte(name+" "), 1+random.IntN(1<<random.IntN(18))/len(name))
		err := l.write(ctx, c, name, content)
		switch {
		case err == nil:
			l.acknowledged[name] = content
		case errors.Is(err, fs.ErrExist):
			l.failed = fmt.Errorf("a name was made twice: %w", err)
			return
		case ctx.Err() == nil:
			l.failed = err
			return
		}
	}
}

func (l *writerLog) write(ctx context.Context, c *client.Client, name string, content []byte) error {
	f, err := c.OpenFile(ctx, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, client.FileOptions{Mode: 0o644, ChunkSize: wire.MinChunkSize})
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
