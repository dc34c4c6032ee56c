package station

// line is a queue of jobs with what they need, in the order they came. It grows
// and never shrinks, so that a running simulation allocates nothing.
type line struct {
	ring  []waiter
	head  int
	count int
}

type waiter struct {
	job    int32
	amount int64
	step   *Step
	order  int64 // of coming, where queues are compared
}

func (l *line) push(w waiter) {
	if l.count == len(l.ring) {
		l.grow()
	}
	l.ring[(l.head+l.count)%len(l.ring)] = w
	l.count++
}

func (l *line) pushFront(w waiter) {
	if l.count == len(l.ring) {
		l.grow()
	}
	l.head = (l.head + len(l.ring) - 1) % len(l.ring)
	l.ring[l.head] = w
	l.count++
}

func (l *line) first() *waiter { return &l.ring[l.head] }

func (l *line) pop() waiter {
	w := l.ring[l.head]
	l.head = (l.head + 1) % len(l.ring)
	l.count--
	return w
}

func (l *line) grow() {
	ring := make([]waiter, max(4, 2*len(l.ring)))
	for i := range l.count {
		ring[i] = l.ring[(l.head+i)%len(l.ring)]
	}
	l.ring, l.head = ring, 0
}
