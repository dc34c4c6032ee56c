package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/dfstest"
)

// A file is answered as net/http answers it, whatever the conditions and ranges,
// by the loop and behind it.
func TestConditionsAndRangesAsNetHTTPHasThem(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	for _, name := range []string{NoRelay, relay.Copy} {
		t.Run(name, func(t *testing.T) {
			p := start(t, cluster, func(c *Config) { c.Relay = name })
			for _, size := range []int{0, 500, 70_000} {
				compareWithNetHTTP(t, p, size)
			}
		})
	}
}

func compareWithNetHTTP(t *testing.T, p *place, size int) {
	content := randomBytes(size)
	path := fmt.Sprintf("/file-%d.txt", size)
	p.put(t, path, content)
	info, err := p.client.Stat(t.Context(), path)
	require.NoError(t, err)
	tag := entityTag(info.Attributes())
	reference := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, path, info.ModTime(), bytes.NewReader(content))
	}))
	defer reference.Close()
	when := func(d time.Duration) string { return info.ModTime().Add(d).UTC().Format(http.TimeFormat) }
	for _, header := range [][]string{
		{}, {"Range", "bytes=0-0"}, {"Range", "bytes=100-"}, {"Range", "bytes=-100"}, {"Range", "bytes=-999999999"},
		{"Range", "bytes=499-500"}, {"Range", "bytes=70000-"}, {"Range", "bytes=5-4"}, {"Range", "bytes=99999999999999999999-"}, {"Range", "bytes=a-b"},
		{"Range", "bytes="}, {"Range", "bytes"}, {"Range", " bytes=1-2"}, {"Range", "bytes= 1 - 2"},
		{"If-None-Match", tag}, {"If-None-Match", "W/" + tag}, {"If-None-Match", `"x", ` + tag}, {"If-None-Match", `"x"`}, {"If-None-Match", "*"}, {"If-None-Match", "nonsense"},
		{"If-Match", tag}, {"If-Match", "W/" + tag}, {"If-Match", `"x"`}, {"If-Match", "*"},
		{"If-Modified-Since", when(0)}, {"If-Modified-Since", when(-time.Hour)}, {"If-Modified-Since", when(time.Hour)}, {"If-Modified-Since", "nonsense"},
		{"If-Unmodified-Since", when(0)}, {"If-Unmodified-Since", when(-time.Hour)},
		{"If-None-Match", `"x"`, "If-Modified-Since", when(time.Hour)}, {"If-None-Match", tag, "Range", "bytes=0-9"}, {"If-Match", tag, "If-Unmodified-Since", when(-time.Hour)},
		{"Range", "bytes=1-2", "If-Range", tag}, {"Range", "bytes=1-2", "If-Range", "W/" + tag}, {"Range", "bytes=1-2", "If-Range", `"x"`},
		{"Range", "bytes=1-2", "If-Range", when(0)}, {"Range", "bytes=1-2", "If-Range", when(-time.Hour)}, {"Range", "bytes=1-2", "If-Range", "nonsense"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			what := fmt.Sprintf("%s of %d bytes with %q", method, size, header)
			asked := header
			if method == http.MethodHead && len(header) > 0 && header[0] == "Range" {
				asked = nil // a range is for GET (RFC 9110, 14.2)
			}
			want, wanted := ask(t, method, reference.URL, asked)
			got, body := ask(t, method, p.url+path, header)
			assert.Equal(t, want.StatusCode, got.StatusCode, what)
			for _, name := range []string{"Content-Range", "Content-Length", "ETag", "Last-Modified", "Accept-Ranges"} {
				assert.Equal(t, want.Header.Get(name), got.Header.Get(name), "%s: %s", what, name)
			}
			if want.StatusCode < 300 {
				assert.True(t, bytes.Equal(wanted, body), what)
			}
		}
	}
	// What net/http has wrong (RFC 9110, 14.1 and 14.2).
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Range", "bytes=-0"}, http.StatusRequestedRangeNotSatisfiable}, {[]string{"Range", "bytes=-000"}, http.StatusRequestedRangeNotSatisfiable},
		{[]string{"Range", "bytes=-0", "If-Range", tag}, http.StatusRequestedRangeNotSatisfiable}, {[]string{"Range", "bytes=-0", "If-Range", `"x"`}, http.StatusOK},
		{[]string{"Range", "bytes=-0", "If-None-Match", tag}, http.StatusNotModified}, {[]string{"Range", "bytes=-0", "If-Match", `"x"`}, http.StatusPreconditionFailed},
		{[]string{"Range", "lines=1-2"}, http.StatusOK}, {[]string{"Range", "Bytes=0-0"}, http.StatusPartialContent},
	} {
		want := c.status
		if size == 0 && want == http.StatusPartialContent || size == 0 && want == http.StatusRequestedRangeNotSatisfiable {
			want = http.StatusOK // as net/http: some clients ask for a range of every file
		}
		got, _ := ask(t, http.MethodGet, p.url+path, c.headers)
		assert.Equal(t, want, got.StatusCode, "%d bytes with %q", size, c.headers)
		if want == http.StatusRequestedRangeNotSatisfiable {
			assert.Equal(t, fmt.Sprintf("bytes */%d", size), got.Header.Get("Content-Range"))
		}
	}
	for _, name := range []string{"If-None-Match", "If-Match"} { // a list may be on several lines
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, nil)
		require.NoError(t, err)
		q.Header[name] = []string{`"x"`, tag}
		r, err := http.DefaultClient.Do(q)
		require.NoError(t, err)
		r.Body.Close()
		assert.Equal(t, map[string]int{"If-None-Match": http.StatusNotModified, "If-Match": http.StatusOK}[name], r.StatusCode)
	}
	// Of several ranges net/http makes one message of many parts. The gateway sends
	// all of the file, which no client can make it multiply.
	for _, several := range []string{"bytes=0-0,2-3", "bytes=0-,0-,0-,0-,0-,0-", "bytes=0-,nonsense"} {
		got, body := ask(t, http.MethodGet, p.url+path, []string{"Range", several})
		assert.Equal(t, http.StatusOK, got.StatusCode, several)
		assert.True(t, bytes.Equal(content, body), several)
	}
}

func ask(t *testing.T, method, url string, header []string) (*http.Response, []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	r, err := http.DefaultClient.Do(q)
	require.NoError(t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r, body
}

// Whatever changes a file changes its tag, and nothing else does.
func TestTheEntityTagChangesWithTheFile(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	tagNow := func() string {
		r, _ := p.do(t, http.MethodHead, "/file", nil)
		return r.Header.Get("ETag")
	}
	seen := make(map[string]bool)
	for i, change := range []func() error{
		func() error { return p.client.WriteFile(t.Context(), "/file", []byte("one"), 0o644) },
		func() error { return p.client.WriteFile(t.Context(), "/file", []byte("two"), 0o644) }, // of the same length, within a moment
		func() error { return p.client.WriteFile(t.Context(), "/file", randomBytes(5000), 0o644) },
		func() error {
			f, err := p.client.OpenFile(t.Context(), "/file", os.O_RDWR, client.FileOptions{})
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("x"), 100)
			return errors.Join(err, f.Close())
		},
		func() error {
			if err := p.client.WriteFile(t.Context(), "/other", randomBytes(5000), 0o644); err != nil {
				return err
			}
			return p.client.Rename(t.Context(), "/other", "/file")
		},
	} {
		require.NoError(t, change())
		tag := tagNow()
		require.False(t, seen[tag], "change %d", i)
		require.Equal(t, tag, tagNow())
		seen[tag] = true
	}
}
