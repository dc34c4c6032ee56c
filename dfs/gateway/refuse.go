package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"waggle/dfs/client"
	"waggle/dfs/gateway/dav"
)

// refusedError is why a request is not carried out.
type refusedError struct {
	status int
	text   string
	allow  string // methods, for 405
	// acceptCoding is what bodies may be coded in, for 415.
	acceptCoding string
	// condition is what was not met, as RFC 4918 (16) calls it, and about the paths
	// that it is about.
	condition string
	about     []string
	members   []member // of a tree; then the status is 207
}

// member is what could not be changed of a tree.
type member struct {
	path      string
	status    int
	condition string // may be ""
}

func (e *refusedError) Error() string { return e.text }

func refuse(status int, text string) error { return &refusedError{status: status, text: text} }

func membersWith(status int, condition string, paths []string) (list []member) {
	for _, p := range paths {
		list = append(list, member{p, status, condition})
	}
	return list
}

// errorStatuses says what an error of the file system is in HTTP.
var errorStatuses = []struct {
	err    error
	status int
}{
	{fs.ErrNotExist, http.StatusNotFound},
	{syscall.ENOTDIR, http.StatusNotFound},
	{syscall.ELOOP, http.StatusNotFound},
	{fs.ErrPermission, http.StatusForbidden},
	{fs.ErrInvalid, http.StatusBadRequest},
	{syscall.ENOSPC, http.StatusInsufficientStorage},
	{syscall.EDQUOT, http.StatusInsufficientStorage},
	{client.ErrBusy, http.StatusConflict},
	{fs.ErrExist, http.StatusConflict},
	{syscall.EISDIR, http.StatusConflict},
	{syscall.ENOTEMPTY, http.StatusConflict},
	{client.ErrUnavailable, http.StatusServiceUnavailable},
	{client.ErrLeaseLost, http.StatusServiceUnavailable},
	{errBroken, http.StatusBadRequest},
	{errSlow, http.StatusRequestTimeout},
	{io.ErrUnexpectedEOF, http.StatusBadRequest},
	{errCutShort, http.StatusBadRequest},
	{context.Canceled, http.StatusServiceUnavailable},
	{dav.ErrMalformed, http.StatusBadRequest},
	{dav.ErrUnsupported, http.StatusUnprocessableEntity},
	{dav.ErrTooManyLocks, http.StatusInsufficientStorage},
}

func statusOf(err error) int {
	var refused *refusedError
	var tooLarge *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &refused):
		return refused.status
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &slow) && slow.Timeout() && !errors.Is(err, client.ErrUnavailable):
		return http.StatusRequestTimeout
	}
	for _, e := range errorStatuses {
		if errors.Is(err, e.err) {
			return e.status
		}
	}
	return http.StatusInternalServerError
}

// refusalOf is the answer that says what is wrong: a line, or XML where RFC 4918
// wants it. Of a tree it says nothing: see fail.
func refusalOf(err error) *answer {
	a := &answer{status: statusOf(err), header: http.Header{}}
	a.header.Set("X-Content-Type-Options", "nosniff")
	a.header.Set("Content-Type", "text/plain; charset=utf-8")
	a.message = bytes.ToValidUTF8(fmt.Appendf(nil, "%s: %v\n", http.StatusText(a.status), err), []byte("\uFFFD"))
	var refused *refusedError
	if !errors.As(err, &refused) {
		return a
	}
	if refused.allow != "" {
		a.header.Set("Allow", refused.allow)
	}
	if refused.acceptCoding != "" {
		a.header.Set("Accept-Encoding", refused.acceptCoding)
	}
	if refused.condition != "" {
		var hrefs []string
		for _, p := range refused.about {
			hrefs = append(hrefs, href(p, ""))
		}
		a.header.Set("Content-Type", dav.XMLType)
		a.message = dav.ErrorBody(refused.condition, hrefs...)
	}
	return a
}

// fail answers with what is wrong.
func fail(w http.ResponseWriter, err error) {
	var refused *refusedError
	if errors.As(err, &refused) && len(refused.members) > 0 {
		m := dav.NewMultistatus(w)
		for _, member := range refused.members {
			m.Status(href(member.path, ""), member.status, member.condition)
		}
		m.Close()
		return
	}
	a := refusalOf(err)
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	w.Write(a.message)
}
