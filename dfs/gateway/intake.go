package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// enough is how many bytes of a body are waited for before they are passed on;
// whole blocks, so that no block is written in two parts.
const enough = 64 * wire.BlockSize

// passTime bounds how long a chunk server may take to receive a part that is here.
const passTime = 20 * time.Second

// errSlow: a client sent less than the least rate.
var errSlow = errors.New("the body came too slowly")

// intake is the body of a PUT on its way from a client's connection to the
// chunk servers.
type intake struct {
	gateway  *Gateway
	request  *http.Request
	promised []promise
	upload   *upload
	ctx      context.Context
	cancel   context.CancelFunc

	from   *connection
	socket syscall.RawConn
	began  time.Time
	seen   int64 // bytes that have come, the last of them at seenAt
	seenAt time.Time
	taken  int64   // bytes that are on their way to a chunk server, or there
	parts  []*part // not acknowledged, or behind one that is not
	digest digest  // of all before them
}

// relays says whether a PUT's body can be passed on by the relay path. All that
// is special is left to the client library: what fits into an inode's record, has
// no known length, or needs a digest that chunk servers don't compute.
func (g *Gateway) relays(r *http.Request, promised []promise) bool {
	for _, p := range promised {
		if p.algorithm != crc32c {
			return false
		}
	}
	return g.relay != nil && r.ProtoMajor == 1 && r.ProtoMinor == 1 && len(r.TransferEncoding) == 0 &&
		r.ContentLength > wire.MaxInline && r.ContentLength <= g.config.MaxUpload
}

// putRelayed takes the connection from net/http and has the loop receive the
// body. Until then net/http answers.
func (h *handler) putRelayed(w http.ResponseWriter, r *http.Request, permit func(context.Context) (func(), error), promised []promise) (err error) {
	g := h.g
	i := &intake{gateway: g, request: r, promised: promised}
	i.ctx, i.cancel = context.WithTimeout(g.bodies, g.config.bodyTime(r.ContentLength)+longTime)
	if i.upload, err = g.newUpload(i.ctx, path.Clean(r.URL.Path), permit); err != nil {
		i.cancel()
		return err
	}
	i.upload.check = i.check
	if err := g.takeBack(w, i.run); err != nil {
		i.finish(err)
		i.cancel()
		g.warn("connection not taken back", "client", r.RemoteAddr, "reason", err)
	}
	return errTaken
}

// run receives the body and answers.
func (i *intake) run(c *connection) outcome {
	defer i.cancel()
	i.from = c
	err := i.finish(i.receive())
	closing := err != nil || i.request.Close || i.gateway.ctx.Err() != nil
	if err != nil {
		i.gateway.counts.broken.Add(1)
		i.gateway.warn("upload failed", "client", c.RemoteAddr(), "path", i.request.URL.Path, "reason", err)
	}
	failed := i.answer(err, closing)
	if failed == nil && err != nil {
		c.linger()
	}
	switch {
	case failed != nil:
		return connectionFailed
	case closing:
		return answeredLast
	}
	return answered
}

// finish puts the whole file in its place, or removes what there is of it.
func (i *intake) finish(err error) error {
	i.upload.failed = err
	return i.upload.Close()
}

// receive has the whole body passed on.
func (i *intake) receive() error {
	if err := i.prepare(); err != nil {
		return err
	}
	stop := context.AfterFunc(i.ctx, func() { i.from.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for i.left() > 0 {
		here, err := i.await(min(i.left(), enough+1))
		if err != nil {
			return err
		}
		p := &part{intake: i, at: i.taken, n: i.cut(here)}
		i.parts = append(i.parts, p)
		if err := i.upload.Carry(p.n, p); err != nil {
			return err
		}
		i.taken += p.n
		i.gateway.counts.uploaded.Add(p.n)
	}
	return nil
}

func (i *intake) left() int64 { return i.request.ContentLength - i.taken }

// prepare makes the connection an ordinary one, and has the client go on.
func (i *intake) prepare() (err error) {
	i.began = time.Now()
	i.seenAt = i.began
	c := i.from
	if c.target != nil { // a socket is in one map at most
		err = errors.Join(c.target.Settle(i.ctx), c.target.Close())
		c.target = nil
	}
	if err == nil {
		i.socket, err = c.SyscallConn()
	}
	if err == nil && len(c.ahead) == 0 && httpguts.HeaderValuesContainsToken(i.request.Header["Expect"], "100-continue") {
		c.SetWriteDeadline(time.Now().Add(i.gateway.config.Grace))
		_, err = c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	return err
}

// cut is how much of what is here the next frame takes. Blocks are left whole.
// Something is left behind as long as the body goes on, because relay=sockmap
// is then sure where it stopped: see package sockmap.
func (i *intake) cut(here int64) int64 {
	n := min(here, i.left(), i.upload.CarryRoom())
	if n == i.left() {
		return n
	}
	if n == here && n > 1 {
		n--
	}
	if end := i.taken + n; end-end%wire.BlockSize > i.taken {
		n -= end % wire.BlockSize
	}
	return n
}

// await returns how many bytes of the body have arrived, once they are least or
// the connection can't hold more. So a frame that was begun can be ended at
// once: a chunk server does not wait for a slow client, nor for one that is gone.
func (i *intake) await(least int64) (here int64, err error) {
	ahead := int64(len(i.from.ahead))
	if ahead >= least {
		return ahead, nil
	}
	if err := i.wakeAt(least - ahead); err != nil {
		return 0, err
	}
	// With a higher mark the kernel would not have parsed (relay=sockmap) what is
	// left of a part that was stopped on its way.
	defer func() { err = errors.Join(err, i.wakeAt(1)) }()
	i.from.waits.Store(true)
	defer i.from.waits.Store(false)
	i.seenAt = time.Now() // until now the client has waited for the gateway
	for here = ahead; ; {
		i.from.SetReadDeadline(i.deadline(here))
		if i.ctx.Err() != nil {
			return 0, context.Cause(i.ctx)
		}
		q, err := i.queued()
		here = ahead + q.bytes
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && i.ctx.Err() == nil && time.Now().Before(i.deadline(here)):
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, fmt.Errorf("%w: %d of %d bytes in %v", errSlow, i.taken+here, i.request.ContentLength, time.Since(i.began).Round(time.Millisecond))
		case err != nil:
			return 0, err
		case q.ended && here < i.left():
			return 0, fmt.Errorf("%w: %d of %d bytes came", io.ErrUnexpectedEOF, i.taken+here, i.request.ContentLength)
		default:
			return here, nil
		}
	}
}

// deadline is by when more must have come than what was taken and is here.
func (i *intake) deadline(here int64) time.Time {
	if i.taken+here > i.seen {
		i.seen, i.seenAt = i.taken+here, time.Now()
	}
	return i.gateway.config.moreBy(i.began, i.taken+here, i.seenAt)
}

// wakeAt has the kernel call the connection readable only when it holds that
// many bytes, or as many as it can.
func (i *intake) wakeAt(bytes int64) (err error) {
	failed := i.socket.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, int(bytes))
	})
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("set when to wake up for the body: %w", err)
	}
	return nil
}

// queue is what waits in a connection.
type queue struct {
	bytes int64
	ended bool // no more will come
}

// queued waits until the connection is readable. It tells how much is there even
// when it has run out of time.
func (i *intake) queued() (q queue, err error) {
	var failed error
	readable := false
	look := func(fd uintptr) {
		q, readable, failed = lookAt(int(fd))
	}
	err = i.socket.Read(func(fd uintptr) bool {
		look(fd)
		return readable || failed != nil
	})
	if err != nil && i.socket.Control(look) != nil {
		return q, err
	}
	if failed != nil {
		return q, fmt.Errorf("look for the body: %w", failed)
	}
	return q, err
}

// lookAt says what a socket holds. The order matters: what came before an end
// that was seen is counted.
func lookAt(fd int) (q queue, readable bool, err error) {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	if _, err := unix.Poll(polled, 0); err != nil && err != unix.EINTR {
		return q, false, err
	}
	const end = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	q.ended = polled[0].Revents&end != 0
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	q.bytes = int64(n)
	return q, polled[0].Revents != 0, err
}

// check compares the digest that the chunk servers computed with those that the
// client promised. All parts have been acknowledged.
func (i *intake) check() error {
	if len(i.parts) > 0 {
		return fmt.Errorf("checksums of %d parts of the body are missing", len(i.parts))
	}
	for _, p := range i.promised {
		if err := p.kept(i.digest.bytes()); err != nil {
			return err
		}
	}
	return nil
}

// answer says how the upload ended.
func (i *intake) answer(err error, closing bool) error {
	var a *answer
	if err != nil {
		a = refusalOf(err)
	} else {
		a = &answer{status: i.upload.status(), header: http.Header{}}
		a.header.Set("X-Content-Type-Options", "nosniff")
		a.header.Set("ETag", i.upload.tag)
		a.header.Set(digestHeader, i.digest.String())
		a.header.Set(relayHeader, i.gateway.config.Relay)
		a.header.Set(verifiedHeader, map[bool]string{true: "yes", false: "no"}[len(i.promised) > 0])
	}
	if a.status != http.StatusNoContent {
		a.header.Set("Content-Length", fmt.Sprint(len(a.message)))
	}
	i.from.SetWriteDeadline(time.Now().Add(i.gateway.config.Grace))
	_, err = i.from.Write(append(a.head(closing), a.message...))
	return err
}

// part is what one frame carries of a body. It is a client.Load.
type part struct {
	intake *intake
	at, n  int64 // where in the body, and how much
	sum    uint32
	known  bool // sum is
}

// Deliver implements client.Load. What was read together with the header is
// written, the rest is passed on.
func (p *part) Deliver(to *net.TCPConn) error {
	i := p.intake
	c, g := i.from, i.gateway
	ahead := c.ahead[:min(p.n, int64(len(c.ahead)))]
	if len(ahead) > 0 {
		if _, err := to.Write(ahead); err != nil {
			return err
		}
		c.ahead = c.ahead[len(ahead):]
		g.counts.ahead.Add(int64(len(ahead)))
	}
	rest := p.n - int64(len(ahead))
	if rest == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(i.ctx, passTime)
	defer cancel()
	moved, err := g.relay.Pass(ctx, c.TCPConn, to, rest)
	g.counts.passed.Add(moved)
	return err
}

// Delivered implements client.Load. Parts of different chunks are acknowledged
// in any order.
func (p *part) Delivered(sums []byte) {
	i := p.intake
	var all digest
	all.addPieces(sums, p.at, p.n)
	p.sum, p.known = all.sum, true
	for len(i.parts) > 0 && i.parts[0].known {
		i.digest.add(i.parts[0].sum, i.parts[0].n)
		i.parts = i.parts[1:]
	}
}
