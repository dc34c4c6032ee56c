package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"waggle/dfs/tcp"
)

// httpSystem is an HTTP server that has the files of a data set: a gateway, of
// which only downloads are asked, or the server behind nginx, which also takes
// uploads.
type httpSystem struct {
	address   string
	fileBytes int64
}

func (s httpSystem) counters() map[string]int64 { return nil }
func (s httpSystem) close() error               { return nil }

// makeDirectories has nothing to do: an upload makes those that it needs.
func (s httpSystem) makeDirectories(context.Context, []string) error { return nil }

// connect opens a connection that lasts for all of a client's requests.
func (s httpSystem) connect(ctx context.Context) (session, error) {
	conn, err := tcp.DialData(ctx, s.address)
	if err != nil {
		return nil, fmt.Errorf("connect for HTTP: %w", err)
	}
	return &httpSession{system: s, conn: conn, in: bufio.NewReader(conn)}, nil
}

// httpSession is one connection. It is a client of its own, not net/http's, whose
// goroutines between a request and its answer would be measured too.
type httpSession struct {
	noSmallFiles
	system httpSystem
	conn   net.Conn
	in     *bufio.Reader
}

func (s *httpSession) close() error { return s.conn.Close() }

func (s *httpSession) remove(context.Context, largeFile) error { return errNotOverHTTP }

// errNotOverHTTP can't be seen: no workload over HTTP does that.
var errNotOverHTTP = errors.New("this can't be done over HTTP")

func (s *httpSession) open(_ context.Context, f largeFile) (file, error) {
	return &httpDownload{s, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", f.path(), s.system.address)}, nil
}

// create begins an upload, whose bytes follow in their order.
func (s *httpSession) create(_ context.Context, f largeFile) (file, error) {
	_, err := fmt.Fprintf(s.conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", f.path(), s.system.address, s.system.fileBytes)
	return &httpUpload{session: s}, err
}

// answer receives the header of an answer.
func (s *httpSession) answer() (*http.Response, error) {
	r, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return nil, fmt.Errorf("read the answer's header: %w", err)
	}
	if r.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the server answered %s", r.Status)
	}
	return r, nil
}

// httpDownload is a file that is always read whole.
type httpDownload struct {
	session *httpSession
	request []byte
}

func (f *httpDownload) readAt(ctx context.Context, b []byte, offset int64) error {
	if offset != 0 {
		return errNotOverHTTP
	}
	defer context.AfterFunc(ctx, func() { f.session.conn.Close() })()
	if _, err := f.session.conn.Write(f.request); err != nil {
		return err
	}
	r, err := f.session.answer()
	if err != nil {
		return err
	}
	if r.ContentLength != int64(len(b)) {
		return fmt.Errorf("the answer has %d bytes, the file %d", r.ContentLength, len(b))
	}
	_, err = io.ReadFull(r.Body, b)
	return err
}

func (f *httpDownload) writeAt(context.Context, []byte, int64) error { return errNotOverHTTP }
func (f *httpDownload) close(context.Context) error                  { return nil }

// httpUpload is a file on its way to the server.
type httpUpload struct {
	session *httpSession
	written int64
}

func (f *httpUpload) readAt(context.Context, []byte, int64) error { return errNotOverHTTP }

func (f *httpUpload) writeAt(ctx context.Context, b []byte, offset int64) error {
	if offset != f.written {
		return errNotOverHTTP
	}
	defer context.AfterFunc(ctx, func() { f.session.conn.Close() })()
	n, err := f.session.conn.Write(b)
	f.written += int64(n)
	return err
}

func (f *httpUpload) close(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { f.session.conn.Close() })()
	r, err := f.session.answer()
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}
