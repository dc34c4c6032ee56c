package dav

import (
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
)

// ErrUnsupported: a body asks for something that RFC 4918 leaves open.
var ErrUnsupported = errors.New("not supported")

// LockInfo is the body of a LOCK.
type LockInfo struct {
	Shared bool
	Owner  *Node // may be nil
}

// ParseLockInfo reads the body of a LOCK. The result is nil if it is empty, which
// asks for a lock's time to begin again.
func ParseLockInfo(body []byte) (*LockInfo, error) {
	root, err := Parse(body)
	if err != nil || root == nil {
		return nil, err
	}
	kind, scope := root.child("locktype"), root.child("lockscope")
	if !root.is("lockinfo") || kind == nil || scope == nil {
		return nil, fmt.Errorf("%w: a LOCK has a lockinfo with a lockscope and a locktype", ErrMalformed)
	}
	shared, exclusive := scope.child("shared") != nil, scope.child("exclusive") != nil
	if kind.child("write") == nil || shared == exclusive {
		return nil, fmt.Errorf("%w: locks are write locks, exclusive or shared", ErrUnsupported)
	}
	return &LockInfo{shared, root.child("owner")}, nil
}

// Propfind is the body of a PROPFIND.
type Propfind struct {
	Names     []xml.Name // that are asked for, also beside All
	All       bool       // all of them are
	NamesOnly bool       // not the values
}

// maxProperties bounds how many properties one request names.
const maxProperties = 1000

// ParsePropfind reads the body of a PROPFIND. An empty one asks for everything.
func ParsePropfind(body []byte) (*Propfind, error) {
	root, err := Parse(body)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return &Propfind{All: true}, nil
	}
	all, names, some := root.child("allprop"), root.child("propname"), root.child("prop")
	asked := 0
	for _, n := range []*Node{all, names, some} {
		if n != nil {
			asked++
		}
	}
	if !root.is("propfind") || asked != 1 {
		return nil, fmt.Errorf("%w: a PROPFIND has one of allprop, propname and prop", ErrMalformed)
	}
	q := &Propfind{All: all != nil, NamesOnly: names != nil}
	if more := root.child("include"); all != nil && more != nil {
		some = more
	}
	if some == nil {
		return q, nil
	}
	for _, n := range some.Children() {
		if !slices.Contains(q.Names, n.Name) {
			q.Names = append(q.Names, n.Name)
		}
		if len(q.Names) > maxProperties {
			return nil, fmt.Errorf("%w: more than %d properties", ErrMalformed, maxProperties)
		}
	}
	return q, nil
}

// Change is one instruction of a PROPPATCH: a property to set, or to remove.
type Change struct {
	Property *Node
	Remove   bool
}

// ParsePropertyUpdate reads the body of a PROPPATCH.
func ParsePropertyUpdate(body []byte) (changes []Change, err error) {
	root, err := Parse(body)
	if err != nil {
		return nil, err
	}
	if root == nil || !root.is("propertyupdate") {
		return nil, fmt.Errorf("%w: a PROPPATCH has a propertyupdate", ErrMalformed)
	}
	for _, instruction := range root.Children() {
		remove := instruction.is("remove")
		if !remove && !instruction.is("set") {
			continue
		}
		prop := instruction.child("prop")
		if prop == nil {
			return nil, fmt.Errorf("%w: set and remove have a prop", ErrMalformed)
		}
		for _, property := range prop.Children() {
			property.inherit(prop, instruction, root)
			changes = append(changes, Change{property, remove})
		}
	}
	if len(changes) == 0 || len(changes) > maxProperties {
		return nil, fmt.Errorf("%w: a PROPPATCH changes 1 to %d properties", ErrMalformed, maxProperties)
	}
	return changes, nil
}

// inherit gives a property the language of the elements around it.
func (n *Node) inherit(around ...*Node) {
	if _, has := n.attribute(language); has {
		return
	}
	for _, outer := range around {
		if value, has := outer.attribute(language); has {
			n.Attributes = append(n.Attributes, xml.Attr{Name: language, Value: value})
			return
		}
	}
}
