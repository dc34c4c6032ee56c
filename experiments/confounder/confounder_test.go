package confounder

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What every Linux machine has is read on this one, and warnings name their setting.
func TestSettingsOfThisMachine(t *testing.T) {
	values := map[string]string{}
	for _, s := range Read(t.TempDir()) {
		require.NotEmpty(t, s.Value, s.Name)
		require.NotContains(t, values, s.Name, "twice")
		values[s.Name] = s.Value
	}
	for _, name := range []string{"tcp_congestion_control", "tcp_rmem", "tcp_wmem", "gomaxprocs", "load_before", "file_system", "cgroup_cpu_quota", "kernel_preemption"} {
		require.Contains(t, values, name)
	}
	require.Equal(t, []string{"speed is high: slow down"}, Warnings([]Setting{{"speed", "high", "slow down"}, {"weight", "low", ""}}))
}

func TestWhatIsUnusual(t *testing.T) {
	for value, unusual := range map[string]bool{"cubic": false, "reno": false, "bbr": true, "vegas": true} {
		require.Equal(t, unusual, judgeCongestion(value) != "", value)
	}
	require.Contains(t, judgeCongestion("bbr"), "fq")
	require.Empty(t, judgeCommandLine("mitigations=auto psi=1"))
	require.Contains(t, judgeCommandLine("quiet isolcpus=1 mitigations=off"), "isolcpus=1 mitigations=off changes")
	require.Empty(t, judgeSteal("0.99"))
	require.NotEmpty(t, judgeSteal("1.00"))
	require.Empty(t, judgeLoad("0.10"))
	require.NotEmpty(t, judgeLoad("1000"))
	require.Empty(t, judgeFileSystem("ext4 rw,relatime rw"))
	require.NotEmpty(t, judgeFileSystem("overlay rw rw"))
}

func TestStealIsAShareOfAllTime(t *testing.T) {
	share, err := parseSteal("cpu  50 0 20 100 10 0 0 20 999 0\ncpu0 1\n")
	require.NoError(t, err)
	require.Equal(t, "10.00", share, "guests' time is in the others already")
	for _, bad := range []string{"", "cpu 1 2", "cpu a b c d e f g h i"} {
		_, err := parseSteal(bad)
		require.Error(t, err, bad)
	}
}

func TestNoPlacesAreTold(t *testing.T) {
	require.Equal(t, "nohz_full=1 mitigations=auto", decisiveIn("/vmlinuz quiet nohz_full=1 root=/dev/sda1 audit=/secret mitigations=auto console=ttyS0 -- idle --address 10.0.0.1"))
	require.Equal(t, "overlay rw,relatime xino=off", mountOf(
		"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:2 / /data rw,relatime - overlay overlay lowerdir=/a,upperdir=/b,xino=off\n3 1 0:3 / /database rw - tmpfs tmpfs rw\n",
		"/data/of/mine"))
	require.Equal(t, "ext4 rw rw", mountOf("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "/"))
}

// The limit may be any of the groups' above, in either version.
func TestGroupsAndThoseAbove(t *testing.T) {
	mounts := "1 0 0:1 / /cg rw - cgroup2 none rw\n2 0 0:2 / /cg1/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
	require.Equal(t, []string{"/cg1/cpu/a/b", "/cg1/cpu/a", "/cg1/cpu", "/cg"}, groupDirectories(mounts, "4:cpu,cpuacct:/a/b\n0::/\n"))
}

func TestBuildOptions(t *testing.T) {
	text := []byte("CONFIG_HZ=250\n# CONFIG_IRQ_TIME_ACCOUNTING is not set\nCONFIG_HZ_250=y\n")
	require.Equal(t, "250", optionIn(text, "CONFIG_HZ"))
	require.Equal(t, "n", optionIn(text, "CONFIG_IRQ_TIME_ACCOUNTING"))
}

func FuzzParsers(f *testing.F) {
	f.Add("1 0 8:1 / / rw - ext4 /dev/sda1 rw", "0::/a")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		_ = groupDirectories(mounts, own)
		_ = mountOf(mounts, "/data")
		_, _ = parseSteal(mounts)
	})
}
