package dav

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"time"
)

// XMLType is the media type of the answers.
const XMLType = "application/xml; charset=utf-8"

const prolog = `<?xml version="1.0" encoding="utf-8"?>` + "\n"

// Multistatus writes an answer 207 part by part, so that it may have any length.
type Multistatus struct {
	to    http.ResponseWriter
	part  bytes.Buffer
	begun bool
}

// flushAt is how many bytes are gathered before they are written.
const flushAt = 16 << 10

// NewMultistatus begins an answer. Nothing is written before there is much to
// write, so that until then another answer can be given.
func NewMultistatus(w http.ResponseWriter) *Multistatus {
	m := &Multistatus{to: w}
	m.part.WriteString(prolog + `<D:multistatus xmlns:D="DAV:">`)
	return m
}

// Begun says whether a part was written.
func (m *Multistatus) Begun() bool { return m.begun }

// Propstat is properties that have one status. Error, if it is not empty, is the
// condition that was not met (RFC 4918, 16).
type Propstat struct {
	Status     int
	Properties []*Node
	Error      string
}

// Properties writes what there is to say of a resource's properties.
func (m *Multistatus) Properties(href string, all ...Propstat) error {
	m.begin(href)
	for _, p := range all {
		m.part.WriteString("<D:propstat><D:prop>")
		for _, property := range p.Properties {
			property.append(&m.part, true)
		}
		m.part.WriteString("</D:prop>")
		m.status(p.Status)
		m.condition(p.Error)
		m.part.WriteString("</D:propstat>")
	}
	return m.end()
}

// Status writes what became of a resource.
func (m *Multistatus) Status(href string, status int, condition string) error {
	m.begin(href)
	m.status(status)
	m.condition(condition)
	return m.end()
}

// Close ends the answer.
func (m *Multistatus) Close() error {
	m.part.WriteString("</D:multistatus>\n")
	return m.flush()
}

func (m *Multistatus) begin(href string) {
	m.part.WriteString("\n<D:response><D:href>")
	escape(&m.part, href)
	m.part.WriteString("</D:href>")
}

func (m *Multistatus) status(status int) {
	fmt.Fprintf(&m.part, "<D:status>HTTP/1.1 %d %s</D:status>", status, http.StatusText(status))
}

func (m *Multistatus) condition(condition string) {
	if condition != "" {
		fmt.Fprintf(&m.part, "<D:error><D:%s/></D:error>", condition)
	}
}

func (m *Multistatus) end() error {
	m.part.WriteString("</D:response>")
	if m.part.Len() < flushAt {
		return nil
	}
	return m.flush()
}

func (m *Multistatus) flush() error {
	if !m.begun {
		m.begun = true
		m.to.Header().Set("Content-Type", XMLType)
		m.to.WriteHeader(http.StatusMultiStatus)
	}
	_, err := m.to.Write(m.part.Bytes())
	m.part.Reset()
	return err
}

// ErrorBody is the body of an error: the condition that was not met, and what
// resources it is about.
func ErrorBody(condition string, hrefs ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, prolog+`<D:error xmlns:D="DAV:"><D:%s>`, condition)
	for _, href := range hrefs {
		b.WriteString("<D:href>")
		escape(&b, href)
		b.WriteString("</D:href>")
	}
	fmt.Fprintf(&b, "</D:%s></D:error>\n", condition)
	return b.Bytes()
}

// LockBody is the body of the answer to a LOCK.
func LockBody(discovery *Node) []byte {
	b := bytes.NewBufferString(prolog)
	Element("prop", discovery).Append(b)
	b.WriteByte('\n')
	return b.Bytes()
}

// Element makes an element of WebDAV's, of elements and strings.
func Element(local string, content ...any) *Node {
	return &Node{Name: xml.Name{Space: Namespace, Local: local}, Content: content}
}

// LockDiscovery is the property of that name. Href makes a URL of a path.
func LockDiscovery(locks []Lock, href func(path string) string) *Node {
	all := Element("lockdiscovery")
	for _, l := range locks {
		scope, depth := "exclusive", "0"
		if l.Shared {
			scope = "shared"
		}
		if l.Deep {
			depth = "infinity"
		}
		active := Element("activelock",
			Element("lockscope", Element(scope)), Element("locktype", Element("write")), Element("depth", depth))
		if l.Owner != nil {
			active.Content = append(active.Content, l.Owner)
		}
		active.Content = append(active.Content,
			Element("timeout", fmt.Sprintf("Second-%d", l.Timeout/time.Second)),
			Element("locktoken", Element("href", l.Token)), Element("lockroot", Element("href", href(l.Root))))
		all.Content = append(all.Content, active)
	}
	return all
}

// SupportedLock is the property of that name.
func SupportedLock() *Node {
	entry := func(scope string) *Node {
		return Element("lockentry", Element("lockscope", Element(scope)), Element("locktype", Element("write")))
	}
	return Element("supportedlock", entry("exclusive"), entry("shared"))
}
