package station

import (
	"fmt"
	"math"

	"waggle/experiments/sim/engine"
)

// Wire describes a network card's sending side, or a switch's port.
type Wire struct {
	BytesPerSecond float64
	// LatencyNS passes between a packet's last byte and its arrival at the other end.
	LatencyNS int64
	// PacketBytes is the largest payload of a packet, PacketOverhead what each
	// adds on the wire. 0 of PacketBytes means no packets.
	PacketBytes, PacketOverhead int64
	// QueueBytes is the room for what waits; 0 is room for everything. What finds
	// none is lost, and sent again after RetransmitNS, and then after twice as long.
	QueueBytes   int64
	RetransmitNS int64
}

// Link sends what it is given one after the other.
type Link struct {
	basis
	wire   Wire
	freeAt int64
	queued int64
	tries  map[int32]int64 // of jobs that were lost, what they will wait next
	sizes  map[int32]int64 // of jobs that wait to be sent again
}

const (
	linkSent = iota + 1
	linkAgain
)

// NewLink returns a link.
func NewLink(w Wire) (*Link, error) {
	switch {
	case !(w.BytesPerSecond > 0) || math.IsInf(w.BytesPerSecond, 0):
		return nil, fmt.Errorf("a link of %v B/s: must be a number above 0", w.BytesPerSecond)
	case w.LatencyNS < 0 || w.PacketBytes < 0 || w.PacketOverhead < 0 || w.QueueBytes < 0:
		return nil, fmt.Errorf("a link with a negative latency, packet or queue: %+v", w)
	case w.QueueBytes > 0 && w.RetransmitNS <= 0:
		return nil, fmt.Errorf("a link with a queue of %d bytes needs a time after which what was lost is sent again", w.QueueBytes)
	}
	l := &Link{wire: w}
	if w.QueueBytes > 0 {
		l.tries, l.sizes = map[int32]int64{}, map[int32]int64{}
	}
	return l, nil
}

// onWire is what a payload takes on the wire, with its packets' headers.
func (w *Wire) onWire(payload int64) int64 {
	if w.PacketBytes == 0 {
		return payload
	}
	packets := max(1, (payload+w.PacketBytes-1)/w.PacketBytes)
	return payload + packets*w.PacketOverhead
}

func (l *Link) arrive(job int32, payload int64, _ *Step) {
	bytes := l.wire.onWire(payload)
	if l.wire.QueueBytes > 0 {
		if l.queued > 0 && l.queued+bytes > l.wire.QueueBytes {
			l.lose(job, payload)
			return
		}
		delete(l.tries, job)
		l.queued += bytes
	}
	now := l.n.Engine.Now()
	takes := int64(math.Ceil(float64(bytes) / l.wire.BytesPerSecond * 1e9))
	l.freeAt = max(now, l.freeAt) + takes
	l.Busy += takes
	if l.wire.QueueBytes > 0 {
		l.n.Engine.Schedule(l.freeAt-now, l.id, linkSent, job, int32(bytes))
	}
	l.n.Engine.Schedule(l.freeAt-now+l.wire.LatencyNS, l.id, 0, job, 0)
}

func (l *Link) lose(job int32, payload int64) {
	l.Dropped++
	wait := max(l.tries[job], l.wire.RetransmitNS)
	l.tries[job] = min(2*wait, 64*l.wire.RetransmitNS)
	l.sizes[job] = payload
	l.n.Engine.Schedule(wait, l.id, linkAgain, job, 0)
}

// Handle ends a job's time on the wire, frees its room in the queue, or sends it again.
func (l *Link) Handle(_ *engine.Engine, event engine.Event) {
	switch event.Kind {
	case linkSent:
		l.queued -= int64(event.Tag)
	case linkAgain:
		payload := l.sizes[event.Job]
		delete(l.sizes, event.Job)
		l.arrive(event.Job, payload, nil)
	default:
		l.n.leave(event.Job, 0)
	}
}
