package floor

import (
	"context"
	"fmt"
	"io"
	"net"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

// Conn is one connection to the floor control. It is used by one goroutine.
type Conn struct {
	conn net.Conn
	out  []byte
}

// Dial connects to a server's TCP address.
func Dial(ctx context.Context, address string) (*Conn, error) {
	conn, err := tcp.DialData(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to the floor control: %w", err)
	}
	return &Conn{conn: conn}, nil
}

// Close closes the connection; a call under way on it fails.
func (c *Conn) Close() error { return c.conn.Close() }

// Read reads len(b) bytes at offset of a file.
func (c *Conn) Read(file uint32, b []byte, offset int64) error {
	err := c.send(header{read, file, uint32(len(b)), uint64(offset)})
	if err == nil {
		_, err = io.ReadFull(c.conn, b)
	}
	if err != nil {
		return fmt.Errorf("floor: read %d bytes at %d: %w", len(b), offset, err)
	}
	return nil
}

// Write writes b at offset of a file, and waits for the acknowledgement.
func (c *Conn) Write(file uint32, b []byte, offset int64) error {
	err := c.send(header{write, file, uint32(len(b)), uint64(offset)})
	if err == nil {
		_, err = c.conn.Write(b)
	}
	if err == nil {
		err = c.receiveAcknowledgement()
	}
	if err != nil {
		return fmt.Errorf("floor: write %d bytes at %d: %w", len(b), offset, err)
	}
	return nil
}

// Sync makes a file durable.
func (c *Conn) Sync(file uint32) error { return c.call(sync, file) }

// Remove removes a file.
func (c *Conn) Remove(file uint32) error { return c.call(remove, file) }

func (c *Conn) call(o operation, file uint32) error {
	err := c.send(header{operation: o, file: file})
	if err == nil {
		err = c.receiveAcknowledgement()
	}
	if err != nil {
		return fmt.Errorf("floor: operation %d on file %d: %w", o, file, err)
	}
	return nil
}

func (c *Conn) send(h header) error {
	c.out = h.append(c.out[:0])
	_, err := c.conn.Write(c.out)
	return err
}

func (c *Conn) receiveAcknowledgement() error {
	var answer [1]byte
	if _, err := io.ReadFull(c.conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != acknowledge {
		return fmt.Errorf("answered with %#x instead of an acknowledgement", answer[0])
	}
	return nil
}

// Echo is one socket to the UDP echo or to a reflector, of the kind that lookups of
// the DFS are asked with. It is used by one goroutine.
type Echo struct {
	exchange *lookup.Exchange
	id       uint64
	out, in  []byte
}

// DialEcho opens a socket to a UDP address. Requests have request bytes, answers
// answer bytes: the front of the request. Spin says whether to poll for them without
// sleeping.
func DialEcho(address string, request, answer int, spin bool) (*Echo, error) {
	if answer > request || answer < echoHeader || answer > wire.MaxAnswerSize {
		return nil, fmt.Errorf("echo %d of %d bytes: from %d to all are possible, and %d at most", answer, request, echoHeader, wire.MaxAnswerSize)
	}
	e := &Echo{out: make([]byte, request), in: make([]byte, 0, answer)}
	le.PutUint32(e.out[8:], uint32(answer))
	var err error
	if e.exchange, err = lookup.DialExchange(address, e.isAnswer); err != nil {
		return nil, fmt.Errorf("connect to the floor control: %w", err)
	}
	e.exchange.Spin = spin
	return e, nil
}

// Close closes the socket.
func (e *Echo) Close() error { return e.exchange.Close() }

// Do sends payload, as much of it as the request holds behind its header, until it
// is answered, and returns what came back of it. The result is good until the next
// call.
func (e *Echo) Do(ctx context.Context, payload []byte) ([]byte, error) {
	copy(e.out[echoHeader:], payload)
	e.id++
	le.PutUint64(e.out, e.id)
	if err := e.exchange.Ask(ctx, e.out); err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	return e.in[echoHeader:], nil
}

func (e *Echo) isAnswer(datagram []byte) bool {
	if len(datagram) != cap(e.in) || le.Uint64(datagram) != e.id {
		return false
	}
	e.in = append(e.in[:0], datagram...)
	return true
}
