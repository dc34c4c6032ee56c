package station

import "waggle/experiments/sim/engine"

// Arrivals start jobs from outside, whether or not others have ended: an open
// loop. The gaps between them are exponential.
type Arrivals struct {
	n       *Network
	id      engine.ID
	perNano float64
	start   func()
}

// Arrive lets start be called so many times a second from now on, until the
// simulation ends.
func (n *Network) Arrive(perSecond float64, start func()) {
	a := &Arrivals{n: n, perNano: perSecond / 1e9, start: start}
	a.id = n.Engine.Add(a)
	a.next()
}

func (a *Arrivals) next() {
	a.n.Engine.Schedule(int64(a.n.Random.ExpFloat64()/a.perNano+0.5), a.id, 0, 0, 0)
}

// Handle starts a job.
func (a *Arrivals) Handle(_ *engine.Engine, _ engine.Event) {
	a.next()
	a.start()
}
