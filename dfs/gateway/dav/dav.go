// Package dav is what WebDAV (RFC 4918) adds to HTTP, without a file system: the
// conditions of the If header (condition.go), locks (lock.go), the XML of requests
// (xml.go, request.go), and the XML of answers (multistatus.go). Package gateway
// joins it to files.
//
// The rejected way was golang.org/x/net/webdav, which the gateway used before. It
// ignores entity tags in If, has no shared locks, answers no lockdiscovery, makes
// lock tokens that are no URIs, reads no UTF-16, copies a directory into itself
// until it is too deep, and holds a listing in memory; none of that can be
// replaced from outside but the locks, and their interface knows no tags.
package dav

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Depth is how far below a resource a request reaches.
type Depth int

// Depths that a header Depth can have.
const (
	Zero Depth = iota
	One
	Infinity
)

// ParseDepth reads the header Depth; absent is what no header means. It returns
// false if the header is malformed.
func ParseDepth(h http.Header, absent Depth) (Depth, bool) {
	switch value := strings.ToLower(strings.TrimSpace(h.Get("Depth"))); value {
	case "":
		return absent, len(h["Depth"]) == 0
	case "0":
		return Zero, true
	case "1":
		return One, true
	case "infinity":
		return Infinity, true
	}
	return absent, false
}

// ParseOverwrite reads the header Overwrite, which is "T" or "F"; none means "T".
// The second result is false if the header is malformed.
func ParseOverwrite(h http.Header) (overwrite, ok bool) {
	switch h.Get("Overwrite") {
	case "T", "t":
		return true, true
	case "F", "f":
		return false, true
	}
	return true, len(h["Overwrite"]) == 0
}

// ParseTimeout reads the header Timeout of a LOCK: the first of its alternatives
// that is understood, but no longer than most, which is also what none means.
func ParseTimeout(h http.Header, most time.Duration) time.Duration {
	for alternative := range strings.SplitSeq(strings.Join(h["Timeout"], ","), ",") {
		alternative = strings.TrimSpace(alternative)
		if strings.EqualFold(alternative, "Infinite") {
			return most
		}
		const unit = "second-"
		if len(alternative) < len(unit) || !strings.EqualFold(alternative[:len(unit)], unit) {
			continue
		}
		seconds, err := strconv.ParseUint(alternative[len(unit):], 10, 32)
		if err == nil && seconds > 0 {
			return min(time.Duration(seconds)*time.Second, most)
		}
	}
	return most
}

// ParseLockToken reads the header Lock-Token, a URI in angle brackets.
func ParseLockToken(h http.Header) (token string, ok bool) {
	value := strings.TrimSpace(h.Get("Lock-Token"))
	token, opened := strings.CutPrefix(value, "<")
	token, closed := strings.CutSuffix(token, ">")
	return token, opened && closed && token != "" && !strings.ContainsAny(token, "<> ")
}
