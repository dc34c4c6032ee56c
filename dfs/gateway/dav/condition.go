package dav

import (
	"errors"
	"strings"
)

// ErrMalformed: a header or a body is not what RFC 4918 says.
var ErrMalformed = errors.New("malformed")

// If is the header If: it holds if one of its lists holds.
type If []List

// List holds if all its conditions do.
type List struct {
	Resource   string // URL of what they are about; "" is what is asked for
	Conditions []Condition
}

// Condition is about a resource's state. One of Token and Tag is set.
type Condition struct {
	Not   bool
	Token string // a lock token, or another URI that nothing has
	Tag   string // an entity tag, with its quotes
}

// State is what a resource has to compare conditions with.
type State struct {
	Tag    string   // entity tag; "" if there is no such resource
	Tokens []string // of the locks that hold for it
}

// ParseIf reads the values of the header If. The result is nil if there are none.
func ParseIf(values []string) (If, error) {
	if len(values) == 0 {
		return nil, nil
	}
	p := ifParser{rest: strings.Join(values, " ")}
	var all If
	var resource string
	tagged := false
	for p.skipSpace(); p.rest != ""; p.skipSpace() {
		if p.rest[0] == '<' {
			if len(all) > 0 && !tagged {
				return nil, p.fail("lists with a resource and without one can't be mixed")
			}
			var err error
			if resource, err = p.uri(); err != nil {
				return nil, err
			}
			tagged = true
			p.skipSpace()
		}
		conditions, err := p.list()
		if err != nil {
			return nil, err
		}
		all = append(all, List{resource, conditions})
	}
	if len(all) == 0 {
		return nil, p.fail("it is empty")
	}
	return all, nil
}

// Holds evaluates the header. State is asked once for each resource.
func (i If) Holds(state func(resource string) State) bool {
	known := make(map[string]State)
	for _, list := range i {
		s, asked := known[list.Resource]
		if !asked {
			s = state(list.Resource)
			known[list.Resource] = s
		}
		if list.hold(s) {
			return true
		}
	}
	return false
}

func (l *List) hold(s State) bool {
	for _, c := range l.Conditions {
		if c.holds(s) == c.Not {
			return false
		}
	}
	return true
}

func (c *Condition) holds(s State) bool {
	if c.Tag != "" {
		return c.Tag == s.Tag
	}
	for _, token := range s.Tokens {
		if token == c.Token {
			return true
		}
	}
	return false
}

// Tokens are the lock tokens that a client shows that it has: all that are named,
// wherever and however (RFC 4918, 10.4.1).
func (i If) Tokens() (tokens []string) {
	for _, list := range i {
		for _, c := range list.Conditions {
			if c.Token != "" {
				tokens = append(tokens, c.Token)
			}
		}
	}
	return tokens
}

// Resources are the URLs that are named.
func (i If) Resources() (resources []string) {
	for _, list := range i {
		if list.Resource != "" {
			resources = append(resources, list.Resource)
		}
	}
	return resources
}

type ifParser struct{ rest string }

func (p *ifParser) fail(why string) error {
	return errors.Join(ErrMalformed, errors.New("header If: "+why))
}

func (p *ifParser) skipSpace() { p.rest = strings.TrimLeft(p.rest, " \t") }

// uri reads a URI in angle brackets.
func (p *ifParser) uri() (string, error) {
	end := strings.IndexByte(p.rest, '>')
	if end < 2 || strings.ContainsAny(p.rest[1:end], "< \t\"") {
		return "", p.fail("a URI stands between < and >, without spaces")
	}
	uri := p.rest[1:end]
	p.rest = p.rest[end+1:]
	return uri, nil
}

// list reads conditions in parentheses.
func (p *ifParser) list() (conditions []Condition, err error) {
	if !p.take("(") {
		return nil, p.fail("a list begins with (")
	}
	for p.skipSpace(); !p.take(")"); p.skipSpace() {
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		conditions = append(conditions, c)
	}
	if len(conditions) == 0 {
		return nil, p.fail("a list is empty")
	}
	return conditions, nil
}

func (p *ifParser) take(what string) (there bool) {
	p.rest, there = strings.CutPrefix(p.rest, what)
	return there
}

func (p *ifParser) condition() (c Condition, err error) {
	if len(p.rest) >= 3 && strings.EqualFold(p.rest[:3], "Not") {
		c.Not = true
		p.rest = p.rest[3:]
		p.skipSpace()
	}
	switch {
	case strings.HasPrefix(p.rest, "<"):
		c.Token, err = p.uri()
	case p.take("["):
		c.Tag, err = p.tag()
	default:
		err = p.fail("a list holds lock tokens in <>, entity tags in [], and ends with )")
	}
	return c, err
}

// tag reads an entity tag and the bracket behind it.
func (p *ifParser) tag() (string, error) {
	p.skipSpace()
	tag, rest, ok := CutEntityTag(p.rest)
	p.rest = rest
	p.skipSpace()
	if !ok || !p.take("]") {
		return "", p.fail("an entity tag stands in quotes between [ and ]")
	}
	return tag, nil
}

// CutEntityTag takes an entity tag off the front of s (RFC 9110, 8.8.3).
func CutEntityTag(s string) (tag, rest string, ok bool) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if len(s) <= start || s[start] != '"' {
		return "", s, false
	}
	for at := start + 1; at < len(s); at++ {
		switch c := s[at]; {
		case c == '"':
			return s[:at+1], s[at+1:], true
		case c < 0x21, c == 0x7f:
			return "", s, false
		}
	}
	return "", s, false
}
