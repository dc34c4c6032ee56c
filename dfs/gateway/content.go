package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// Headers that the gateway adds. verifiedHeader says whether the gateway has
// verified the body: "yes", or "no" for one that it has not seen.
const (
	verifiedHeader = "Waggle-Verified"
	relayHeader    = "Waggle-Relay"
	digestHeader   = "Repr-Digest"
)

// downloadQuery asks for a file to be saved rather than shown.
const downloadQuery = "download"

// answer is what is to be sent for a GET or HEAD of a file.
type answer struct {
	status  int
	header  http.Header
	message []byte // the body of an error
	offset  int64  // of the file's bytes to send
	length  int64  // of them; 0 if there are none
}

// answerFor has net/http decide about ranges and conditions, of what it is right
// about.
func answerFor(r *http.Request, info *client.Info) *answer {
	r = withRange(r, info.Size())
	a := &answer{status: http.StatusOK, header: fileHeader(r, info)}
	recorder := &contentRecorder{answer: a, size: info.Size()}
	http.ServeContent(recorder, r, "", info.ModTime(), recorder)
	return a
}

// withRange prepares a request for net/http, which deviates from RFC 9110 (14.2):
// a range is for GET, not HEAD; one in a unit that is not known counts as none; the
// last 0 bytes can't be had, as none of the file can; and lists may be on several
// lines. Several ranges at once are answered with the whole file, which is allowed,
// so that no client can have it multiplied.
func withRange(r *http.Request, size int64) *http.Request {
	r = r.Clone(r.Context())
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if values := r.Header[name]; len(values) > 1 {
			r.Header.Set(name, strings.Join(values, ", "))
		}
	}
	values := r.Header["Range"]
	if len(values) == 0 {
		return r
	}
	unit, wanted, given := strings.Cut(values[0], "=")
	switch last, isLast := strings.CutPrefix(strings.TrimSpace(wanted), "-"); {
	case r.Method != http.MethodGet, len(values) > 1, strings.Contains(wanted, ","), given && !strings.EqualFold(unit, "bytes"):
		r.Header.Del("Range")
	case isLast && last != "" && strings.Trim(last, "0") == "":
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", size))
	case given:
		r.Header.Set("Range", "bytes="+wanted)
	}
	return r
}

func fileHeader(r *http.Request, info *client.Info) http.Header {
	h := make(http.Header)
	h.Set("ETag", entityTag(info.Attributes()))
	h.Set("Content-Type", contentType(info.Name()))
	// Files are anybody's, so the browser must not run them as the gateway's pages.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox")
	if r.URL.RawQuery == downloadQuery {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(info.Name())}))
	}
	return h
}

// entityTag changes with every change of a file that was published: by Sync,
// Close, or a change of attributes. It is made of what comes with every lookup
// and every entry of a directory. A tag made of the chunks' checksums would stay
// when only a tag or a mode changes, but it would cost a question to a chunk
// server for each chunk of each file of a listing and of each request, before
// its first byte, and would need all of them to be up. Who wants the checksum of
// what was sent gets it behind the body (Content-Digest).
func entityTag(a wire.Attributes) string {
	return fmt.Sprintf(`"%x-%x-%x-%x"`, a.Inode, a.Version, a.ModifiedNs, a.Size)
}

func contentType(name string) string {
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// contentRecorder poses as the client and as the content to
// http.ServeContent, and notes what it would send.
type contentRecorder struct {
	answer   *answer
	size     int64
	position int64
}

func (c *contentRecorder) Header() http.Header { return c.answer.header }

func (c *contentRecorder) WriteHeader(status int) { c.answer.status = status }

func (c *contentRecorder) Write(p []byte) (int, error) {
	c.answer.message = append(c.answer.message, p...)
	return len(p), nil
}

// ReadFrom is what io.CopyN of the content comes to.
func (c *contentRecorder) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return 0, errors.New("net/http sends content in an unknown way")
	}
	c.answer.offset, c.answer.length = c.position, min(limited.N, c.size-c.position)
	return limited.N, nil
}

func (c *contentRecorder) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		offset += c.size
	}
	c.position = offset
	return offset, nil
}

func (c *contentRecorder) Read([]byte) (int, error) {
	return 0, errors.New("the content is not read but moved")
}

// head is the response up to its body.
func (a *answer) head(closing bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\n", a.status, http.StatusText(a.status), time.Now().UTC().Format(http.TimeFormat))
	if closing {
		b.WriteString("Connection: close\r\n")
	}
	a.header.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// uploadsRoot is the directory that holds what is being uploaded. It does not
// exist for clients.
const uploadsRoot = "/" + wire.UploadsName

// pagesPrefix is where the gateway's own pages are.
const pagesPrefix = "/-/"

func isReserved(p string) bool {
	p = path.Clean(p)
	return p == uploadsRoot || strings.HasPrefix(p, uploadsRoot+"/") || p == strings.TrimSuffix(pagesPrefix, "/") || strings.HasPrefix(p, pagesPrefix)
}

// checkPath refuses what means different things to different readers.
func checkPath(u *url.URL) error {
	raw := strings.ToLower(u.RawPath)
	switch {
	case !strings.HasPrefix(u.Path, "/"):
		return errors.New("a path starts with a slash")
	case strings.Contains(raw, "%2f"):
		return errors.New("a name can't hold a slash, not even as %2F")
	case strings.ContainsRune(u.Path, 0):
		return errors.New("a name can't hold a NUL byte")
	}
	for name := range strings.SplitSeq(u.Path, "/") {
		switch {
		case name == "." || name == "..":
			return fmt.Errorf("%q is refused: give the path without it", name)
		case len(name) > wire.MaxName:
			return fmt.Errorf("a name has %d bytes, at most %d are allowed", len(name), wire.MaxName)
		}
	}
	return nil
}
