package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"path"
	"strings"
	"time"

	"golang.org/x/net/webdav"

	"waggle/dfs/client"
	"waggle/dfs/metrics"
)

const (
	// maxForm bounds the body of a request that is not an upload, in bytes.
	maxForm = 64 << 10
	// longTime bounds requests that work on whole trees.
	longTime = 10 * time.Minute
)

// newServer answers whatever the loop does not.
func (g *Gateway) newServer() *http.Server {
	h := &handler{g: g, pages: g.newPages(), dav: &webdav.Handler{FileSystem: davFS{g}, LockSystem: newLocks()}}
	return &http.Server{
		// A page of another site must not change files with a visitor's browser.
		Handler:           http.NewCrossOriginProtection().Handler(h),
		ReadHeaderTimeout: g.config.HeaderTimeout,
		IdleTimeout:       g.config.IdleTimeout,
		MaxHeaderBytes:    g.config.MaxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong
	}
}

type handler struct {
	g     *Gateway
	pages http.Handler
	dav   *webdav.Handler
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := h.g
	g.counts.requests.Add(1)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := checkPath(r.URL); err != nil {
		complain(w, r, http.StatusBadRequest, "Bad path: "+err.Error())
		return
	}
	deadlines := http.NewResponseController(w)
	deadlines.SetReadDeadline(time.Now().Add(g.config.Grace))
	deadlines.SetWriteDeadline(time.Now().Add(longTime))
	if r.Method != http.MethodPut {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	switch {
	case strings.HasPrefix(r.URL.Path, pagesPrefix):
		h.pages.ServeHTTP(w, r)
	case isReserved(r.URL.Path):
		complain(w, r, http.StatusNotFound, "This path does not exist for clients: it is the gateway's own")
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		g.get(w, r)
	case r.Method == http.MethodPut:
		h.put(w, r)
	case r.Method == http.MethodPost:
		g.postTags(w, r)
	case r.Method == "PROPFIND" && !finiteDepth(r):
		// A whole tree would have no limit (RFC 4918, 9.1).
		http.Error(w, "PROPFIND needs the header Depth: 0 or Depth: 1", http.StatusForbidden)
	default:
		h.dav.ServeHTTP(w, r)
	}
}

func finiteDepth(r *http.Request) bool {
	depth := r.Header.Get("Depth")
	return depth == "0" || depth == "1"
}

// get answers what the loop has not: a directory, a page about a file, or a file
// whose request came on a connection of net/http.
func (g *Gateway) get(w http.ResponseWriter, r *http.Request) {
	info, err := g.client.Stat(r.Context(), r.URL.Path)
	switch {
	case err != nil:
		failPage(w, r, err)
	case r.URL.Query().Has("info"):
		g.infoPage(w, r, info)
	case info.IsDir():
		g.directory(w, r)
	case !info.Mode().IsRegular():
		failPage(w, r, &fs.PathError{Op: "get", Path: r.URL.Path, Err: fs.ErrInvalid})
	case r.Method == http.MethodGet && g.relay != nil && r.ProtoAtLeast(1, 1) && r.ContentLength == 0:
		r := r.WithContext(context.WithoutCancel(r.Context())) // which ends with this handler
		// It has looked at the file, so of a request that is not plain nothing is
		// left to hand back.
		if err := g.takeBack(w, func(c *connection) outcome { return g.answerPlain(c, r) }); err != nil {
			g.warn("connection not taken back", "client", r.RemoteAddr, "reason", err)
		}
	default:
		g.getVerified(w, r, info)
	}
}

// getVerified sends a file that the client library reads.
func (g *Gateway) getVerified(w http.ResponseWriter, r *http.Request, info *client.Info) {
	began := time.Now()
	a := answerFor(r, info)
	for name, values := range a.header {
		w.Header()[name] = values
	}
	if a.length == 0 {
		w.WriteHeader(a.status)
		w.Write(a.message)
		return
	}
	file, err := g.client.Open(r.Context(), r.URL.Path)
	if err != nil {
		fail(w, err)
		return
	}
	defer file.Close()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		fail(w, err)
		return
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.config.bodyTime(a.length)))
	w.Header().Set(verifiedHeader, "yes")
	w.WriteHeader(a.status)
	n, err := io.CopyN(w, file, a.length)
	g.counts.library.Add(n)
	if err != nil {
		g.counts.broken.Add(1)
		g.warn("body ended early", "client", r.RemoteAddr, "path", r.URL.Path, "reason", err)
		panic(http.ErrAbortHandler) // so that the client sees it
	}
	g.counts.took(verified, time.Since(began))
}

// put stores a file. A plain one is relayed; of others package webdav checks the
// locks.
func (h *handler) put(w http.ResponseWriter, r *http.Request) {
	g := h.g
	old, err := g.client.Stat(r.Context(), r.URL.Path)
	exists := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		fail(w, err)
		return
	case exists && old.IsDir():
		http.Error(w, "There is a directory of this name", http.StatusMethodNotAllowed)
		return
	case strings.HasSuffix(r.URL.Path, "/"):
		http.Error(w, "The name of a file does not end in a slash", http.StatusBadRequest)
		return
	case r.Header.Get("Content-Range") != "":
		http.Error(w, "A part of a file can't be put", http.StatusBadRequest)
		return
	case !putAllowed(r, old):
		http.Error(w, http.StatusText(http.StatusPreconditionFailed), http.StatusPreconditionFailed)
		return
	}
	promised, err := promisesOf(r.Header)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if g.relays(r, promised) {
		h.putRelayed(w, r, exists, promised)
		return
	}
	body := newCheckedBody(&pacedBody{ReadCloser: http.MaxBytesReader(w, r.Body, g.config.MaxUpload), config: &g.config,
		deadlines: http.NewResponseController(w), began: time.Now()}, promised)
	outcome := &putOutcome{replaces: exists, digest: body.digest}
	r = r.WithContext(context.WithValue(r.Context(), outcomeKey{}, outcome))
	r.Body = body
	h.dav.ServeHTTP(&putWriter{ResponseWriter: w, outcome: outcome, tag: func() string { return g.tagOf(r.Context(), r.URL.Path) }}, r)
}

func (g *Gateway) tagOf(ctx context.Context, name string) string {
	info, err := g.client.Stat(ctx, name)
	if err != nil {
		return "" // removed since
	}
	return entityTag(info.Attributes())
}

// putAllowed evaluates If-Match and If-None-Match of an upload; old is nil if
// there is no file.
func putAllowed(r *http.Request, old *client.Info) bool {
	matches := func(list string) bool {
		if old == nil {
			return false
		}
		for tag := range strings.SplitSeq(list, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || tag == entityTag(old.Attributes()) {
				return true
			}
		}
		return false
	}
	if must := r.Header.Get("If-Match"); must != "" && !matches(must) {
		return false
	}
	mustNot := r.Header.Get("If-None-Match")
	return mustNot == "" || !matches(mustNot)
}

// pacedBody is an upload that must come at least at the least rate.
type pacedBody struct {
	io.ReadCloser
	config    *Config
	deadlines *http.ResponseController
	began     time.Time
	taken     int64
}

func (b *pacedBody) Read(p []byte) (int, error) {
	deadline := b.began.Add(b.config.bodyTime(b.taken))
	b.deadlines.SetReadDeadline(deadline)
	b.deadlines.SetWriteDeadline(deadline.Add(longTime))
	n, err := b.ReadCloser.Read(p)
	b.taken += int64(n)
	return n, err
}

// newPages serves what is not a file of the file system.
func (g *Gateway) newPages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /-/metrics", metrics.Handler(g.Metrics()))
	mux.HandleFunc("GET /-/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, g.status()) })
	mux.HandleFunc("GET /-/live", g.livePage)
	mux.HandleFunc("GET /-/{asset}", serveAsset)
	return mux
}

// tagPrefix begins the name of an extended attribute that is shown as a tag.
const tagPrefix = "user."

func (g *Gateway) postTags(w http.ResponseWriter, r *http.Request) {
	if !r.URL.Query().Has("tags") {
		http.Error(w, "POST changes tags only: see the page about the file", http.StatusMethodNotAllowed)
		return
	}
	if err := r.ParseForm(); err != nil {
		status := statusOf(err)
		if status == http.StatusInternalServerError {
			status = http.StatusBadRequest
		}
		complain(w, r, status, "Read the form: "+err.Error())
		return
	}
	name, value := r.PostForm.Get("name"), r.PostForm.Get("value")
	var err error
	switch {
	case name == "":
		complain(w, r, http.StatusBadRequest, "A tag needs a name")
		return
	case r.PostForm.Has("remove"):
		err = g.client.RemoveXattr(r.Context(), r.URL.Path, tagPrefix+name)
	default:
		err = g.client.SetXattr(r.Context(), r.URL.Path, tagPrefix+name, []byte(value), client.XattrAny)
	}
	if err != nil {
		failPage(w, r, fmt.Errorf("change tag %q: %w", name, err))
		return
	}
	http.Redirect(w, r, href(path.Clean(r.URL.Path), "info"), http.StatusSeeOther)
}
