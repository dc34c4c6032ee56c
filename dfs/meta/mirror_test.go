package meta

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const ownNetwork = "WAGGLE_TEST_OWN_NETWORK"

// inOwnNetwork runs the calling test again in a process with a network of its
// own, so that its program on the loopback device meets nobody else's packets.
// It returns true there, and false in the process that only waits for it.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		loopback, err := netlink.LinkByName("lo")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(loopback))
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("programs in the kernel and network namespaces need root")
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), ownNetwork+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	output, err := again.CombinedOutput()
	require.NoError(t, err, "%s", output)
	t.Logf("%s", output)
	return false
}

func withXDP(c *Config) { c.LookupPath = "xdp-generic" }

// ask looks a path up over the network, whoever answers.
func (u *user) ask(path string, flags uint16) wire.LookupAnswer {
	u.t.Helper()
	a := u.lookup(path, flags)
	a.ID = 0
	return a
}

// expected is what the Resolver answers, as it comes out of a datagram.
func (u *user) expected(path string, flags uint16) wire.LookupAnswer {
	var a, parsed wire.LookupAnswer
	u.server.Resolve(u.request(path, flags), &a)
	require.NoError(u.t, parsed.Parse(a.Append(nil)))
	return parsed
}

func sameBytes(t *testing.T, want, got wire.LookupAnswer, path string, flags uint16) {
	t.Helper()
	require.Equal(t, want.Append(nil), got.Append(nil), "%q with flags %d: %+v, %+v", path, flags, want, got)
}

func (r *rig) answeredInKernel() int64 {
	return r.server.config.Counters.Snapshot()["lookup_xdp_answered"]
}

// askInKernel asks until the kernel has answered.
func (u *user) askInKernel(path string, flags uint16) wire.LookupAnswer {
	u.t.Helper()
	for range 1000 {
		before := u.answeredInKernel()
		a := u.ask(path, flags)
		if u.answeredInKernel() > before {
			return a
		}
	}
	u.t.Fatalf("%s is never answered in the kernel: %v", path, u.server.config.Counters.Snapshot())
	return wire.LookupAnswer{}
}

func TestTheKernelAnswersAsUserSpaceDoes(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	r := newRig(t, withXDP)
	root, member, stranger := r.open(0), r.open(1000, 7), r.open(2000)
	root.must(&control.Mkdir{Node: node("a"), Mode: 0o755})
	root.must(&control.Mkdir{Node: node("a/closed"), Mode: 0o750})
	gid := uint32(7)
	root.must(&control.SetAttributes{Node: node("a/closed"), Gid: &gid})
	for _, size := range []int{0, 1, 128, 129, 512, 513, 1024} {
		for _, directory := range []string{"a", "a/closed"} {
			content := make([]byte, size)
			for i := range content {
				content[i] = byte(rand.Uint32())
			}
			root.must(&control.Create{Node: node(fmt.Sprintf("%s/%d", directory, size)), Mode: 0o640, Inline: content})
		}
	}
	root.must(&control.Symlink{Node: node("a/link"), Target: []byte("closed")})

	asked := []string{"", "a", "a/closed", "a/link", "a/nothing", "nothing", "a/1/below", "a/closed/nothing"}
	for _, size := range []int{0, 1, 128, 129, 512, 513, 1024} {
		asked = append(asked, fmt.Sprintf("a/%d", size), fmt.Sprintf("a/closed/%d", size))
	}
	for _, u := range []*user{root, member, stranger} {
		for _, path := range asked {
			for _, flags := range []uint16{0, wire.WantLocation, wire.WantInline, wire.WantLocation | wire.WantInline} {
				want := u.expected(path, flags)
				if want.Status == wire.LookupDenied || want.Status == wire.LookupNotDirectory {
					sameBytes(t, want, u.ask(path, flags), path, flags) // not put there for its own sake
					continue
				}
				sameBytes(t, want, u.askInKernel(path, flags), path, flags)
			}
		}
	}
	sameBytes(t, root.expected("a/1/below", 0), root.askInKernel("a/1/below", 0), "a/1/below", 0)
	sameBytes(t, stranger.expected("a/closed/1", 0), stranger.askInKernel("a/closed/1", 0), "a/closed/1", 0)

	_, err := r.meta.CloseSession(t.Context(), &control.SessionID{Session: member.session})
	require.NoError(t, err)
	require.Equal(t, wire.LookupBadSession, member.ask("a", 0).Status, "an ended session's lookups stop")
}

func TestTheKernelNeverAnswersWhatWas(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	u := newRig(t, withXDP).open(0)
	u.must(&control.Mkdir{Node: node("d"), Mode: 0o755})
	status := func(path string, want wire.LookupStatus) {
		t.Helper()
		require.Equal(t, want, u.ask(path, 0).Status, path)
	}
	for i := range 200 {
		old, renamed := fmt.Sprintf("d/%d", i), fmt.Sprintf("d/%d.new", i)
		u.askInKernel(old, 0) // that there is no such name
		u.must(&control.Create{Node: node(old), Mode: 0o644, Inline: []byte("one")})
		require.Equal(t, "one", string(u.askInKernel(old, wire.WantInline).Inline))
		u.must(&control.WriteInline{Node: node(old), Data: []byte("two")})
		require.Equal(t, "two", string(u.ask(old, wire.WantInline).Inline))
		u.must(&control.Rename{From: node(old), To: node(renamed)})
		status(old, wire.LookupNotFound)
		status(renamed, wire.LookupOK)
		mode := uint32(0o600)
		u.askInKernel(renamed, 0)
		u.must(&control.SetAttributes{Node: node(renamed), Mode: &mode})
		require.EqualValues(t, mode, u.ask(renamed, 0).Attributes.Mode&0o777)
		u.must(&control.Remove{Node: node(renamed)})
		status(renamed, wire.LookupNotFound)
	}
}

// Lookups that come while the tables change go to user space, which must not have
// the tables changed by that once more.
func TestWhatIsInTheKernelIsNotPutThereAgain(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	u := newRig(t, withXDP).open(0)
	u.must(&control.Mkdir{Node: node("d"), Mode: 0o755})
	u.must(&control.Create{Node: node("d/f"), Mode: 0o644, Inline: []byte("x")})
	u.askInKernel("d/f", wire.WantInline)
	updates := func() int64 { return u.server.config.Counters.Snapshot()["lookup_xdp_table_updates"] }
	before := updates()
	require.Positive(t, before)
	u.server.mirror.fill(u.request("d/f", wire.WantInline))
	require.Equal(t, before, updates())
	u.server.mirror.fill(u.request("d/nothing", 0))
	require.Equal(t, before+1, updates())
}

// A directory in which files are made all the time stays in the tables.
func TestBusyDirectoriesStayInTheKernel(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	u := newRig(t, withXDP).open(0)
	u.must(&control.Mkdir{Node: node("d"), Mode: 0o755})
	u.must(&control.Create{Node: node("d/f"), Mode: 0o644})
	u.askInKernel("d/f", 0)
	for i := range 100 {
		u.must(&control.Create{Node: node(fmt.Sprintf("d/%d", i)), Mode: 0o644})
		before := u.answeredInKernel()
		u.ask("d/f", 0)
		require.Greater(t, u.answeredInKernel(), before)
	}
}
