package engine

// queue is a heap of events, four children to a node: half as deep as a binary
// one, and the four that are compared lie in two cache lines.
//
// Taking the first event leaves a hole at the root. What is scheduled while that
// event is handled falls into the hole and sinks: one pass for the pair of
// operations that nearly every event needs, instead of two.
type queue struct {
	heap []Event
	hole bool // heap[0] has been taken
}

const arity = 4

func (q *queue) len() int {
	if q.hole {
		return len(q.heap) - 1
	}
	return len(q.heap)
}

// first shows the earliest event.
func (q *queue) first() (*Event, bool) {
	if q.hole {
		q.close()
	}
	if len(q.heap) == 0 {
		return nil, false
	}
	return &q.heap[0], true
}

// take removes the event that first has shown.
func (q *queue) take() { q.hole = true }

func (q *queue) push(e Event) {
	if q.hole {
		q.hole = false
		q.sink(e)
		return
	}
	q.heap = append(q.heap, e)
	q.rise(len(q.heap)-1, e)
}

// close fills the hole with the last event.
func (q *queue) close() {
	q.hole = false
	last := len(q.heap) - 1
	e := q.heap[last]
	q.heap = q.heap[:last]
	if last > 0 {
		q.sink(e)
	}
}

// rise puts e where it belongs on the way from position i to the root.
func (q *queue) rise(i int, e Event) {
	h := q.heap
	for i > 0 {
		parent := (i - 1) / arity
		if !e.before(&h[parent]) {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = e
}

// sink puts e where it belongs on the way from the root to the leaves.
func (q *queue) sink(e Event) {
	h := q.heap
	i := 0
	for {
		child := i*arity + 1
		if child >= len(h) {
			break
		}
		least := child
		for c := child + 1; c < min(child+arity, len(h)); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&e) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
}
