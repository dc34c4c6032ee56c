package faults

import (
	"fmt"
	"math"
	"net/netip"
)

// Rule says what happens to packets between two addresses. Probabilities are
// from 0 to 1.
type Rule struct {
	// From and To are the addresses of the packets in the one direction that the
	// rule is for. The zero address stands for any. Of several rules that fit, the
	// one with both addresses comes first, then that with From.
	From, To netip.Addr
	// Seed decides, with the number of packets before, what happens to a packet.
	Seed uint64

	Cut       bool    // all packets are dropped
	Drop      float64 // packets that are dropped
	Duplicate float64 // packets that come twice
	Hold      float64 // packets that take the detour, so that later ones overtake them
	// Corrupt is the probability that one byte of a TCP or UDP payload is changed.
	Corrupt float64
	// FixChecksum makes the transport's checksum right again, so that only a check
	// from end to end can find the change. A packet whose checksum is still to be
	// computed, by the link of its sender, gets a right one either way: without
	// FixChecksum, corrupt at Ingress, behind a link that computes them
	// (`ethtool -K eth0 tx off` at the sender).
	FixChecksum bool
}

// Decision is what a rule does to one packet. A cut or dropped packet is nothing
// else. The others are done in this order.
type Decision struct {
	Cut, Drop, Corrupt, Duplicate, Hold bool
	// Place and Flip say which byte of a payload of so many is corrupted, and how:
	// byte Place % length is combined with Flip by exclusive or.
	Place uint32
	Flip  byte
}

// What is drawn for a packet, as in faults.bpf.c.
const (
	drawDrop = iota
	drawCorrupt
	drawDuplicate
	drawHold
	drawPlace
)

const golden = 0x9e3779b97f4a7c15

// Decide returns what happens to the packet that so many others of the rule came
// before. The program in the kernel decides the same.
func (r Rule) Decide(packet uint64) Decision {
	place := draw(r.Seed, packet, drawPlace)
	d := Decision{Cut: r.Cut, Place: uint32(place), Flip: byte(1 + (place>>32)%255)}
	if d.Cut {
		return d
	}
	if d.Drop = fallsBelow(draw(r.Seed, packet, drawDrop), r.Drop); d.Drop {
		return d
	}
	d.Corrupt = fallsBelow(draw(r.Seed, packet, drawCorrupt), r.Corrupt)
	d.Duplicate = fallsBelow(draw(r.Seed, packet, drawDuplicate), r.Duplicate)
	d.Hold = fallsBelow(draw(r.Seed, packet, drawHold), r.Hold)
	return d
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func draw(seed, packet, what uint64) uint64 {
	return mix(mix(seed+golden*(packet+1)) + golden*(what+1))
}

func fallsBelow(drawn uint64, probability float64) bool {
	return drawn>>32 < threshold(probability)
}

// threshold is how many of 2^32 packets a probability makes.
func threshold(probability float64) uint64 { return uint64(math.Round(probability * (1 << 32))) }

func (r Rule) check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"drop", r.Drop}, {"duplicate", r.Duplicate}, {"hold", r.Hold}, {"corrupt", r.Corrupt}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("the probability to %s a packet is %v: give one from 0 to 1", p.name, p.value)
		}
	}
	if r.From.IsValid() && r.To.IsValid() && r.From.Unmap().Is4() != r.To.Unmap().Is4() {
		return fmt.Errorf("no packet goes from %s to %s: give two addresses of one family", r.From, r.To)
	}
	return nil
}
