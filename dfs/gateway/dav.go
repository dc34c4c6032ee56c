package gateway

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"syscall"
	"time"

	"waggle/dfs/gateway/dav"
)

// Methods that directories, files, and what does not exist have.
const (
	allowedAlways    = "OPTIONS, PROPFIND, LOCK, UNLOCK"
	allowedFile      = allowedAlways + ", GET, HEAD, PUT, POST, DELETE, COPY, MOVE, PROPPATCH"
	allowedDirectory = allowedAlways + ", GET, HEAD, POST, DELETE, COPY, MOVE, PROPPATCH"
	allowedNothing   = "OPTIONS, PUT, MKCOL, LOCK"
)

// davMethods answer what HTTP alone does not have, and DELETE. An error that they
// return is the answer.
var davMethods = map[string]func(*handler, http.ResponseWriter, *http.Request) error{
	http.MethodOptions: (*handler).options,
	http.MethodDelete:  (*handler).delete,
	"MKCOL":            (*handler).mkcol,
	"COPY":             (*handler).copy,
	"MOVE":             (*handler).move,
	"LOCK":             (*handler).lock,
	"UNLOCK":           (*handler).unlock,
	"PROPFIND":         (*handler).propfind,
	"PROPPATCH":        (*handler).proppatch,
}

// notAllowed is the refusal of a method that what is there does not have.
func notAllowed(allow, text string) error {
	return &refusedError{status: http.StatusMethodNotAllowed, text: text, allow: allow}
}

// allowed are the methods of what a path names.
func (h *handler) allowed(r *http.Request) string {
	info, err := h.g.client.Stat(r.Context(), r.URL.Path)
	switch {
	case err != nil:
		return allowedNothing
	case info.IsDir():
		return allowedDirectory
	}
	return allowedFile
}

func (h *handler) options(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Allow", h.allowed(r))
	w.Header().Set("DAV", "1, 2, 3")
	w.Header().Set("MS-Author-Via", "DAV") // without which Windows asks no further
	w.Header().Set("Content-Length", "0")
	return nil
}

func (h *handler) mkcol(w http.ResponseWriter, r *http.Request) error {
	p := path.Clean(r.URL.Path)
	if r.ContentLength != 0 {
		return refuse(http.StatusUnsupportedMediaType, "MKCOL takes no body")
	}
	if h.g.exists(r.Context(), p) {
		return notAllowed(h.allowed(r), "There is something of this name already")
	}
	if err := h.needsParent(r, p); err != nil {
		return err
	}
	release, err := h.permit(r.Context(), r, target{path: p, appears: true})
	if err != nil {
		return err
	}
	defer release()
	err = h.g.client.Mkdir(r.Context(), p, 0o777&^withheld)
	if errors.Is(err, fs.ErrExist) { // since just now
		return notAllowed(h.allowed(r), "There is something of this name already")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// needsParent refuses what would lie in no directory.
func (h *handler) needsParent(r *http.Request, p string) error {
	parent, err := h.g.client.Stat(r.Context(), path.Dir(p))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !parent.IsDir() {
		return refuse(http.StatusConflict, "There is no directory "+path.Dir(p))
	}
	return err
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request) error {
	p := path.Clean(r.URL.Path)
	info, err := h.g.client.Lstat(r.Context(), p)
	if err != nil {
		return err
	}
	if p == "/" {
		return refuse(http.StatusForbidden, "The root can't be removed")
	}
	if depth, ok := dav.ParseDepth(r.Header, dav.Infinity); info.IsDir() && (!ok || depth != dav.Infinity) {
		return refuse(http.StatusBadRequest, "A directory is removed with all in it: Depth can only be infinity")
	}
	release, err := h.permit(r.Context(), r, target{path: p, deep: true, goes: true})
	if err != nil {
		return err
	}
	defer release()
	if err := h.g.client.RemoveAll(r.Context(), p); err != nil {
		return err
	}
	h.locks.Removed(p, false)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readBody reads the body of a request that is no upload.
func readBody(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	return text, bodyError(err)
}

// Limits of WebDAV's locks.
const (
	maxLocks    = 10_000
	maxLockTime = time.Hour
)

func (h *handler) lock(w http.ResponseWriter, r *http.Request) error {
	text, err := readBody(r)
	if err != nil {
		return err
	}
	wanted, err := dav.ParseLockInfo(text)
	if err != nil {
		return err
	}
	if wanted == nil {
		return h.refreshLock(w, r)
	}
	depth, ok := dav.ParseDepth(r.Header, dav.Infinity)
	if !ok || depth == dav.One {
		return refuse(http.StatusBadRequest, "A lock has Depth: 0 or Depth: infinity")
	}
	p := path.Clean(r.URL.Path)
	if err := h.needsParent(r, p); err != nil {
		return err
	}
	deep := depth == dav.Infinity
	release, err := h.permit(r.Context(), r, target{path: p, deep: deep, appears: true, keepsLocks: true})
	if err != nil {
		return err
	}
	defer release()
	lock, err := h.locks.Create(dav.Lock{Root: p, Shared: wanted.Shared, Deep: deep, Owner: wanted.Owner,
		Timeout: dav.ParseTimeout(r.Header, maxLockTime)})
	if err != nil {
		return lockRefused(err, p)
	}
	status := http.StatusOK
	if !h.g.exists(r.Context(), p) { // a lock of a name makes an empty file (RFC 4918, 7.3)
		if err := h.g.client.WriteFile(r.Context(), p, nil, 0o666&^withheld); err != nil {
			return errors.Join(err, h.locks.Unlock(lock.Token, p))
		}
		status = http.StatusCreated
	}
	w.Header().Set("Lock-Token", "<"+lock.Token+">")
	h.showLock(w, status, lock)
	return nil
}

func (h *handler) showLock(w http.ResponseWriter, status int, lock dav.Lock) {
	w.Header().Set("Content-Type", dav.XMLType)
	w.WriteHeader(status)
	w.Write(dav.LockBody(dav.LockDiscovery([]dav.Lock{lock}, pathHref)))
}

// lockRefused says which locks are in the way of a new one: at the path or above
// it, or only below it (RFC 4918, 9.10.3).
func lockRefused(err error, p string) error {
	var conflict *dav.ConflictError
	if !errors.As(err, &conflict) {
		return err
	}
	var above, below []string
	for _, l := range conflict.Locks {
		if dav.IsBelow(l.Root, p) {
			below = append(below, l.Root)
		} else {
			above = append(above, l.Root)
		}
	}
	if len(above) > 0 {
		return &refusedError{status: http.StatusLocked, text: err.Error(), condition: "no-conflicting-lock", about: above}
	}
	members := append(membersWith(http.StatusLocked, "no-conflicting-lock", below), member{p, http.StatusFailedDependency, ""})
	return &refusedError{status: http.StatusMultiStatus, text: err.Error(), members: members}
}

func (h *handler) refreshLock(w http.ResponseWriter, r *http.Request) error {
	p := path.Clean(r.URL.Path)
	condition, err := dav.ParseIf(r.Header["If"])
	if err != nil {
		return err
	}
	tokens := condition.Tokens()
	if len(tokens) != 1 {
		return refuse(http.StatusBadRequest, "A LOCK without a body starts the time of a lock again, which the header If names")
	}
	release, err := h.permit(r.Context(), r, target{path: p, keepsLocks: true})
	if err != nil {
		return err
	}
	defer release()
	lock, err := h.locks.Refresh(tokens[0], p, dav.ParseTimeout(r.Header, maxLockTime))
	if err != nil {
		return &refusedError{status: http.StatusPreconditionFailed, text: err.Error(), condition: "lock-token-matches-request-uri"}
	}
	h.showLock(w, http.StatusOK, lock)
	return nil
}

func (h *handler) unlock(w http.ResponseWriter, r *http.Request) error {
	token, ok := dav.ParseLockToken(r.Header)
	if !ok {
		return refuse(http.StatusBadRequest, "UNLOCK needs the header Lock-Token: <URI>")
	}
	p := path.Clean(r.URL.Path)
	release, err := h.permit(r.Context(), r, target{path: p, keepsLocks: true})
	if err != nil {
		return err
	}
	defer release()
	if err := h.locks.Unlock(token, p); err != nil {
		return &refusedError{status: http.StatusConflict, text: err.Error(), condition: "lock-token-matches-request-uri"}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
