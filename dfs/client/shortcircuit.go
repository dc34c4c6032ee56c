package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/weaken"
	"waggle/dfs/wire"
)

// changedTries is how often in a row a read borrows a replica anew that was taken
// back meanwhile, before it counts as torn.
const changedTries = 3

// readBorrowed reads a span from a replica that the server lent. It returns how
// many bytes are there and verified.
func (c *Client) readBorrowed(ctx context.Context, address netip.AddrPort, location *wire.Location, s span) (int, error) {
	got, changed := 0, 0
	for got < len(s.p) {
		lender, err := c.servers.borrower(ctx, address)
		if err != nil {
			return got, err
		}
		b, err := lender.Borrow(ctx, location.Chunk, location.Epoch)
		if err != nil {
			return got, refusal(err)
		}
		n := int(min(readPiece-(s.offset+uint64(got))%readPiece, uint64(len(s.p)-got)))
		err = c.readPiece(b, location, s.p[got:got+n], s.offset+uint64(got))
		if errors.Is(err, shortcircuit.ErrTakenBack) {
			if changed++; changed < changedTries {
				continue
			}
			err = errTorn{s.offset + uint64(got)}
		}
		if err != nil {
			return got, err
		}
		got, changed = got+n, 0
	}
	return got, nil
}

// refusal turns what a lender answered into what a chunk server would have.
func refusal(err error) error {
	var refused *shortcircuit.RefusedError
	if errors.As(err, &refused) {
		return &dataconn.StatusError{Status: refused.Status, Text: refused.Text}
	}
	return err
}

// rooms are what reads need beside the caller's memory.
var rooms = sync.Pool{New: func() any { return new(room) }}

type room struct {
	blocks [2 * wire.BlockSize]byte
	sums   [4 * (readPiece/wire.BlockSize + 1)]byte
}

// readPiece reads and verifies the blocks that hold p, which lies at offset of
// the chunk.
func (c *Client) readPiece(b *shortcircuit.Borrowed, location *wire.Location, p []byte, offset uint64) error {
	length, err := b.Length()
	if err != nil {
		return err
	}
	if wire.TooShort(offset, uint64(len(p)), length, uint64(location.Length)) && !weaken.On(weaken.ExpectLength) {
		return &dataconn.StatusError{Status: wire.StatusTooShort, Text: fmt.Sprintf("%d bytes, expected %d", length, location.Length)}
	}
	first := offset - offset%wire.BlockSize
	end := offset + uint64(len(p))
	end = max(first, min(end+-end%wire.BlockSize, length))
	r := rooms.Get().(*room)
	defer rooms.Put(r)
	parts := cut(p, offset, first, end, &r.blocks)
	sums := r.sums[:4*wire.Pieces(first, uint32(end-first))]
	n, err := b.Read(parts[:], first, sums)
	if err != nil {
		return err
	}
	if uint64(n) < end-first {
		return errTorn{first + uint64(n)}
	}
	if at := checkParts(sums, first, parts[:]); at >= 0 {
		return errTorn{uint64(at)}
	}
	c.shortCircuited.Add(int64(n))
	return nil
}

// borrower returns the connection to the lender at a chunk server's address.
func (s *servers) borrower(ctx context.Context, address netip.AddrPort) (*shortcircuit.Client, error) {
	s.borrowing.Lock()
	defer s.borrowing.Unlock()
	if b := s.borrowers[address]; b != nil {
		if !b.Gone() {
			return b, nil
		}
		delete(s.borrowers, address)
	}
	if len(s.borrowers) >= maxServers {
		return nil, fmt.Errorf("borrow from chunk server %s: %d servers lend already, no more are allowed", address, maxServers)
	}
	conn, err := s.take(ctx, address, s.client.readPath)
	if err != nil {
		return nil, err
	}
	b, err := shortcircuit.Dial(ctx, conn.Greeting)
	if err != nil {
		err = s.whyNoLender(ctx, conn, err)
		conn.give(errors.Is(err, ErrUnsupported))
		return nil, err
	}
	conn.give(true)
	s.borrowers[address] = b
	return b, nil
}

// whyNoLender tells a server that can't be borrowed from, since it is on another
// machine or of another user, from one that has ended after it had named its
// lender: that one does not answer on the connection any more. The read is tried
// again then, and counted.
func (s *servers) whyNoLender(ctx context.Context, conn *dataConn, err error) error {
	address := conn.pool.key.address
	if failed := conn.Extend(ctx, dataconn.DialTimeout); failed != nil {
		return failed
	}
	gone := conn.Select(conn.pool.key.path)
	if gone == nil {
		return fmt.Errorf("read=%s from chunk server %s: %w: %w", read.ShortCircuit, address, ErrUnsupported, err)
	}
	s.client.options.Counters.Counter("read_shortcircuit_lost_lenders").Add(1)
	err = fmt.Errorf("chunk server %s ended before it could be borrowed from: %w: %w", address, err, gone)
	if conn.Reused {
		return &staleConn{err}
	}
	return err
}

func (s *servers) closeBorrowers() error {
	s.borrowing.Lock()
	defer s.borrowing.Unlock()
	var failed error
	for address, b := range s.borrowers {
		failed = errors.Join(failed, b.Close())
		delete(s.borrowers, address)
	}
	return failed
}
