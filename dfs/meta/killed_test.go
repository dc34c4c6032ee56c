package meta

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const childDirectory, childAddress = "WAGGLE_TEST_CHILD_DIRECTORY", "WAGGLE_TEST_CHILD_ADDRESS"

// childReady begins the line in which a child says that it listens.
const childReady = "child is ready"

// smallTables make a lookup's records push out others all the time.
var smallTables = lookup.Sizes{Entries: 8, Locations: 4, Contents: 4, Sessions: 100}

// TestServeUntilKilled is no test but what child runs in a process of its own.
func TestServeUntilKilled(t *testing.T) {
	directory := os.Getenv(childDirectory)
	if directory == "" {
		t.Skip("run by other tests, in a process that they kill")
	}
	server, err := Open(context.Background(), Config{Directory: directory, Control: os.Getenv(childAddress), LookupPath: "xdp-generic", Log: quiet,
		CacheBytes: 32 << 20, SessionTime: time.Hour, lookupSizes: smallTables})
	require.NoError(t, err)
	fmt.Println(childReady)
	require.NoError(t, server.Serve(context.Background()))
}

// child is a metadata server in a process that can be killed.
type child struct {
	t                  testing.TB
	directory, address string
	process            *exec.Cmd
}

// startChild starts a server in this process's network.
func startChild(t testing.TB) *child {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer free.Close()
	c := &child{t: t, directory: t.TempDir(), address: free.Addr().String()}
	free.Close()
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *child) start() {
	c.process = exec.Command(os.Args[0], "-test.run", "^TestServeUntilKilled$")
	c.process.Env = append(os.Environ(), childDirectory+"="+c.directory, childAddress+"="+c.address)
	c.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := c.process.StdoutPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, c.process.Start())
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), childReady) {
			return
		}
	}
	require.FailNow(c.t, "the child does not serve")
}

// kill ends the child as a crash would.
func (c *child) kill() {
	c.process.Process.Kill()
	c.process.Wait()
}

// explain asks once, for a moment.
func (u *user) explain(path string) (wire.LookupAnswer, lookup.Explanation, error) {
	ctx, cancel := context.WithTimeout(u.t.Context(), 200*time.Millisecond)
	defer cancel()
	return u.transport.Explain(ctx, u.request(path, wire.WantInline))
}

func TestTheKernelAnswersForNoServerThatWasKilled(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	c := startChild(t)
	conn, meta := dial(t, c.address)
	defer conn.Close()
	u := (&rig{t: t, conn: conn, meta: meta}).open(0)
	u.must(&control.Create{Node: node("f"), Mode: 0o644, Inline: []byte("0")})
	hot := func(content string) {
		t.Helper()
		eventually(t, "an answer from the kernel", func() bool {
			a, who, err := u.explain("f")
			require.NoError(t, err)
			require.Equal(t, content, string(a.Inline))
			return who.InKernel
		})
	}
	for round := range 5 {
		content := fmt.Sprint(round)
		hot(content)
		c.kill()
		_, _, err := u.explain("f")
		require.Error(t, err, "nobody is left to answer")
		require.False(t, programOnLoopback(t))

		c.start()
		require.True(t, programOnLoopback(t))
		a, who, err := u.explain("f")
		require.NoError(t, err, "the session outlives the server")
		require.False(t, who.InKernel, "the new server's tables are its own, and empty")
		require.Equal(t, content, string(a.Inline))
		hot(content)
		u.must(&control.WriteInline{Node: node("f"), Data: []byte(fmt.Sprint(round + 1))})
	}
}

func programOnLoopback(t *testing.T) bool {
	link, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	return link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
}
