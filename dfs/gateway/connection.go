package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/relay"
	"waggle/dfs/tcp"
)

// connection is a client's connection. Its reads begin with what was read too
// far, so that it can change hands with no byte lost.
type connection struct {
	*net.TCPConn
	gateway *Gateway
	ahead   []byte // to be read before the socket
	closing sync.Once
	closed  error
	idle    atomic.Bool                        // waits for a request in the loop
	waits   atomic.Bool                        // the gateway waits for something that the client should send
	body    atomic.Pointer[context.CancelFunc] // ends the body on its way, if there is one
	pace    pace                               // g.mu guards it

	target relay.Target // from the first relayed body on
}

// Read implements net.Conn.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.closing.Do(func() {
		var left error
		if c.target != nil {
			left = c.target.Close()
		}
		c.closed = errors.Join(left, c.TCPConn.Close())
		c.gateway.forget(c)
	})
	return c.closed
}

const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

// accept gives each connection to the loop first. Serve waits for accept, and
// then for each connection that was remembered, until that is closed: whoever
// answers on it may start a loop meanwhile.
func (g *Gateway) accept() error {
	for {
		conn, err := tcp.Accept(g.listener)
		switch {
		case g.ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			g.warn("connection refused", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil:
			return err
		}
		c := &connection{TCPConn: conn, gateway: g, pace: pace{quiet: time.Now()}}
		if !g.remember(c) {
			g.counts.refused.Add(1)
			conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // a new socket has room
			conn.Write([]byte(refusal))
			conn.Close()
			continue
		}
		g.startLoop(c, nil)
	}
}

func (g *Gateway) remember(c *connection) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.connections) >= g.config.MaxConnections && !g.makeRoom() {
		return false
	}
	g.connections[c] = true
	g.loops.Add(1)
	return true
}

func (g *Gateway) forget(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.connections, c)
	g.loops.Done()
}

// endIdle has the loops end that wait for a request. They close their connections,
// to which the kernel may still be moving a body.
func (g *Gateway) endIdle() {
	g.eachConnection(func(c *connection) {
		if c.idle.Load() {
			c.SetReadDeadline(time.Unix(1, 0))
		}
	})
}

// closeAll closes the sockets; whoever uses a connection closes the rest.
func (g *Gateway) closeAll() { g.eachConnection(func(c *connection) { c.TCPConn.Close() }) }

func (g *Gateway) eachConnection(do func(*connection)) {
	g.mu.Lock()
	list := slices.Collect(maps.Keys(g.connections))
	g.mu.Unlock()
	for _, c := range list {
		do(c)
	}
}

// startLoop has the loop serve a connection, once first has answered a request,
// if that is not nil.
func (g *Gateway) startLoop(c *connection, first func(*connection) outcome) {
	g.loops.Go(func() {
		if !g.loop(c, first) || !g.handed.give(c) {
			c.Close()
		}
	})
}

// settle waits until TCP has what was moved to a connection, which is to be
// closed or written to by another owner.
func (g *Gateway) settle(c *connection) error {
	if c.target == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(g.bodies, g.config.bodyTime(relay.MaxBody))
	defer cancel()
	return c.target.Settle(ctx)
}

// loop answers plain GETs of files. It returns true when something else was
// asked, of which no byte is lost.
func (g *Gateway) loop(c *connection, first func(*connection) outcome) (handOver bool) {
	in := bufio.NewReaderSize(c, maxPlainHeader)
	outcome := answered
	defer func() {
		if outcome != connectionFailed && g.settle(c) != nil {
			handOver = false
		}
		if handOver {
			rest, _ := in.Peek(in.Buffered()) // what is buffered
			c.ahead = append(append([]byte(nil), rest...), c.ahead...)
			c.SetDeadline(time.Time{})
			c.waits.Store(true)
		}
	}()
	if first != nil {
		outcome = first(c)
	}
	for outcome == answered && g.ctx.Err() == nil {
		request, size, err := g.nextPlain(c, in)
		if err != nil {
			return false
		}
		if request == nil {
			return true
		}
		if outcome = g.answerPlain(c, request); outcome == notPlain {
			return true
		}
		in.Discard(size)
	}
	return false
}

// nextPlain waits for the next request and looks at it. The request is nil if
// it is none for the loop.
func (g *Gateway) nextPlain(c *connection, in *bufio.Reader) (*http.Request, int, error) {
	c.idle.Store(true)
	c.waits.Store(true)
	defer func() {
		c.idle.Store(false)
		c.waits.Store(false)
	}()
	c.SetReadDeadline(time.Now().Add(g.config.IdleTimeout))
	if g.ctx.Err() != nil { // endIdle comes after that, and so after this deadline
		return nil, 0, g.ctx.Err()
	}
	if _, err := in.Peek(1); err != nil {
		return nil, 0, err
	}
	c.SetReadDeadline(time.Now().Add(g.config.HeaderTimeout))
	for seen := 0; ; seen = in.Buffered() {
		// More than is buffered asks the connection for some.
		if _, err := in.Peek(min(seen+1, maxPlainHeader)); err != nil {
			return nil, 0, err
		}
		head, _ := in.Peek(in.Buffered())
		request, size, verdict := parsePlain(head)
		switch {
		case verdict == plainRequest:
			return request, size, nil
		case verdict == otherRequest, in.Buffered() == maxPlainHeader:
			return nil, 0, nil
		}
	}
}

// outcomes of answering a request in the loop.
type outcome int

const (
	answered         outcome = iota
	answeredLast             // the connection is to be closed once all is sent
	connectionFailed         // it is of no more use
	notPlain                 // nothing was written
)

// handedOver is the listener from which net/http gets connections.
type handedOver struct {
	address net.Addr
	next    chan *connection
	done    chan struct{}
	end     sync.Once
}

func newHandedOver(address net.Addr) *handedOver {
	return &handedOver{address: address, next: make(chan *connection), done: make(chan struct{})}
}

// give hands a connection over. It returns false if nobody takes it any more.
func (h *handedOver) give(c *connection) bool {
	select {
	case h.next <- c:
		return true
	case <-h.done:
		return false
	}
}

// Accept implements net.Listener.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.next:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handedOver) Close() error {
	h.end.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handedOver) Addr() net.Addr { return h.address }

// errTaken is no error: the loop has the connection, and answers.
var errTaken = errors.New("the connection was taken back from net/http")

// takeBack hijacks a connection from net/http for the loop, which begins with
// answering the request that net/http has parsed.
func (g *Gateway) takeBack(w http.ResponseWriter, answer func(*connection) outcome) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	c := conn.(*connection)
	c.SetDeadline(time.Time{})
	rest := make([]byte, buffered.Reader.Buffered())
	if _, err := io.ReadFull(buffered.Reader, rest); err != nil {
		return errors.Join(err, c.Close())
	}
	c.ahead = append(rest, c.ahead...)
	g.startLoop(c, answer)
	return nil
}

// lingerTime is how long a client that is still sending may take to see that it
// was answered.
const lingerTime = 500 * time.Millisecond

// linger ends the sending side before the connection is closed: closed at once,
// with bytes unread, it would be reset, and the answer could be lost.
func (c *connection) linger() {
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, c.TCPConn)
}
