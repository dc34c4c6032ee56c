package gateway

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/datapath/relay"
	"waggle/dfs/wire"
)

func digestOf(content []byte) string {
	return digestField(binary.BigEndian.AppendUint32(nil, wire.Checksum(content)))
}

// requireNoParts waits until nothing is left of uploads that were given up.
func (p *place) requireNoParts(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		left, err := p.client.ReadDir(t.Context(), p.gateway.uploads)
		return err != nil || len(left) == 0
	}, 20*time.Second, 5*time.Millisecond, "parts of uploads are left")
}

// requireStored compares what a file holds, without the gateway.
func (p *place) requireStored(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := p.client.ReadFile(t.Context(), path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%s holds other bytes", path)
}

// What is put is what is got, whatever its size and however it comes, over each
// path, which proves that it was taken.
func TestPutOverEachPath(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		total := 0
		for _, size := range []int{0, 1024, 1025, 10_001, 256<<10 + 1, 1 << 20, 3<<20 + 777} {
			content := randomBytes(size)
			for i, body := range []io.Reader{bytes.NewReader(content), &slowReader{bytes.NewReader(content), 100_003}} {
				path := fmt.Sprintf("/%s-%d", p.gateway.config.Relay, size)
				q, err := http.NewRequestWithContext(t.Context(), "PUT", p.url+path, body)
				require.NoError(t, err)
				q.ContentLength = int64(size)
				if size == 0 {
					q.Body = http.NoBody
				}
				r, err := http.DefaultClient.Do(q)
				require.NoError(t, err)
				message, err := io.ReadAll(r.Body)
				require.NoError(t, errors.Join(err, r.Body.Close()))
				require.Equal(t, []int{201, 204}[i], r.StatusCode, "%d bytes: %s", size, message)
				require.Equal(t, digestOf(content), r.Header.Get(digestHeader))
				verified := "yes"
				if size > wire.MaxInline && p.gateway.relay != nil {
					verified = "no"
					require.Equal(t, p.gateway.config.Relay, r.Header.Get(relayHeader))
					total += size
				}
				require.Equal(t, verified, r.Header.Get(verifiedHeader))
				p.requireStored(t, path, content)
				head, _ := p.do(t, "HEAD", path, nil)
				require.Equal(t, head.Header.Get("ETag"), r.Header.Get("ETag"))
			}
		}
		p.requireProof(t, total)
		p.requireNoParts(t)
	})
}

// requireProof checks that all bytes that were put went by the relay path, but
// for those that came with a header.
func (p *place) requireProof(t *testing.T, total int) {
	path, err := relay.Paths.Get(p.gateway.config.Relay)
	if err != nil {
		return
	}
	counts := p.counters.Snapshot()
	for _, proof := range path.About().Proof {
		require.EqualValues(t, total, counts[proof]+counts["gateway_upload_ahead_bytes"], "%s", proof)
	}
	require.Zero(t, counts["relay_sockmap_copied_bytes"])
	require.EqualValues(t, total, counts["gateway_upload_relayed_bytes"]+counts["gateway_upload_ahead_bytes"])
	require.Zero(t, counts["gateway_relayed_bytes"], "these are of downloads")
}

// slowReader gives so many bytes at a time.
type slowReader struct {
	io.Reader
	most int
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(200 * time.Microsecond)
	return r.Reader.Read(p[:min(len(p), r.most)])
}

// Uploads, downloads and other requests follow each other on one connection,
// sent at once: exactly the declared bytes are the body.
func TestPipelinedUploads(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		conn, err := net.Dial("tcp", p.gateway.Address())
		require.NoError(t, err)
		defer conn.Close()
		random := rand.New(rand.NewPCG(7, 8))
		var contents [][]byte
		for range 8 {
			content := randomBytes(1025 + random.IntN(1<<(10+random.IntN(11))))
			copy(content[len(content)-64:], "\r\n\r\nGET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
			contents = append(contents, content)
		}
		go func() {
			for i, content := range contents {
				fmt.Fprintf(conn, "PUT /file-%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, len(content), content)
				fmt.Fprintf(conn, "GET /file-%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
				if i%3 == 0 {
					fmt.Fprintf(conn, "HEAD /file-%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
				}
			}
		}()
		in := bufio.NewReader(conn)
		receive := func(method string) (*http.Response, []byte) {
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			r, err := http.ReadResponse(in, &http.Request{Method: method})
			require.NoError(t, err)
			got, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			return r, got
		}
		for i, content := range contents {
			r, message := receive("PUT")
			require.Contains(t, []int{201, 204}, r.StatusCode, "%d: %s", i, message)
			require.Equal(t, digestOf(content), r.Header.Get(digestHeader))
			r, got := receive("GET")
			require.Equal(t, 200, r.StatusCode)
			require.True(t, bytes.Equal(content, got), "file %d", i)
			if i%3 == 0 {
				r, _ = receive("HEAD")
				require.EqualValues(t, len(content), r.ContentLength)
			}
		}
	})
}

// A digest in the header that is not the body's leaves the old file.
func TestPutWithDigests(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		old, content := []byte("old"), randomBytes(300_001)
		p.put(t, "/file", old)
		sha := algorithms["sha-256"]()
		sha.Write(content)
		right := "sha-256=:" + base64.StdEncoding.EncodeToString(sha.Sum(nil)) + ":"
		for _, c := range []struct {
			name, value string
			status      int
		}{
			{"Repr-Digest", digestOf(old), 400}, {"Repr-Digest", "crc32c=:AAA=:", 400}, {"Content-Digest", "nonsense=:", 400},
			{"Content-Digest", strings.Replace(right, "=:", "=:AAAA", 1)[:len(right)], 400},
			{"Content-Digest", digestOf(content) + ", " + strings.Replace(digestOf(old), "crc32c", "sha-512", 1), 400},
		} {
			r, message := p.do(t, "PUT", "/file", bytes.NewReader(content), c.name, c.value)
			require.Equal(t, c.status, r.StatusCode, "%s: %s: %s", c.name, c.value, message)
			p.requireStored(t, "/file", old)
		}
		p.requireNoParts(t)
		for _, c := range []struct{ name, value string }{
			{"Repr-Digest", "md5=:AAAA:, " + digestOf(content)}, {"Content-Digest", right + ", " + digestOf(content)},
		} {
			r, message := p.do(t, "PUT", "/file", bytes.NewReader(content), c.name, c.value)
			require.Equal(t, 204, r.StatusCode, "%s: %s: %s", c.name, c.value, message)
			require.Equal(t, "yes", r.Header.Get(verifiedHeader))
			require.Equal(t, digestOf(content), r.Header.Get(digestHeader))
			p.requireStored(t, "/file", content)
		}
	})
}

// Bodies that end early, come too slowly, or are longer than declared.
func TestHostileUploads(t *testing.T) {
	eachRelay(t, func(c *Config) { c.Grace, c.MinRate = 400*time.Millisecond, 1<<30 }, func(t *testing.T, p *place) {
		old := []byte("old")
		p.put(t, "/secret", []byte("secret"))
		body := string(randomBytes(600_000))
		hidden := "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"
		for name, c := range map[string]struct {
			sent, want string
			end        func(*net.TCPConn)
		}{
			"short, then gone":        {"Content-Length: 900000\r\n\r\n" + body, "", func(c *net.TCPConn) { c.Close() }},
			"short, then reset":       {"Content-Length: 900000\r\n\r\n" + body, "", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
			"short, then half closed": {"Content-Length: 900000\r\n\r\n" + body, "400", func(c *net.TCPConn) { c.CloseWrite() }},
			"short, then silent":      {"Content-Length: 900000\r\n\r\n" + body, "408", nil},
			"nothing, then silent":    {"Content-Length: 900000\r\n\r\n", "408", nil},
			"two lengths":             {"Content-Length: 600000\r\nContent-Length: 599999\r\n\r\n" + body, "400", nil},
			"a sign":                  {"Content-Length: +600000\r\n\r\n" + body, "400", nil},
			"a part":                  {"Content-Range: bytes 0-599999/600000\r\nContent-Length: 600000\r\nConnection: close\r\n\r\n" + body, "400", nil},
			"odd expectation":         {"Expect: 200-ok\r\nContent-Length: 600000\r\nConnection: close\r\n\r\n", "417", nil},
			"from another site":       {"Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 600000\r\nConnection: close\r\n\r\n", "403", nil},
			// The encoding wins (RFC 9112), so that a length can hide nothing.
			"length and odd encoding": {"Content-Length: 600000\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden, "501", nil},
		} {
			t.Run(name, func(t *testing.T) {
				if c.want == "400" && c.end != nil && p.gateway.relay == nil {
					t.Skip("net/http takes a half-closed connection for a client that is gone")
				}
				path := "/" + strings.ReplaceAll(name, " ", "-")
				p.put(t, path, old)
				conn, err := net.Dial("tcp", p.gateway.Address())
				require.NoError(t, err)
				defer conn.Close()
				sent := make(chan bool)
				go func() {
					defer close(sent)
					io.WriteString(conn, "PUT "+path+" HTTP/1.1\r\nHost: x\r\n"+c.sent)
				}()
				if c.end != nil {
					<-sent
					c.end(conn.(*net.TCPConn))
				}
				if c.want != "" {
					conn.SetReadDeadline(time.Now().Add(20 * time.Second))
					answer, _ := io.ReadAll(conn)
					require.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 "+c.want), "%s", answer)
					require.NotContains(t, string(answer), "secret")
				}
				p.requireNoParts(t)
				p.requireStored(t, path, old)
			})
		}
		require.Eventually(t, func() bool { return p.gateway.status().Connections <= 2 }, 10*time.Second, time.Millisecond)
	})
}

// A client may end its side once it has sent everything.
func TestHalfClosedAfterTheBody(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		if p.gateway.relay == nil {
			t.Skip("net/http takes a half-closed connection for a client that is gone")
		}
		content := randomBytes(700_000)
		conn, err := net.Dial("tcp", p.gateway.Address())
		require.NoError(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		require.Contains(t, string(answer), "HTTP/1.1 20")
		p.requireStored(t, "/file", content)
	})
}

// A lock that somebody holds is respected, and released with the upload.
func TestLocksAndUploads(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		content := randomBytes(200_000)
		r, body := p.do(t, "LOCK", "/file", strings.NewReader(`<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>`))
		require.Contains(t, []int{200, 201}, r.StatusCode, "%s", body)
		token := r.Header.Get("Lock-Token")
		r, _ = p.do(t, "PUT", "/file", bytes.NewReader(content))
		require.Equal(t, 423, r.StatusCode)
		r, _ = p.do(t, "PUT", "/file", bytes.NewReader(content), "If", "("+token+")")
		require.Equal(t, 204, r.StatusCode)
		r, _ = p.do(t, "UNLOCK", "/file", nil, "Lock-Token", token)
		require.Equal(t, 204, r.StatusCode)
		for range 3 {
			r, _ = p.do(t, "PUT", "/file", bytes.NewReader(content))
			require.Equal(t, 204, r.StatusCode)
		}
		r, _ = p.do(t, "PUT", "/none/file", bytes.NewReader(content))
		require.Equal(t, 409, r.StatusCode)
		require.NoError(t, p.client.MkdirAll(t.Context(), "/directory", 0o755))
		r, _ = p.do(t, "PUT", "/directory", bytes.NewReader(content))
		require.Equal(t, 405, r.StatusCode)
		p.requireNoParts(t)
	})
}

// curl asks with Expect: 100-continue whether to send a large body, and uses its
// connection again.
func TestCurlUploads(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl: ", err)
	}
	eachRelay(t, nil, func(t *testing.T, p *place) {
		content := randomBytes(2<<20 + 1)
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, content, 0o600))
		out, err := exec.Command(curl, "-sS", "-v", "--fail", "--max-time", "20", "-H", "Expect: 100-continue", "-T", file, p.url+"/one", "-T", file, p.url+"/two",
			p.url+"/one", "-o", file+"-got").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "100 Continue")
		require.Contains(t, string(out), "Re-using existing connection")
		p.requireStored(t, "/one", content)
		p.requireStored(t, "/two", content)
	})
}

// Chunk servers that go away in the middle of uploads: each upload is whole, or
// its client is told that it failed and the old file is still there.
func TestChunkServerGoesAwayUnderUploads(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		old := []byte("old")
		var whole, failed int
		var waiting sync.WaitGroup
		var mu sync.Mutex
		begun := make(chan bool)
		var once sync.Once
		for n := range 4 {
			waiting.Go(func() {
				path, content := fmt.Sprintf("/file-%d", n), randomBytes(6<<20+n)
				p.put(t, path, old)
				read := 0
				q, err := http.NewRequest("PUT", p.url+path, readerFunc(func(b []byte) (int, error) {
					if read > 2<<20 {
						once.Do(func() { close(begun) })
					}
					time.Sleep(100 * time.Microsecond)
					n := copy(b[:min(len(b), 32<<10)], content[read:])
					if read += n; n == 0 {
						return 0, io.EOF
					}
					return n, nil
				}))
				if !assert.NoError(t, err) {
					return
				}
				q.ContentLength = int64(len(content))
				status := 0
				if r, err := http.DefaultClient.Do(q); err == nil {
					status = r.StatusCode
					io.Copy(io.Discard, r.Body)
					r.Body.Close()
				}
				got, err := p.client.ReadFile(t.Context(), path)
				mu.Lock()
				defer mu.Unlock()
				if !assert.NoError(t, err) {
					return
				}
				if status == 204 {
					whole++
					assert.True(t, bytes.Equal(content, got), "wrong bytes")
				} else {
					failed++
					assert.Contains(t, []int{0, 503}, status)
					assert.Equal(t, old, got)
				}
			})
		}
		<-begun
		p.cluster.StopChunkServer(0)
		waiting.Wait()
		p.cluster.StartChunkServer(0)
		t.Logf("%d uploads were whole, %d failed", whole, failed)
		p.requireNoParts(t)
		require.Eventually(t, func() bool { // afterwards uploads go on
			r, _ := p.do(t, "PUT", "/after", bytes.NewReader(randomBytes(3<<20)))
			return r.StatusCode/100 == 2
		}, 30*time.Second, 50*time.Millisecond)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// connections counts the descriptors that are no files: the chunk servers in this
// process keep replicas open.
func connections(t testing.TB) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && !strings.HasPrefix(to, "/") {
			n++
		}
	}
	return n
}

// Uploads, some given up half way, leave no descriptor and no socket in a map.
func TestUploadsLeaveNothingBehind(t *testing.T) {
	eachRelay(t, nil, func(t *testing.T, p *place) {
		content := randomBytes(100_000)
		put := func(uploads int) {
			var workers sync.WaitGroup
			for n := range 4 {
				workers.Go(func() {
					transport := &http.Transport{}
					defer transport.CloseIdleConnections()
					for i := range uploads / 4 {
						var body io.Reader = bytes.NewReader(content)
						if i%10 == 9 {
							body = io.MultiReader(bytes.NewReader(content[:50_000]), readerFunc(func([]byte) (int, error) { return 0, io.ErrClosedPipe }))
						}
						q, err := http.NewRequest("PUT", fmt.Sprintf("%s/file-%d", p.url, n), body)
						if !assert.NoError(t, err) {
							return
						}
						q.ContentLength = int64(len(content))
						r, err := transport.RoundTrip(q)
						if err == nil {
							io.Copy(io.Discard, r.Body)
							r.Body.Close()
							assert.Contains(t, []int{201, 204, 423}, r.StatusCode)
						}
					}
				})
			}
			workers.Wait()
			require.Eventually(t, func() bool { return p.gateway.status().Connections == 0 }, 20*time.Second, time.Millisecond)
		}
		put(20)
		p.requireNoParts(t)
		before := connections(t)
		put(120)
		p.requireNoParts(t)
		assert.InDelta(t, before, connections(t), 60, "idle connections to and between chunk servers stay")
	})
}

// Whatever digests a header promises, they are of the right size.
func FuzzPromises(f *testing.F) {
	for _, seed := range []string{"crc32c=:AAAAAA==:", "sha-256=:AAAA:, crc32c=1", "a;b=c, d=(1 2)", "crc32c=:AAAAAA==:;q=1", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		promised, err := promisesOf(http.Header{"Repr-Digest": {field}})
		if err != nil {
			require.Empty(t, promised)
		}
		for _, p := range promised {
			require.Len(t, p.value, algorithms[p.algorithm]().Size())
		}
	})
}
