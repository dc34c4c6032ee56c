package topology

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// other is a value that a setting of the network does not have now. It is that of this
// test's network namespace alone.
func other(t *testing.T) (was, value string) {
	was, err := readSetting(Autocorking)
	require.NoError(t, err)
	return was, map[string]string{"0": "1", "1": "0"}[was]
}

func requireSetting(t *testing.T, value string) {
	t.Helper()
	now, err := readSetting(Autocorking)
	require.NoError(t, err)
	require.Equal(t, value, now)
}

func needsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: changes a setting of the machine")
	}
}

func TestSettingsOfTheMachineAreRestored(t *testing.T) {
	needsRoot(t)
	owner := claimed(t)
	was, value := other(t)
	require.NoError(t, owner.Hold(map[string]string{Autocorking: value}))
	requireSetting(t, value)
	require.NoError(t, owner.Hold(map[string]string{Autocorking: was}))
	requireSetting(t, was)
	require.NoError(t, owner.Hold(map[string]string{Autocorking: value}))
	require.NoError(t, owner.Hold(nil))
	requireSetting(t, was)
	require.NoError(t, owner.Hold(map[string]string{Autocorking: value}))
	require.NoError(t, owner.Close(), "which restores what is held")
	requireSetting(t, was)
	require.ErrorContains(t, owner.Hold(map[string]string{"/proc/sys/kernel/panic": "1"}), "no setting that a run may change")
}

// A killed owner's settings are restored by the next run.
func TestSettingsOfAKilledOwnerAreSwept(t *testing.T) {
	needsRoot(t)
	owner := claimed(t)
	was, value := other(t)
	require.NoError(t, owner.Hold(map[string]string{Autocorking: value}))
	require.NoError(t, owner.lock.Close(), "as the kernel does when a process is killed")
	runs, err := Sweep()
	require.NoError(t, err)
	require.Contains(t, runs, owner.Run)
	requireSetting(t, was)
	require.NoDirExists(t, owner.Scratch)
}

// Whatever a file says that was left behind, nothing but the known settings is written.
func TestOnlyKnownSettingsAreRestored(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, restore(filepath.Join(dir, "none")))
	for text, wanted := range map[string]string{"{": "restore the machine's settings", `{"` + filepath.Join(dir, "secret") + `":"x"}`: "none that a run may change"} {
		path := filepath.Join(dir, "held")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.ErrorContains(t, restore(path), wanted)
	}
	require.NoFileExists(t, filepath.Join(dir, "secret"))
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"/proc/sys/kernel/panic":"1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var held holding
		if json.Unmarshal(text, &held) == nil && (held[Autocorking] != "" || held[HugePages] != "") {
			t.Skip("this one would be written")
		}
		path := filepath.Join(t.TempDir(), "held")
		require.NoError(t, os.WriteFile(path, text, 0o600))
		if err := restore(path); err == nil {
			require.Empty(t, held)
		}
	})
}
