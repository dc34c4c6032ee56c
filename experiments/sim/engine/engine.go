// Package engine is the simulator's clock: a discrete-event engine that hands
// events to state machines in the order of simulated time.
//
// There is no goroutine a process. A [Machine] is told of its events, changes its
// state and schedules what comes next; events are values in one heap, so that a
// running simulation allocates nothing. Time is whole nanoseconds and ties are
// broken by the order of scheduling, so that a seed gives the same run to the
// last bit. An [Engine] is for one goroutine: cells of an experiment run on
// engines of their own.
//
// Nothing is ever cancelled. A state machine that changes its mind puts a version
// into Event.Tag and ignores events of an older one.
package engine

import "math"

// Never is a time that no simulation reaches.
const Never = math.MaxInt64

// ID names a state machine of an engine.
type ID int32

// Event is what a state machine is told of. The engine reads At, its own
// sequence number and To; Kind, Job and Tag are the state machine's.
type Event struct {
	At       int64 // simulated nanoseconds
	sequence uint64
	To       ID
	Kind     int32
	Job      int32
	Tag      int32
}

// before orders events by time, and by sequence among equal times.
func (e *Event) before(f *Event) bool {
	if e.At != f.At {
		return e.At < f.At
	}
	return e.sequence < f.sequence
}

// Machine is a state machine. Handle may schedule events on the engine.
type Machine interface {
	Handle(e *Engine, event Event)
}

// Engine holds the clock, the state machines and what is to come.
type Engine struct {
	now      int64
	events   queue
	machines []Machine
	sequence uint64
	handled  uint64
	stopped  bool
}

// New returns an engine at time 0 with room for so many waiting events; more of
// them make it grow.
func New(room int) *Engine {
	return &Engine{events: queue{heap: make([]Event, 0, room)}}
}

// Add makes a state machine known, and returns the name under which events reach it.
func (e *Engine) Add(m Machine) ID {
	e.machines = append(e.machines, m)
	return ID(len(e.machines) - 1)
}

// Now is the simulated time in nanoseconds.
func (e *Engine) Now() int64 { return e.now }

// Handled counts the events that state machines were told of.
func (e *Engine) Handled() uint64 { return e.handled }

// Waiting counts the events that are to come.
func (e *Engine) Waiting() int { return e.events.len() }

// Stop ends Run behind the event that is being handled.
func (e *Engine) Stop() { e.stopped = true }

// Schedule lets a state machine know of an event after so many nanoseconds. A
// negative delay is taken for none: time never runs backwards.
func (e *Engine) Schedule(delay int64, to ID, kind, job, tag int32) {
	if delay < 0 {
		delay = 0
	}
	at := e.now + delay
	if at < e.now {
		at = Never // the sum has overflowed
	}
	e.sequence++
	e.events.push(Event{At: at, sequence: e.sequence, To: to, Kind: kind, Job: job, Tag: tag})
}

// Run hands out events until none is left, Stop is called, or the next one is
// later than until, which is the time then. It may be called again.
func (e *Engine) Run(until int64) {
	e.stopped = false
	for !e.stopped {
		next, ok := e.events.first()
		if !ok {
			return
		}
		if next.At > until {
			e.now = until
			return
		}
		event := *next
		e.events.take()
		e.now = event.At
		e.handled++
		e.machines[event.To].Handle(e, event)
	}
}
