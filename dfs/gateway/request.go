package gateway

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxPlainHeader bounds the header of a request that the loop answers, in
// bytes. A longer one is for net/http, which has a limit of its own.
const maxPlainHeader = 4 << 10

// verdict is what parsePlain thinks of the beginning of a request.
type verdict int

const (
	plainRequest verdict = iota // the loop can answer it
	otherRequest                // net/http can, or refuses it
	needMore                    // it is not whole yet
)

// parsePlain looks at what a client has sent. A plain request is a GET of
// HTTP/1.1 with no body, nothing in it that changes how the connection is read,
// and an ordinary path. net/http parses it; this only adds what net/http's
// server demands beside.
func parsePlain(head []byte) (request *http.Request, size int, v verdict) {
	const start = "GET /"
	if n := min(len(head), len(start)); string(head[:n]) != start[:n] {
		return nil, 0, otherRequest
	}
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, 0, needMore
	}
	size = end + 4
	if !plainLines(head[:end]) {
		return nil, 0, otherRequest
	}
	rest := bytes.NewReader(head[:size])
	in := bufio.NewReaderSize(rest, maxPlainHeader)
	request, err := http.ReadRequest(in)
	if err != nil || in.Buffered()+rest.Len() > 0 || !isPlain(request) {
		return nil, 0, otherRequest
	}
	return request, size, plainRequest
}

// plainLines says whether every line ends in CR LF, has no other control
// character, and continues no line before it, and one names the host: of several
// net/http's parser would only show the first.
func plainLines(head []byte) bool {
	hosts := 0
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if len(line) == 0 || line[0] == ' ' || line[0] == '\t' {
			return false
		}
		for _, b := range line {
			if b < ' ' && b != '\t' || b >= 0x7f {
				return false
			}
		}
		if len(line) >= 5 && strings.EqualFold(string(line[:5]), "Host:") {
			hosts++
		}
	}
	return hosts == 1
}

// plainNames says whether all headers have names as RFC 9110 wants them, which
// is net/http's server's to check, not its parser's.
func plainNames(h http.Header) bool {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return false
			}
		}
	}
	return true
}

// notPlainHeaders say something about the connection, the body, or WebDAV's locks.
var notPlainHeaders = []string{"If", "Content-Length", "Transfer-Encoding", "Trailer", "Upgrade", "Expect", "Http2-Settings", "Proxy-Connection"}

func isPlain(r *http.Request) bool {
	if r.Proto != "HTTP/1.1" || r.ContentLength != 0 || len(r.TransferEncoding) > 0 || !plainHost(r.Host) || r.URL.Host != "" || !plainNames(r.Header) {
		return false
	}
	for _, name := range notPlainHeaders {
		if _, there := r.Header[name]; there {
			return false
		}
	}
	for _, value := range r.Header["Connection"] {
		if value = strings.ToLower(value); value != "keep-alive" && value != "close" && value != "te" && value != "te, close" {
			return false
		}
	}
	return plainURL(r.URL)
}

// plainHost leaves anything unusual to net/http.
func plainHost(host string) bool {
	if host == "" {
		return false
	}
	for _, b := range []byte(host) {
		if (b < '0' || b > '9') && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && !strings.ContainsRune(".-_:[]", rune(b)) {
			return false
		}
	}
	return true
}

func plainURL(u *url.URL) bool {
	return (u.RawQuery == "" || u.RawQuery == downloadQuery) && checkPath(u) == nil && !isReserved(u.Path)
}
