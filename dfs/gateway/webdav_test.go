package gateway

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/text/encoding/unicode"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/dfstest"
)

const (
	exclusiveLock = `<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>`
	sharedLock    = `<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>`
	setColor      = `<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><color xmlns="urn:x" xml:lang="en">deep <b>red</b></color></D:prop></D:set></D:propertyupdate>`
	askColor      = `<D:propfind xmlns:D="DAV:"><D:prop><color xmlns="urn:x"/></D:prop></D:propfind>`
)

// expect asks, and demands a status.
func (p *place) expect(t testing.TB, status int, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, got := p.do(t, method, path, strings.NewReader(body), header...)
	require.Equal(t, status, r.StatusCode, "%s %s %q: %s", method, path, header, got)
	return r, string(got)
}

func (p *place) lock(t testing.TB, path, info string, header ...string) (token string) {
	t.Helper()
	r, body := p.do(t, "LOCK", path, strings.NewReader(info), header...)
	require.Contains(t, []int{200, 201}, r.StatusCode, "%s", body)
	return strings.Trim(r.Header.Get("Lock-Token"), "<>")
}

// snapshot is everything in the tree: what a refused request must not change.
func (p *place) snapshot(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	require.NoError(t, fs.WalkDir(p.client.FS(t.Context()), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		xattrs, _ := p.client.Xattrs(t.Context(), "/"+name)
		fmt.Fprintf(&all, "%s %v %q", name, entry.Type(), xattrs)
		if entry.Type() == 0 {
			content, err := p.client.ReadFile(t.Context(), "/"+name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, " %x", digestOf(content))
		}
		all.WriteByte('\n')
		return nil
	}))
	return all.String()
}

// changing are requests that change /dir/file, and which succeed.
func changing(p *place) map[string]func(t testing.TB, header ...string) int {
	do := func(method, body string, more ...string) func(testing.TB, ...string) int {
		path := "/dir/file"
		if method == "POST" {
			path += "?tags"
		}
		return func(t testing.TB, header ...string) int {
			r, _ := p.do(t, method, path, strings.NewReader(body), append(header, more...)...)
			return r.StatusCode
		}
	}
	return map[string]func(testing.TB, ...string) int{
		"PUT":           do("PUT", "new"),
		"PUT of more":   do("PUT", string(randomBytes(100_000))),
		"PUT, digest":   do("PUT", string(randomBytes(70_000)), "Repr-Digest", digestOf(randomBytes(70_000))),
		"DELETE":        do("DELETE", ""),
		"COPY":          do("COPY", "", "Destination", p.url+"/copy"),
		"MOVE":          do("MOVE", "", "Destination", p.url+"/moved"),
		"PROPPATCH":     do("PROPPATCH", setColor),
		"LOCK":          do("LOCK", exclusiveLock),
		"POST of a tag": do("POST", "name=a&value=b", "Content-Type", "application/x-www-form-urlencoded"),
	}
}

// Conditions of every kind hold for every method that changes anything: what they
// refuse leaves everything as it was.
func TestConditionsHoldForWhateverChangesAFile(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	for _, relayPath := range []string{NoRelay, relay.Copy} {
		p := start(t, cluster, func(c *Config) { c.Relay = relayPath })
		for name, request := range changing(p) {
			t.Run(relayPath+" "+name, func(t *testing.T) { p.tryConditions(t, name, request) })
		}
	}
}

func (p *place) tryConditions(t *testing.T, name string, request func(testing.TB, ...string) int) {
	path := "/dir/file"
	fresh := func() (tag string, modified time.Time) {
		for _, old := range []string{"/dir", "/copy", "/moved"} {
			require.NoError(t, p.client.RemoveAll(t.Context(), old))
		}
		require.NoError(t, p.client.Mkdir(t.Context(), "/dir", 0o755))
		p.put(t, path, []byte("old"))
		p.put(t, "/dir/other", []byte("other"))
		info, err := p.client.Stat(t.Context(), path)
		require.NoError(t, err)
		return entityTag(info.Attributes()), info.ModTime()
	}
	tag, modified := fresh()
	before := p.snapshot(t)
	when := func(d time.Duration) string { return modified.Add(d).UTC().Format(http.TimeFormat) }
	for _, header := range [][]string{
		{"If-Match", `"x"`}, {"If-Match", "W/" + tag}, {"If-Match", "nonsense"}, {"If-Match", `"x", "y"`},
		{"If-None-Match", "*"}, {"If-None-Match", tag}, {"If-None-Match", "W/" + tag}, {"If-None-Match", `"a,b", ` + tag},
		{"If-Unmodified-Since", when(-time.Hour)}, {"If-Match", tag, "If-None-Match", tag},
		{"If", `(["x"])`}, {"If", "(<urn:uuid:none>)"}, {"If", `(Not [` + tag + `])`}, {"If", "(<DAV:no-lock>)"},
		{"If", "<" + p.url + `/dir/other> (["x"])`}, {"If", "</dir/other> ([" + tag + "])"}, {"If", "</none> ([" + tag + "])"},
		{"If", "<http://elsewhere.example/dir/file> ([" + tag + "])"}, {"If", "([" + tag + `] ["x"])`}, {"If", `(["x"]) (["y"])`},
	} {
		require.Equal(t, http.StatusPreconditionFailed, request(t, header...), "%q", header)
	}
	for _, malformed := range []string{"", "nonsense", "()", "([x])", "(<a)", "</a>", "(<a>", `(["x"]) </a> (["x"])`, "(Not)"} {
		require.Equal(t, http.StatusBadRequest, request(t, "If", malformed), "%q", malformed)
	}
	require.Equal(t, before, p.snapshot(t), "what was refused changed nothing")
	for _, header := range [][]string{
		{"If-Match", tag}, {"If-Match", "*"}, {"If-Match", `"x", ` + tag}, {"If-None-Match", `"x"`}, {"If-None-Match", "nonsense"},
		{"If-Unmodified-Since", when(time.Hour)}, {"If-Unmodified-Since", "SINCE"}, {"If-Unmodified-Since", "nonsense"},
		{"If-Match", tag, "If-Unmodified-Since", when(-time.Hour)}, {"If-Modified-Since", when(time.Hour)}, {"Range", "bytes=9-", "If-Range", `"x"`},
		{"If", "([" + tag + "])"}, {"If", "(Not <DAV:no-lock>)"}, {"If", `(["x"]) ([` + tag + "])"}, {"If", "(not [\"x\"] [" + tag + "])"},
		{"If", "</dir/other> ([OTHER])"}, {"If", `<http://elsewhere.example/> (Not ["x"])`},
	} {
		tag2, modified2 := fresh()
		other2 := p.gateway.tagOf(t.Context(), "/dir/other")
		for i := range header {
			header[i] = strings.NewReplacer(tag, tag2, "OTHER", other2, "SINCE", modified2.UTC().Format(http.TimeFormat)).Replace(header[i])
		}
		require.Less(t, request(t, header...), 400, "%q", header)
		if name == "LOCK" {
			p.gateway.handler.locks.Removed("/", false)
		}
	}
}

// What does not exist has no tag; what can't be done at all is refused as such,
// whatever the conditions (RFC 9110, 13.2.1).
func TestConditionsOfWhatIsNotThere(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	large := string(randomBytes(50_000))
	for _, body := range []string{"x", large} {
		p.expect(t, 412, "PUT", "/new", body, "If-Match", "*")
		p.expect(t, 412, "PUT", "/new", body, "If-Match", `"x"`)
		p.expect(t, 412, "PUT", "/new", body, "If", `(["x"])`)
		p.expect(t, 409, "PUT", "/none/new", body)
	}
	p.expect(t, 412, "MKCOL", "/dir", "", "If-Match", "*")
	p.expect(t, 412, "MKCOL", "/dir", "", "If", `(["x"])`)
	p.expect(t, 412, "LOCK", "/new", exclusiveLock, "If-Match", "*")
	p.expect(t, 404, "DELETE", "/new", "", "If-Match", `"x"`)
	p.expect(t, 404, "MOVE", "/new", "", "If-Match", `"x"`, "Destination", p.url+"/other")
	p.expect(t, 404, "PROPPATCH", "/new", setColor, "If-Match", `"x"`)
	require.Empty(t, p.snapshot(t))
	p.expect(t, 201, "MKCOL", "/dir", "", "If-None-Match", "*")
	p.expect(t, 201, "PUT", "/new", large, "If-None-Match", "*", "If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:01 GMT")
	p.expect(t, 412, "PUT", "/new", large, "If-None-Match", "*")
	p.expect(t, 405, "MKCOL", "/dir", "", "If-None-Match", "*")
	tag := p.gateway.tagOf(t.Context(), "/dir")
	p.expect(t, 412, "DELETE", "/dir", "", "If-Match", `"x"`)
	p.expect(t, 412, "DELETE", "/dir", "", "If-None-Match", tag)
	p.expect(t, 412, "UNLOCK", "/new", "", "If-Match", `"x"`, "Lock-Token", "<urn:x>")
	p.expect(t, 412, "GET", "/new", "", "If", `(["x"])`)
	p.expect(t, 200, "GET", "/new", "", "If", "(["+p.gateway.tagOf(t.Context(), "/new")+"])")
	p.expect(t, 204, "DELETE", "/dir", "", "If-Match", tag)
}

// beginPut sends a PUT but for the last byte of its body, once the gateway has
// begun to take it.
func (p *place) beginPut(t *testing.T, path string, body []byte, header string) (finish func() int) {
	t.Helper()
	parts := func() int {
		list, _ := p.client.ReadDir(t.Context(), p.gateway.uploads)
		return len(list)
	}
	before := parts()
	conn, err := net.Dial("tcp", p.gateway.Address())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n%s", path, p.gateway.Address(), len(body), header, body[:len(body)-1])
	require.Eventually(t, func() bool { return parts() > before }, 10*time.Second, time.Millisecond)
	return func() int {
		_, err := conn.Write(body[len(body)-1:])
		require.NoError(t, err)
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
}

// Of two uploads of one file the last to finish wins, and each is whole.
func TestTheLastPutToFinishWins(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		for _, size := range []int{1000, 300_000} {
			path := fmt.Sprintf("/file-%s-%d", p.gateway.config.Relay, size)
			slow, quick := randomBytes(size), randomBytes(size+1)
			finish := p.beginPut(t, path, slow, "")
			p.expect(t, 201, "PUT", path, string(quick))
			p.requireStored(t, path, quick)
			require.Equal(t, 204, finish())
			p.requireStored(t, path, slow)
		}
		p.requireNoParts(t)
	})
}

// What a client saw must still be so when its body has come: nobody else's change,
// lock or removed directory is lost.
func TestConditionsAreCheckedOnceMoreBehindTheBody(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	for _, relayPath := range []string{NoRelay, relay.Copy} {
		t.Run(relayPath, func(t *testing.T) {
			p := start(t, cluster, func(c *Config) { c.Relay = relayPath })
			content, other := randomBytes(200_000), []byte("other")
			p.put(t, "/file", []byte("old"))
			finish := p.beginPut(t, "/file", content, "If-Match: "+p.gateway.tagOf(t.Context(), "/file")+"\r\n")
			p.put(t, "/file", other)
			require.Equal(t, 412, finish())
			p.requireStored(t, "/file", other)

			finish = p.beginPut(t, "/new-"+relayPath, content, "If-None-Match: *\r\n")
			p.put(t, "/new-"+relayPath, other)
			require.Equal(t, 412, finish())
			p.requireStored(t, "/new-"+relayPath, other)

			finish = p.beginPut(t, "/file", content, "")
			token := p.lock(t, "/file", exclusiveLock)
			require.Equal(t, 423, finish())
			p.requireStored(t, "/file", other)
			p.expect(t, 204, "UNLOCK", "/file", "", "Lock-Token", "<"+token+">")

			require.NoError(t, p.client.MkdirAll(t.Context(), "/dir", 0o755))
			finish = p.beginPut(t, "/dir/file", content, "")
			p.expect(t, 204, "DELETE", "/dir", "")
			require.Contains(t, []int{404, 409}, finish())
			p.requireNoParts(t)
		})
	}
}

// Of many clients that replace the same version of a file, one does.
func TestOneOfManyReplacesAVersion(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	p.put(t, "/file", []byte("old"))
	for range 5 {
		tag := p.gateway.tagOf(t.Context(), "/file")
		var done sync.WaitGroup
		statuses := make([]int, 8)
		for i := range statuses {
			done.Go(func() {
				r, _ := p.do(t, "PUT", "/file", bytes.NewReader(randomBytes(2000+i)), "If-Match", tag)
				statuses[i] = r.StatusCode
			})
		}
		done.Wait()
		slices.Sort(statuses)
		require.Equal(t, []int{204, 412, 412, 412, 412, 412, 412, 412}, statuses)
	}
}

// COPY and MOVE as RFC 4918 (9.8 and 9.9) has them.
func TestCopyAndMove(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	ctx := t.Context()
	require.NoError(t, p.client.MkdirAll(ctx, "/a/b/c", 0o755))
	p.put(t, "/a/b/file", randomBytes(50_000))
	p.put(t, "/a/small", []byte("small"))
	require.NoError(t, p.client.Symlink(ctx, "/a", "/link"))
	require.NoError(t, p.client.Symlink(ctx, "loop", "/a/loop"))
	require.NoError(t, p.client.Symlink(ctx, "none", "/a/dangling"))
	require.NoError(t, p.client.Symlink(ctx, "..", "/a/b/up"))
	require.NoError(t, p.client.SetXattr(ctx, "/a/small", "user.color", []byte("red"), client.XattrAny))
	before := p.snapshot(t)
	refuse := func(status int, method, from, to string, header ...string) {
		t.Helper()
		p.expect(t, status, method, from, "", append(header, "Destination", to)...)
		require.Equal(t, before, p.snapshot(t), "%s %s to %s changed something", method, from, to)
	}
	for _, method := range []string{"COPY", "MOVE"} {
		for _, to := range []string{"/a", "/a/", "/a/x", "/a/b/c/x", "/link/x", "/link/b/x", "/a/b/up/x"} {
			refuse(403, method, "/a", to)
		}
		refuse(403, method, "/a/b", "/a") // it lies in what would be replaced
		refuse(403, method, "/a/b/file", "/a/b")
		refuse(403, method, "/", "/x")
		refuse(403, method, "/a", "/")
		refuse(403, method, "/a", "/.waggle-uploads/x")
		refuse(403, method, "/a", "/-/x")
		refuse(404, method, "/none", "/x")
		refuse(409, method, "/a/small", "/none/x")
		refuse(409, method, "/a/small", "/a/b/file/x")
		refuse(412, method, "/a/small", "/a/b/file", "Overwrite", "F")
		refuse(412, method, "/a/small", "/a/b", "Overwrite", "F")
		refuse(400, method, "/a/small", "/x", "Overwrite", "yes")
		refuse(400, method, "/a", "/x", "Depth", "1")
		refuse(400, method, "/a", "/x", "Depth", "2")
		refuse(400, method, "/a", "/x/../y")
		refuse(400, method, "/a", "")
		refuse(502, method, "/a", "http://elsewhere.example/x")
	}
	refuse(400, "MOVE", "/a", "/x", "Depth", "0")
	refuse(403, "COPY", "/link", "/link/x")

	// A tree is copied with all that is in it: links as links.
	p.expect(t, 201, "COPY", "/a", "", "Destination", p.url+"/copy")
	for link, want := range map[string]string{"/copy/loop": "loop", "/copy/dangling": "none", "/copy/b/up": ".."} {
		got, err := p.client.Readlink(ctx, link)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	p.requireStored(t, "/copy/b/file", randomBytes(50_000))
	value, err := p.client.Xattr(ctx, "/copy/small", "user.color")
	require.NoError(t, err)
	require.Equal(t, "red", string(value))
	p.expect(t, 201, "COPY", "/a", "", "Destination", "/empty", "Depth", "0")
	list, err := p.client.ReadDir(ctx, "/empty")
	require.NoError(t, err)
	require.Empty(t, list)

	// What is there is replaced, whatever it is, by whatever it is.
	for _, method := range []string{"COPY", "MOVE"} {
		for from, content := range map[string]string{"/file": "new", "/dir": ""} {
			for _, to := range []string{"/old-file", "/old-dir"} {
				for _, overwrite := range [][]string{nil, {"Overwrite", "T"}} {
					for _, old := range []string{"/file", "/dir", "/old-file", "/old-dir"} {
						require.NoError(t, p.client.RemoveAll(ctx, old))
					}
					require.NoError(t, p.client.MkdirAll(ctx, "/dir/inner", 0o755))
					require.NoError(t, p.client.MkdirAll(ctx, "/old-dir/not/empty", 0o755))
					p.put(t, "/file", []byte("new"))
					p.put(t, "/old-file", []byte("old"))
					p.expect(t, 204, method, from, "", append(overwrite, "Destination", to)...)
					info, err := p.client.Stat(ctx, to)
					require.NoError(t, err)
					require.Equal(t, content == "", info.IsDir())
					if content != "" {
						p.requireStored(t, to, []byte(content))
					}
					require.Equal(t, method == "COPY", p.gateway.exists(ctx, from))
				}
			}
		}
	}
	// Of two names of one file one goes.
	p.put(t, "/one", []byte("x"))
	require.NoError(t, p.client.Link(ctx, "/one", "/two"))
	p.expect(t, 204, "MOVE", "/one", "", "Destination", "/two")
	require.False(t, p.gateway.exists(ctx, "/one"))
	p.requireStored(t, "/two", []byte("x"))
	// A link that leads nowhere can be moved and removed.
	p.expect(t, 201, "MOVE", "/a/dangling", "", "Destination", "/dangling")
	p.expect(t, 204, "DELETE", "/dangling", "")
	p.requireNoParts(t)
}

// Properties that clients set are kept with the file, whatever becomes of it, and
// all of a request or none.
func TestPropertiesAreKept(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	p.expect(t, 201, "MKCOL", "/dir", "")
	p.put(t, "/dir/file", []byte("x"))
	has := func(path string) bool {
		t.Helper()
		_, body := p.expect(t, 207, "PROPFIND", path, askColor, "Depth", "0")
		require.NoError(t, xml.Unmarshal([]byte(body), new(struct{})))
		return strings.Contains(body, `<color xmlns="urn:x" xml:lang="en">deep <b xmlns="urn:x">red</b></color>`) && strings.Contains(body, "200 OK")
	}
	for _, path := range []string{"/dir/file", "/dir"} {
		require.False(t, has(path))
		_, body := p.expect(t, 207, "PROPPATCH", path, setColor)
		require.Contains(t, body, "200 OK")
		require.True(t, has(path))
	}
	p.expect(t, 204, "PUT", "/dir/file", "y")
	p.expect(t, 204, "PUT", "/dir/file", string(randomBytes(100_000)))
	require.True(t, has("/dir/file"), "after PUT")
	p.expect(t, 201, "COPY", "/dir", "", "Destination", "/copy")
	p.expect(t, 201, "MOVE", "/dir", "", "Destination", "/moved")
	for _, path := range []string{"/copy", "/copy/file", "/moved", "/moved/file"} {
		require.True(t, has(path), path)
	}
	_, body := p.expect(t, 207, "PROPFIND", "/copy", "", "Depth", "1")
	require.Equal(t, 2, strings.Count(body, "<color "), "all properties of a directory and of what is in it: %s", body)
	_, body = p.expect(t, 207, "PROPFIND", "/copy", `<propfind xmlns="DAV:"><propname/></propfind>`, "Depth", "1")
	require.Equal(t, 2, strings.Count(body, `<color xmlns="urn:x"/>`))
	_, body = p.expect(t, 200, "GET", "/copy/file?info", "")
	require.NotContains(t, body, "webdav", "they are no tags")
	p.expect(t, 400, "POST", "/copy/file?tags", "name=webdav&value=x", "Content-Type", "application/x-www-form-urlencoded")

	before := p.snapshot(t)
	set := func(properties string) string {
		return `<D:propertyupdate xmlns:D="DAV:" xmlns:y="urn:y"><D:set><D:prop>` + properties + `</D:prop></D:set></D:propertyupdate>`
	}
	_, body = p.expect(t, 207, "PROPPATCH", "/copy/file", set(`<y:a/><D:getetag>x</D:getetag>`))
	require.Contains(t, body, "403 Forbidden")
	require.Contains(t, body, "424 Failed Dependency")
	require.Contains(t, body, "cannot-modify-protected-property")
	_, body = p.expect(t, 207, "PROPPATCH", "/copy/file", set(`<y:a/><y:b>`+strings.Repeat("x", maxProperties)+`</y:b>`))
	require.Contains(t, body, "507 Insufficient Storage")
	for _, malformed := range []string{"", "<", "<a/>", set(""), set("<z:a/>"), `<D:propertyupdate xmlns:D="DAV:" xmlns:z=""/>`, strings.Repeat("<a>", 1000)} {
		p.expect(t, 400, "PROPPATCH", "/copy/file", malformed)
	}
	p.expect(t, 413, "PROPPATCH", "/copy/file", set(strings.Repeat("x", maxForm)))
	require.Equal(t, before, p.snapshot(t))

	_, body = p.expect(t, 207, "PROPPATCH", "/copy/file", set("<D:displayname>Bees</D:displayname>"))
	require.Contains(t, body, "200 OK")
	_, body = p.expect(t, 207, "PROPFIND", "/copy/file", "", "Depth", "0")
	require.Contains(t, body, "<D:displayname>Bees</D:displayname>")
	require.Equal(t, 1, strings.Count(body, "displayname>B"))
	remove := `<D:propertyupdate xmlns:D="DAV:"><D:remove><D:prop><color xmlns="urn:x"/><D:displayname/></D:prop></D:remove></D:propertyupdate>`
	p.expect(t, 207, "PROPPATCH", "/copy/file", remove)
	require.False(t, has("/copy/file"))
	xattrs, err := p.client.Xattrs(t.Context(), "/copy/file")
	require.NoError(t, err)
	require.Empty(t, xattrs)
}

// Locks: whom they keep off what, and what is told of them.
func TestLocksKeepOthersOff(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	require.NoError(t, p.client.MkdirAll(t.Context(), "/dir/inner", 0o755))
	p.put(t, "/dir/file", []byte("x"))
	unlock := func(path, token string) {
		t.Helper()
		p.expect(t, 204, "UNLOCK", path, "", "Lock-Token", "<"+token+">")
	}
	// Shared ones stand beside each other, and each of them lets its holder write.
	one, two := p.lock(t, "/dir/file", sharedLock), p.lock(t, "/dir/file", sharedLock, "Timeout", "Second-100")
	require.Regexp(t, `^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, one)
	require.NotEqual(t, one, two)
	_, body := p.expect(t, 423, "LOCK", "/dir/file", exclusiveLock)
	require.Contains(t, body, "no-conflicting-lock")
	for _, request := range [][]string{{"PUT"}, {"DELETE"}, {"MOVE", "Destination", "/x"}, {"PROPPATCH"}} {
		_, body := p.expect(t, 423, request[0], "/dir/file", setColor, request[1:]...)
		require.Contains(t, body, "lock-token-submitted")
	}
	p.expect(t, 423, "POST", "/dir/file?tags", "name=a&value=b", "Content-Type", "application/x-www-form-urlencoded")
	p.expect(t, 204, "PUT", "/dir/file", "one", "If", "(<"+one+">)")
	p.expect(t, 204, "PUT", "/dir/file", string(randomBytes(50_000)), "If", "(<"+two+">)")
	p.expect(t, 423, "PUT", "/dir/file", "none", "If", "(Not <"+"urn:uuid:none"+">)")
	_, body = p.expect(t, 207, "PROPFIND", "/dir", `<propfind xmlns="DAV:"><prop><lockdiscovery/><supportedlock/></prop></propfind>`, "Depth", "1")
	for _, want := range []string{one, two, "Second-100", "Second-3600", "<D:lockroot><D:href>/dir/file</D:href></D:lockroot>", "<D:lockscope><D:shared/></D:lockscope>"} {
		require.Contains(t, body, want)
	}
	_, body = p.expect(t, 207, "DELETE", "/dir", "")
	require.Contains(t, body, "<D:href>/dir/file</D:href><D:status>HTTP/1.1 423 Locked</D:status>")
	p.expect(t, 207, "MOVE", "/dir", "", "Destination", "/moved")
	p.expect(t, 201, "COPY", "/dir", "", "Destination", "/copy")
	_, body = p.expect(t, 207, "LOCK", "/dir", exclusiveLock)
	require.Contains(t, body, "424 Failed Dependency")
	p.expect(t, 409, "UNLOCK", "/dir", "", "Lock-Token", "<"+one+">")
	p.expect(t, 400, "UNLOCK", "/dir/file", "", "Lock-Token", one)
	p.expect(t, 400, "LOCK", "/dir/file", "")
	_, body = p.expect(t, 200, "LOCK", "/dir/file", "", "If", "(<"+one+">)", "Timeout", "Second-7")
	require.Contains(t, body, "Second-7")
	p.expect(t, 412, "LOCK", "/dir", "", "If", "</dir/file> (<"+one+">)") // which is not its
	unlock("/dir/file", one)
	unlock("/dir/file", two)

	// A directory's lock is about what comes and goes in it; with depth infinity about all below it.
	flat := p.lock(t, "/dir", exclusiveLock, "Depth", "0")
	p.expect(t, 204, "PUT", "/dir/file", "free")
	for _, request := range [][]string{{"PUT", "/dir/new"}, {"MKCOL", "/dir/new"}, {"LOCK", "/dir/new"}, {"DELETE", "/dir/file"}, {"MOVE", "/dir/file", "Destination", "/x"}, {"COPY", "/copy/file", "Destination", "/dir/new"}} {
		body := map[string]string{"PUT": "x", "LOCK": exclusiveLock}[request[0]]
		p.expect(t, 423, request[0], request[1], body, request[2:]...)
	}
	p.expect(t, 201, "PUT", "/dir/new", "x", "If", "</dir> (<"+flat+">)")
	unlock("/dir", flat)
	deep := p.lock(t, "/dir", exclusiveLock)
	p.expect(t, 423, "PUT", "/dir/inner/new", "x")
	p.expect(t, 423, "LOCK", "/dir/inner/new", sharedLock)
	p.expect(t, 201, "PUT", "/dir/inner/new", "x", "If", "(<"+deep+">)")
	p.expect(t, 201, "MOVE", "/dir/inner/new", "", "Destination", "/new", "If", "(<"+deep+">)")
	p.expect(t, 204, "DELETE", "/dir", "", "If", "(<"+deep+">)")
	require.Empty(t, p.gateway.handler.locks.Covering("/dir"), "a lock ends with what it was for")

	// What is locked before it exists comes to exist.
	token := p.lock(t, "/born", exclusiveLock)
	p.requireStored(t, "/born", nil)
	p.expect(t, 409, "LOCK", "/none/born", exclusiveLock)
	p.expect(t, 400, "LOCK", "/born", "<nonsense/>")
	p.expect(t, 422, "LOCK", "/born", strings.Replace(exclusiveLock, "D:write", "D:read", 2))
	unlock("/born", token)
}

func toUTF16(t testing.TB, text string, big bool) string {
	order := unicode.LittleEndian
	if big {
		order = unicode.BigEndian
	}
	document, err := unicode.UTF16(order, unicode.UseBOM).NewEncoder().String(text)
	require.NoError(t, err)
	return document
}

// Bodies may be in UTF-16 (RFC 4918, 8.2).
func TestBodiesInUTF16(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	p.put(t, "/file", []byte("x"))
	for _, big := range []bool{true, false} {
		_, body := p.expect(t, 207, "PROPPATCH", "/file", toUTF16(t, `<?xml version="1.0" encoding="utf-16"?>`+strings.Replace(setColor, "red", "röt", 1), big))
		require.Contains(t, body, "200 OK")
		_, body = p.expect(t, 207, "PROPFIND", "/file", toUTF16(t, askColor, big), "Depth", "0")
		require.Contains(t, body, "röt")
	}
	p.expect(t, 400, "PROPFIND", "/file", "\xff\xfe<\x00a", "Depth", "0")
	p.expect(t, 400, "PROPFIND", "/file", `<?xml version="1.0" encoding="koi8-r"?>`+askColor, "Depth", "0")
}

// Methods that nobody knows are not implemented; those that a resource lacks are
// not allowed, and the answer says which are.
func TestMethodsThatAreNotThere(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	p.expect(t, 201, "MKCOL", "/dir", "")
	p.put(t, "/file", []byte("x"))
	for _, method := range []string{"BREW", "PATCH", "TRACE", "REPORT", "get"} {
		for _, path := range []string{"/file", "/dir", "/none", "/-/status", "/.waggle-uploads"} {
			p.expect(t, 501, method, path, "")
		}
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/dir", "MKCOL"}, {"MKCOL", "/dir", "MKCOL"}, {"MKCOL", "/file", "MKCOL"}, {"POST", "/file", "POST"}, {"POST", "/dir", "POST"}, {"POST", "/-/status", "POST"},
	} {
		r, _ := p.expect(t, 405, c.method, c.path, "")
		require.NotEmpty(t, r.Header.Get("Allow"), "%s %s", c.method, c.path)
		require.NotContains(t, r.Header.Get("Allow"), c.allow, "%s %s", c.method, c.path)
	}
	for path, want := range map[string]string{"/file": "PUT", "/dir": "DELETE", "/none": "MKCOL"} {
		r, _ := p.expect(t, 200, "OPTIONS", path, "")
		require.Contains(t, r.Header.Get("Allow"), want)
	}
}

// A body that is coded is refused rather than kept without its coding.
func TestCodedBodiesAreRefused(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	for _, body := range []string{"x", string(randomBytes(50_000))} {
		for _, coding := range []string{"gzip", "br", "identity, gzip", "x"} {
			r, _ := p.expect(t, 415, "PUT", "/file", body, "Content-Encoding", coding)
			require.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
		}
		require.Empty(t, p.snapshot(t))
	}
	p.expect(t, 415, "PROPFIND", "/", askColor, "Content-Encoding", "gzip", "Depth", "0")
	p.expect(t, 415, "LOCK", "/x", exclusiveLock, "Content-Encoding", "gzip")
	p.expect(t, 415, "MKCOL", "/x", "body")
	p.expect(t, 201, "PUT", "/file", "x", "Content-Encoding", "identity")
}

// Names that are no UTF-8, or no characters of XML, come in pages, JSON and XML
// that are; their links lead to them.
func TestNamesOfAnyBytes(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	odd := []string{"\xff\xfe", "a\x01b", "caf\xe9", "\xed\xa0\x80", "<&\">", "\u00e9"}
	require.NoError(t, p.client.Mkdir(t.Context(), "/d\xff", 0o755))
	for _, name := range odd {
		p.put(t, "/d\xff/"+name, []byte("content of "+name))
		require.NoError(t, p.client.SetXattr(t.Context(), "/d\xff/"+name, "user.tag", []byte("\xff"+name), client.XattrAny))
	}
	_, text := p.expect(t, 207, "PROPFIND", "/d%FF", "", "Depth", "1")
	require.True(t, utf8.ValidString(text))
	var answer struct {
		Responses []struct {
			Href string `xml:"href"`
		} `xml:"response"`
	}
	require.NoError(t, xml.Unmarshal([]byte(text), &answer))
	require.Len(t, answer.Responses, len(odd)+1)
	var got []string
	for _, r := range answer.Responses[1:] {
		_, content := p.expect(t, 200, "GET", r.Href, "")
		got = append(got, strings.TrimPrefix(content, "content of "))
		_, page := p.expect(t, 200, "GET", r.Href+"?info", "", "Accept", "text/html")
		require.True(t, utf8.ValidString(page))
	}
	require.ElementsMatch(t, odd, got)
	for _, accept := range []string{"text/html", "application/json"} {
		for _, path := range []string{"/d%FF", "/d%FF?tag=tag", "/d%FF/none%FF"} {
			_, body := p.do(t, "GET", path, nil, "Accept", accept)
			require.True(t, utf8.Valid(body), "%s as %s", path, accept)
		}
	}
	r, body := p.do(t, "PUT", "/none%FF/x", strings.NewReader("x"))
	require.Equal(t, 409, r.StatusCode)
	require.True(t, utf8.Valid(body))
	for _, r := range answer.Responses[1:] {
		p.expect(t, 204, "DELETE", r.Href, "")
	}
}

// What is being uploaded is in no listing of anybody's: who copies the tree copies
// none of it.
func TestUploadsAreInNoListing(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), nil)
	finish := p.beginPut(t, "/file", randomBytes(100_000), "")
	for entry, err := range p.client.Entries(t.Context(), "/") {
		require.NoError(t, err)
		require.Fail(t, "listed", entry.Name())
	}
	_, err := p.client.Stat(t.Context(), uploadsRoot) // the gateway itself finds it
	require.NoError(t, err)
	_, body := p.expect(t, 207, "PROPFIND", "/", "", "Depth", "1")
	require.NotContains(t, body, "uploads")
	require.Equal(t, 201, finish())
}

// An upload that its client cut short is the client's fault, and the answer names
// no place that the client does not know.
func TestAnUploadCutShort(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		p.put(t, "/file", []byte("old"))
		for name, sent := range map[string]string{
			"shorter than its length": "Content-Length: 5000\r\n\r\nabc",
			"shorter, and large":      "Content-Length: 900000\r\n\r\n" + string(randomBytes(300_000)),
			"a chunk without end":     "Transfer-Encoding: chunked\r\n\r\n5000\r\nabc",
			"no last chunk":           "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
			"a bad chunk":             "Transfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n",
		} {
			conn, err := net.Dial("tcp", p.gateway.Address())
			require.NoError(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "PUT /file HTTP/1.1\r\nHost: x\r\n%s", sent)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(conn)
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 400"), "%s: %s", name, answer)
			assert.NotContains(t, string(answer), "waggle-uploads", name)
			p.requireStored(t, "/file", []byte("old"))
		}
		p.requireNoParts(t)
	})
}

// BenchmarkPropfind lists a large directory, with all properties.
func BenchmarkPropfind(b *testing.B) {
	const entries = 20_000
	p := start(b, dfstest.Start(b, dfstest.Options{ChunkServers: 1}), nil)
	require.NoError(b, p.client.Mkdir(b.Context(), "/dir", 0o755))
	var workers errgroup.Group
	workers.SetLimit(64)
	for i := range entries {
		workers.Go(func() error { return p.client.Mkdir(b.Context(), fmt.Sprintf("/dir/%d", i), 0o755) })
	}
	require.NoError(b, workers.Wait())
	b.ReportAllocs()
	for b.Loop() {
		q, err := http.NewRequestWithContext(b.Context(), "PROPFIND", p.url+"/dir", nil)
		require.NoError(b, err)
		q.Header.Set("Depth", "1")
		began := time.Now()
		r, err := http.DefaultClient.Do(q)
		require.NoError(b, err)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-first-byte")
		got := 0
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			got += bytes.Count(in.Bytes(), []byte("<D:response>"))
		}
		require.NoError(b, r.Body.Close())
		require.Equal(b, entries+1, got)
	}
}
