package lookup

import (
	"context"
	"fmt"
)

// Exchange is the client's end of lookups without what lookups say: it sends
// datagrams of the caller's own from such a socket as a Transport asks with. The
// floor control of lookups is made of it, so that what is left between the two is
// the lookup. It is used by one goroutine.
type Exchange struct {
	// Spin is as that of a Transport.
	Spin bool

	address  string
	isAnswer func(datagram []byte) bool
	socket   *socket
}

// DialExchange returns an Exchange with the server at address, "host:port".
// Nothing is sent yet. IsAnswer says whether a datagram that came, of which it
// gets the first wire.MaxAnswerSize+1 bytes, answers the last one sent; it may
// keep none of its bytes.
func DialExchange(address string, isAnswer func(datagram []byte) bool) (*Exchange, error) {
	x := &Exchange{address: address, isAnswer: isAnswer}
	return x, x.dial()
}

func (x *Exchange) dial() (err error) {
	if x.socket, err = dial(x.address); err != nil {
		return err
	}
	x.socket.isAnswer = x.isAnswer
	return nil
}

// Ask sends a datagram until it is answered, for 5 seconds at most. It fails with
// ErrNoAnswer or the context's error.
func (x *Exchange) Ask(ctx context.Context, datagram []byte) error {
	if !x.socket.isGood() {
		_ = x.socket.close() // nothing is lost with it
		if err := x.dial(); err != nil {
			return err
		}
	}
	x.socket.out, x.socket.spins = datagram, x.Spin
	if err := x.socket.exchange(ctx); err != nil {
		return fmt.Errorf("ask %s: %w", x.address, err)
	}
	return nil
}

// Close closes the socket.
func (x *Exchange) Close() error { return x.socket.close() }
