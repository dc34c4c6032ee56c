package metrics_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/chunk"
	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/gateway"
	"waggle/dfs/meta"
	"waggle/dfs/metrics"
)

type role interface {
	Metrics() *prometheus.Registry
	Serve(context.Context) error
}

// serve serves a role and its metrics until the test ends, and says where these
// are.
func serve(t *testing.T, r role) string {
	t.Helper()
	endpoint, err := metrics.Listen(":0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- endpoint.Beside(ctx, r.Metrics, r.Serve) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, errors.Join(<-ended, endpoint.Close()))
		_, err := http.Get(endpoint.URL())
		require.Error(t, err, "metrics are served no longer than the role is")
	})
	return endpoint.URL()
}

func get(t *testing.T, url string) string {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	r, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode, "%s", body)
	return string(body)
}

// startCluster starts one role of each kind, has some bytes go through all of
// them, and returns what asks them for their metrics.
func startCluster(t *testing.T) (served func() string) {
	t.Helper()
	m, err := meta.Open(t.Context(), meta.Config{Directory: t.TempDir()})
	require.NoError(t, err)
	urls := []string{serve(t, m)}
	s, err := chunk.New(chunk.Config{Directory: t.TempDir(), Meta: m.Address()})
	require.NoError(t, err)
	urls = append(urls, serve(t, s))
	c, err := client.Dial(t.Context(), m.Address(), client.Options{DialPatience: 10 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.Eventually(t, func() bool {
		state, err := c.Cluster(t.Context())
		return err == nil && len(state.Servers) == 1 && state.Servers[0].Alive
	}, 20*time.Second, 10*time.Millisecond)
	g, err := gateway.New(gateway.Config{Client: c, Address: "127.0.0.1:0"})
	require.NoError(t, err)
	urls = append(urls, serve(t, g))
	require.NoError(t, c.WriteFile(t.Context(), "/file", make([]byte, 100_000), 0o644))
	require.Len(t, get(t, "http://"+g.Address()+"/file"), 100_000)
	return func() (all string) {
		for _, url := range urls {
			all += get(t, url)
		}
		return all
	}
}

// dashboard is what is looked at of Grafana's format.
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

var (
	metricNames = regexp.MustCompile(`\b(?:waggle|process|go)_[a-z0-9_]+\b`)
	quoted      = regexp.MustCompile(`"[^"]*"`)
	matchers    = regexp.MustCompile(`__name__=~"([^"]*)"`)
)

// Every metric that the dashboard asks for is served by a running cluster, and
// none is a leftover of a name that has changed.
func TestTheDashboardAsksForWhatIsServed(t *testing.T) {
	ask := startCluster(t)
	for _, want := range []string{`waggle_meta_chunk_servers_alive{role="meta"} 1`, `waggle_meta_files{role="meta"} 1`, `waggle_chunk_used_bytes{role="chunk"} 100000`,
		`waggle_chunk_sent_bytes_total{role="chunk"} 100000`, `waggle_chunk_stored_bytes_total{role="chunk"} 100000`, `waggle_gateway_body_seconds_count{role="gateway",way="relayed"} 1`} {
		// The client has the last byte before it is counted.
		require.Eventually(t, func() bool { return strings.Contains(ask(), want) }, 10*time.Second, 10*time.Millisecond, want)
	}
	served := make(map[string]bool)
	for line := range strings.Lines(ask()) {
		if name := metricNames.FindString(line); name != "" && line[0] != '#' {
			served[name] = true
		}
	}
	file, err := os.ReadFile("grafana.json")
	require.NoError(t, err)
	var board dashboard
	require.NoError(t, json.Unmarshal(file, &board))
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			for _, name := range metricNames.FindAllString(quoted.ReplaceAllString(target.Expr, ""), -1) {
				asked++
				assert.True(t, served[name], "%s: no role serves %s", panel.Title, name)
			}
			for _, matcher := range matchers.FindAllStringSubmatch(target.Expr, -1) {
				asked++
				pattern, err := regexp.Compile("^(?:" + matcher[1] + ")$")
				require.NoError(t, err)
				for _, path := range []string{"waggle_lookup_udp_answers_total", "waggle_read_copy_bytes_total", "waggle_write_chain_bytes_total", "waggle_relay_copy_bytes_total"} {
					assert.True(t, served[path] && pattern.MatchString(path), "%s: %s is to be served and shown", panel.Title, path)
				}
			}
		}
	}
	require.Greater(t, asked, 30)
}

func TestAWrongAddressIsOneClearLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for _, address := range []string{"9000", "nonsense", "127.0.0.1:99999", "192.0.2.1:9000", taken.Addr().String()} {
		_, err := metrics.Listen(address)
		require.ErrorContains(t, err, "serve metrics on", address)
		require.NotContains(t, err.Error(), "\n")
	}
	nowhere, err := metrics.Listen("")
	require.NoError(t, err)
	require.Empty(t, nowhere.URL())
	require.NoError(t, nowhere.Close())
	local, err := metrics.Listen(":0")
	require.NoError(t, err)
	require.Contains(t, local.URL(), "http://127.0.0.1:", "without a host it is for this machine")
	require.NoError(t, local.Close())
}

// What fails ends the other: nobody serves metrics of a role that is gone, or
// believes that they are served.
func TestTheRoleAndItsMetricsEndTogether(t *testing.T) {
	failed := errors.New("role failed")
	endpoint, err := metrics.Listen(":0")
	require.NoError(t, err)
	registry := metrics.NewRegistry("test", new(datapath.Counters))
	require.ErrorIs(t, endpoint.Beside(t.Context(), func() *prometheus.Registry { return registry }, func(context.Context) error { return failed }), failed)
	_, err = http.Get(endpoint.URL())
	require.Error(t, err)

	endpoint, err = metrics.Listen(":0")
	require.NoError(t, err)
	require.NoError(t, endpoint.Close())
	err = endpoint.Beside(t.Context(), func() *prometheus.Registry { return registry }, func(ctx context.Context) error { <-ctx.Done(); return nil })
	require.ErrorContains(t, err, "serve metrics")
}

func TestCountersAndGauges(t *testing.T) {
	var counters datapath.Counters
	counters.Counter("read_sockmap+copy_bytes").Add(7)
	registry := metrics.NewRegistry("test", &counters, metrics.Gauges(func(set func(name, help string, value float64)) { set("waggle_x", "X.", 2.5) }))
	families, err := registry.Gather()
	require.NoError(t, err)
	values := make(map[string]float64)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "waggle_") {
			values[f.GetName()] = f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue()
			require.Equal(t, "role", f.Metric[0].Label[0].GetName())
			require.Equal(t, "test", f.Metric[0].Label[0].GetValue())
		}
	}
	require.Equal(t, map[string]float64{"waggle_read_sockmap_copy_bytes_total": 7, "waggle_x": 2.5}, values)
}
