package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/gateway/dav"
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
	return &http.Server{
		// A page of another site must not change files with a visitor's browser.
		Handler:           http.NewCrossOriginProtection().Handler(g.handler),
		ReadHeaderTimeout: g.config.HeaderTimeout,
		IdleTimeout:       g.config.IdleTimeout,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, conn)
		},
		MaxHeaderBytes: g.config.MaxHeader,
		ErrorLog:       log.New(io.Discard, "", 0), // what clients do wrong
	}
}

// connectionKey is under which a request's context has its connection.
type connectionKey struct{}

func connectionOf(r *http.Request) *connection {
	return r.Context().Value(connectionKey{}).(*connection)
}

type handler struct {
	g      *Gateway
	pages  http.Handler
	locks  *dav.Locks
	claims *claims
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := h.g
	g.counts.requests.Add(1)
	c := connectionOf(r)
	c.waits.Store(false)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	deadlines := http.NewResponseController(w)
	deadlines.SetWriteDeadline(time.Now().Add(longTime))
	deadlines.SetReadDeadline(time.Time{})
	if r.Method != http.MethodPut && r.Body != http.NoBody {
		deadlines.SetReadDeadline(time.Now().Add(g.config.Grace))
		r.Body = &endedBody{http.MaxBytesReader(w, r.Body, maxForm), deadlines}
	}
	err := h.answer(w, r)
	if errors.Is(err, errTaken) {
		return
	}
	if err != nil {
		fail(w, err)
	}
	c.waits.Store(true)
}

// answer answers a request. An error is to be answered with.
func (h *handler) answer(w http.ResponseWriter, r *http.Request) error {
	if err := checkPath(r.URL); err != nil {
		complain(w, r, http.StatusBadRequest, "Bad path: "+err.Error())
		return nil
	}
	method, isDAV := davMethods[r.Method]
	switch {
	case !isDAV && !slices.Contains(httpMethods, r.Method):
		return refuse(http.StatusNotImplemented, "There is no method "+r.Method+" here")
	case strings.HasPrefix(r.URL.Path, pagesPrefix):
		h.pages.ServeHTTP(w, r)
		return nil
	case isReserved(r.URL.Path):
		complain(w, r, http.StatusNotFound, "This path does not exist for clients: it is the gateway's own")
		return nil
	}
	if err := refuseCoding(r); err != nil {
		return err
	}
	switch {
	case isDAV:
		return method(h, w, r)
	case r.Method == http.MethodPut:
		return h.put(w, r)
	case r.Method == http.MethodPost:
		return h.postTags(w, r)
	}
	return h.get(w, r)
}

// httpMethods are those that are not in davMethods.
var httpMethods = []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost}

// refuseCoding refuses bodies that would have to be decoded: what is put is stored
// as it comes, and would be served without its coding (RFC 9110, 15.5.16).
func refuseCoding(r *http.Request) error {
	for coding := range strings.SplitSeq(strings.Join(r.Header["Content-Encoding"], ","), ",") {
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return &refusedError{status: http.StatusUnsupportedMediaType, acceptCoding: "identity",
				text: "Content-Encoding: " + coding + " is not kept here: send the bytes as they are"}
		}
	}
	return nil
}

// get answers what the loop has not: a directory, a page about a file, or a file
// whose request came on a connection of net/http.
func (h *handler) get(w http.ResponseWriter, r *http.Request) error {
	g := h.g
	condition, err := dav.ParseIf(r.Header["If"])
	if err != nil {
		return err
	}
	info, err := g.client.Stat(r.Context(), r.URL.Path)
	switch {
	case err != nil:
		failPage(w, r, err)
	case !h.ifHolds(r.Context(), r, condition):
		return refuse(http.StatusPreconditionFailed, "The condition If does not hold")
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
		return errTaken
	default:
		g.getVerified(w, r, info)
	}
	return nil
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

// put stores a file.
func (h *handler) put(w http.ResponseWriter, r *http.Request) error {
	g := h.g
	if err := h.mayPut(r); err != nil {
		return err
	}
	promised, err := promisesOf(r.Header)
	if err != nil {
		return refuse(http.StatusBadRequest, err.Error())
	}
	permit := func(ctx context.Context) (func(), error) {
		return h.permit(ctx, r, target{path: path.Clean(r.URL.Path), appears: true})
	}
	release, err := permit(r.Context()) // before the body comes, and once more behind it
	if err != nil {
		return err
	}
	release()
	if g.relays(r, promised) {
		return h.putRelayed(w, r, permit, promised)
	}
	body := newCheckedBody(&pacedBody{ReadCloser: &endedBody{http.MaxBytesReader(w, r.Body, g.config.MaxUpload), http.NewResponseController(w)}, connection: connectionOf(r), config: &g.config,
		deadlines: http.NewResponseController(w), began: time.Now()}, promised)
	u, err := g.newUpload(r.Context(), path.Clean(r.URL.Path), permit)
	if err != nil {
		return err
	}
	u.ReadFrom(body) // what goes wrong, Close tells
	if err := u.Close(); err != nil {
		return err
	}
	w.Header().Set("ETag", u.tag)
	w.Header().Set(digestHeader, body.digest())
	w.Header().Set(verifiedHeader, "yes")
	w.WriteHeader(u.status())
	return nil
}

// mayPut refuses what can't be put, whatever the conditions.
func (h *handler) mayPut(r *http.Request) error {
	old, err := h.g.client.Stat(r.Context(), r.URL.Path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && old.IsDir():
		return notAllowed(allowedDirectory, "There is a directory of this name")
	case strings.HasSuffix(r.URL.Path, "/"):
		return refuse(http.StatusBadRequest, "The name of a file does not end in a slash")
	case len(r.Header["Content-Range"]) > 0:
		return refuse(http.StatusBadRequest, "A part of a file can't be put")
	}
	return nil
}

// endedBody takes the deadline away when the body is here: net/http goes on reading,
// and takes a deadline for a client that has gone.
type endedBody struct {
	io.ReadCloser
	deadlines *http.ResponseController
}

func (b *endedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.deadlines.SetReadDeadline(time.Time{})
	}
	return n, err
}

// pacedBody is an upload that must come at least at the least rate, and never stop
// for too long.
type pacedBody struct {
	io.ReadCloser
	connection *connection
	config     *Config
	deadlines  *http.ResponseController
	began      time.Time
	taken      int64
}

func (b *pacedBody) Read(p []byte) (int, error) {
	deadline := b.config.moreBy(b.began, b.taken, time.Now())
	b.deadlines.SetReadDeadline(deadline)
	b.deadlines.SetWriteDeadline(deadline.Add(longTime))
	b.connection.waits.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.connection.waits.Store(false)
	b.taken += int64(n)
	return n, bodyError(err)
}

// errCutShort: the client ended a body before its end, or sent it malformed.
var errCutShort = errors.New("the body is cut short or malformed")

// bodyError says of an error of reading a body that it is the client's.
func bodyError(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("%w: %w", errCutShort, err)
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

func (h *handler) postTags(w http.ResponseWriter, r *http.Request) error {
	if !r.URL.Query().Has("tags") {
		allow := strings.Replace(h.allowed(r), ", POST", "", 1)
		return notAllowed(allow, "POST changes tags only: see the page about the file")
	}
	if err := r.ParseForm(); err != nil {
		status := statusOf(err)
		if status == http.StatusInternalServerError {
			status = http.StatusBadRequest
		}
		complain(w, r, status, "Read the form: "+err.Error())
		return nil
	}
	p := path.Clean(r.URL.Path)
	if _, err := h.g.client.Stat(r.Context(), p); err != nil {
		failPage(w, r, err)
		return nil
	}
	release, err := h.permit(r.Context(), r, target{path: p})
	if err != nil {
		failPage(w, r, err)
		return nil
	}
	defer release()
	name, value := r.PostForm.Get("name"), r.PostForm.Get("value")
	switch {
	case name == "":
		complain(w, r, http.StatusBadRequest, "A tag needs a name")
		return nil
	case tagPrefix+name == propertiesXattr:
		complain(w, r, http.StatusBadRequest, "This name is for WebDAV's properties: take another one")
		return nil
	case r.PostForm.Has("remove"):
		err = h.g.client.RemoveXattr(r.Context(), p, tagPrefix+name)
	default:
		err = h.g.client.SetXattr(r.Context(), p, tagPrefix+name, []byte(value), client.XattrAny)
	}
	if err != nil {
		failPage(w, r, fmt.Errorf("change tag %q: %w", name, err))
		return nil
	}
	http.Redirect(w, r, href(p, "info"), http.StatusSeeOther)
	return nil
}
