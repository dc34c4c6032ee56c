package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"waggle/dfs/tcp"
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

// Echo is one socket to the UDP echo. It is used by one goroutine.
type Echo struct {
	conn     net.Conn
	id       uint64
	out, in  []byte
	deadline time.Time
}

// DialEcho opens a socket to a server's UDP address. Requests have request
// bytes, answers answer bytes: the front of the request.
func DialEcho(address string, request, answer int) (*Echo, error) {
	if answer > request || answer < echoHeader {
		return nil, fmt.Errorf("echo %d of %d bytes: from %d to all are possible", answer, request, echoHeader)
	}
	conn, err := net.Dial("udp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to the floor control: %w", err)
	}
	e := &Echo{conn: conn, out: make([]byte, request), in: make([]byte, answer+1)}
	le.PutUint32(e.out[8:], uint32(answer))
	return e, nil
}

// Close closes the socket.
func (e *Echo) Close() error { return e.conn.Close() }

// A request is sent again when no answer came for echoWait to 2*echoWait. The
// deadline is moved only now and then, because moving it costs something.
const (
	echoWait  = 200 * time.Millisecond
	echoTries = 10
)

// Do sends payload, as much of it as the request holds behind its header, and
// returns what came back of it. The result is good until the next call.
func (e *Echo) Do(payload []byte) ([]byte, error) {
	copy(e.out[echoHeader:], payload)
	e.id++
	le.PutUint64(e.out, e.id)
	for range echoTries {
		answer, err := e.try()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return answer, err
		}
	}
	return nil, fmt.Errorf("floor: no answer to %d datagrams", echoTries)
}

func (e *Echo) try() ([]byte, error) {
	if now := time.Now(); e.deadline.Sub(now) < echoWait {
		e.deadline = now.Add(2 * echoWait)
		if err := e.conn.SetReadDeadline(e.deadline); err != nil {
			return nil, fmt.Errorf("floor: %w", err)
		}
	}
	if _, err := e.conn.Write(e.out); err != nil {
		return nil, fmt.Errorf("floor: send a datagram: %w", err)
	}
	for {
		n, err := e.conn.Read(e.in)
		if err != nil {
			return nil, fmt.Errorf("floor: receive a datagram: %w", err)
		}
		if n == len(e.in)-1 && le.Uint64(e.in) == e.id {
			return e.in[echoHeader:n], nil
		}
	}
}
