package dav

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/text/encoding/unicode"
)

// Namespace is WebDAV's.
const Namespace = "DAV:"

const (
	xmlNamespace = "http://www.w3.org/XML/1998/namespace" // of the prefix xml
	// maxNesting bounds how deep elements lie in each other.
	maxNesting = 64
)

// Node is an element of XML. Its names have namespaces in place of prefixes, so
// that it can be kept and put into another document.
type Node struct {
	Name       xml.Name
	Attributes []xml.Attr // without declarations of namespaces
	Content    []any      // *Node and string
}

// language is the attribute xml:lang.
var language = xml.Name{Space: xmlNamespace, Local: "lang"}

// Parse reads a document in UTF-8 or UTF-16. The result is nil if it is empty.
// Package encoding/xml alone would take prefixes that nobody has declared.
func Parse(document []byte) (*Node, error) {
	document, err := toUTF8(document)
	if err != nil || len(bytes.TrimSpace(document)) == 0 {
		return nil, err
	}
	p := parser{in: xml.NewDecoder(bytes.NewReader(document))}
	p.in.CharsetReader = func(name string, r io.Reader) (io.Reader, error) {
		if name = strings.ToLower(name); name == "utf-16" || name == "us-ascii" { // it is UTF-8 by now
			return r, nil
		}
		return nil, fmt.Errorf("encoding %q: only UTF-8 and UTF-16 are read", name)
	}
	root, err := p.document()
	if err != nil {
		return nil, fmt.Errorf("%w: XML: %w", ErrMalformed, err)
	}
	return root, nil
}

// toUTF8 goes by the first bytes of a document (XML 1.0, appendix F).
func toUTF8(document []byte) ([]byte, error) {
	order := unicode.BigEndian
	switch {
	case bytes.HasPrefix(document, []byte("\xef\xbb\xbf")):
		return document[3:], nil
	case bytes.HasPrefix(document, []byte("\xff\xfe")), bytes.HasPrefix(document, []byte("<\x00")):
		order = unicode.LittleEndian
	case bytes.HasPrefix(document, []byte("\xfe\xff")), bytes.HasPrefix(document, []byte("\x00<")):
	default:
		return document, nil
	}
	text, err := unicode.UTF16(order, unicode.UseBOM).NewDecoder().Bytes(document)
	if err != nil || len(document)%2 != 0 {
		return nil, fmt.Errorf("%w: XML: broken UTF-16", ErrMalformed)
	}
	return text, nil
}

// scope holds the namespaces that an element and those around it declare.
type scope struct {
	node     *Node
	rawName  xml.Name          // as it must end
	declared map[string]string // by prefix; "" is the default
}

type parser struct {
	in    *xml.Decoder
	open  []scope
	root  *Node
	ended bool
}

func (p *parser) document() (*Node, error) {
	for {
		token, err := p.in.RawToken()
		if errors.Is(err, io.EOF) {
			if p.root == nil || len(p.open) > 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return p.root, nil
		}
		if err == nil {
			err = p.take(token)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) take(token xml.Token) error {
	switch token := token.(type) {
	case xml.StartElement:
		return p.start(token)
	case xml.EndElement:
		if len(p.open) == 0 || p.open[len(p.open)-1].rawName != token.Name {
			return fmt.Errorf("</%s> ends nothing", token.Name.Local)
		}
		p.open = p.open[:len(p.open)-1]
	case xml.CharData:
		if len(p.open) > 0 {
			n := p.open[len(p.open)-1].node
			n.Content = append(n.Content, string(token))
		} else if len(bytes.TrimSpace(token)) > 0 {
			return errors.New("text outside of the element")
		}
	}
	return nil // comments, instructions and declarations say nothing here
}

func (p *parser) start(token xml.StartElement) error {
	switch {
	case p.root != nil && len(p.open) == 0:
		return errors.New("a second element at the top")
	case len(p.open) == maxNesting:
		return fmt.Errorf("elements are nested deeper than %d", maxNesting)
	}
	s := scope{node: new(Node), rawName: token.Name, declared: make(map[string]string)}
	for _, a := range token.Attr {
		prefix, declares := declaration(a.Name)
		if !declares {
			continue
		}
		if a.Value == "" && prefix != "" { // Namespaces in XML 1.0, 5
			return fmt.Errorf("prefix %q is declared with no namespace", prefix)
		}
		s.declared[prefix] = a.Value
	}
	p.open = append(p.open, s)
	if err := p.name(s.node, token); err != nil {
		return err
	}
	if len(p.open) == 1 {
		p.root = s.node
	} else {
		parent := p.open[len(p.open)-2].node
		parent.Content = append(parent.Content, s.node)
	}
	return nil
}

// declaration says whether an attribute declares a namespace, and for which prefix.
func declaration(name xml.Name) (prefix string, declares bool) {
	if name.Space == "xmlns" {
		return name.Local, true
	}
	return "", name.Space == "" && name.Local == "xmlns"
}

// name gives an element and its attributes their names.
func (p *parser) name(n *Node, token xml.StartElement) (err error) {
	if n.Name, err = p.resolve(token.Name, true); err != nil {
		return err
	}
	for _, a := range token.Attr {
		if _, declares := declaration(a.Name); declares {
			continue
		}
		name, err := p.resolve(a.Name, false)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(n.Attributes, func(other xml.Attr) bool { return other.Name == name }) {
			return fmt.Errorf("attribute %q comes twice", name.Local)
		}
		n.Attributes = append(n.Attributes, xml.Attr{Name: name, Value: a.Value})
	}
	return nil
}

func (p *parser) resolve(name xml.Name, isElement bool) (xml.Name, error) {
	if strings.Contains(name.Local, ":") || name.Local == "" {
		return name, fmt.Errorf("odd name %q", name.Local)
	}
	if name.Space == "" && !isElement {
		return name, nil
	}
	if name.Space == "xml" {
		return xml.Name{Space: xmlNamespace, Local: name.Local}, nil
	}
	for _, s := range slices.Backward(p.open) {
		if space, there := s.declared[name.Space]; there {
			return xml.Name{Space: space, Local: name.Local}, nil
		}
	}
	if name.Space != "" {
		return name, fmt.Errorf("nobody has declared prefix %q", name.Space)
	}
	return name, nil
}

// Children are the elements directly in this one.
func (n *Node) Children() (list []*Node) {
	for _, c := range n.Content {
		if child, ok := c.(*Node); ok {
			list = append(list, child)
		}
	}
	return list
}

// child is the first of them with a name of WebDAV's, or nil.
func (n *Node) child(local string) *Node {
	for _, c := range n.Children() {
		if c.is(local) {
			return c
		}
	}
	return nil
}

func (n *Node) is(local string) bool { return n.Name == xml.Name{Space: Namespace, Local: local} }

func (n *Node) attribute(name xml.Name) (string, bool) {
	for _, a := range n.Attributes {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// Append appends the element as XML that declares every namespace it uses.
func (n *Node) Append(b *bytes.Buffer) { n.append(b, false) }

// append is Append. Declared says that the prefix D is WebDAV's already.
func (n *Node) append(b *bytes.Buffer, declared bool) {
	name := n.Name.Local
	if n.Name.Space == Namespace {
		name = "D:" + name
	}
	b.WriteString("<" + name)
	switch {
	case n.Name.Space != Namespace:
		b.WriteString(` xmlns="`)
		escape(b, n.Name.Space)
		b.WriteByte('"')
	case !declared:
		b.WriteString(` xmlns:D="DAV:"`)
		declared = true
	}
	for i, a := range n.Attributes {
		appendAttribute(b, i, a)
	}
	if len(n.Content) == 0 {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	for _, c := range n.Content {
		switch c := c.(type) {
		case *Node:
			c.append(b, declared)
		case string:
			escape(b, c)
		}
	}
	b.WriteString("</" + name + ">")
}

func appendAttribute(b *bytes.Buffer, i int, a xml.Attr) {
	switch a.Name.Space {
	case "":
		fmt.Fprintf(b, ` %s="`, a.Name.Local)
	case xmlNamespace:
		fmt.Fprintf(b, ` xml:%s="`, a.Name.Local)
	default:
		fmt.Fprintf(b, ` xmlns:a%d="`, i)
		escape(b, a.Name.Space)
		fmt.Fprintf(b, `" a%d:%s="`, i, a.Name.Local)
	}
	escape(b, a.Value)
	b.WriteByte('"')
}

// escape replaces what is no UTF-8, or no character of XML, with U+FFFD.
func escape(b *bytes.Buffer, text string) { xml.EscapeText(b, []byte(text)) }
