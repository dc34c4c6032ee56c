package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
)

// answerPlain answers a GET of a file on its connection. It writes nothing if
// the path does not name one: then net/http says what is wrong.
func (g *Gateway) answerPlain(c *connection, r *http.Request) outcome {
	if g.relay == nil {
		return notPlain
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(g.bodies)
	defer cancel()
	c.body.Store(&cancel)
	defer c.body.Store(nil)
	late := time.AfterFunc(g.config.Grace, cancel) // later, if the body is long
	defer late.Stop()
	file, err := g.client.Open(ctx, r.URL.Path)
	if err != nil {
		return notPlain
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil || !stat.Mode().IsRegular() {
		return notPlain
	}
	info := stat.(*client.Info)
	g.counts.requests.Add(1)
	a := answerFor(r, info)
	closing := r.Close || g.ctx.Err() != nil
	by := relayed
	if a.length == 0 || isSmall(info) {
		by = verified
		err = g.answerWhole(c, file, a, closing)
	} else {
		late.Reset(g.config.bodyTime(a.length))
		err = g.answerRelayed(ctx, c, &body{gateway: g, to: c, file: file, size: uint64(info.Size()),
			chunk: uint64(info.Attributes().ChunkSize), chunked: wantsTrailer(r)}, a, closing)
	}
	if err != nil {
		g.counts.broken.Add(1)
		g.warn("body ended early", "client", c.RemoteAddr(), "path", r.URL.Path, "reason", err)
		return connectionFailed
	}
	if a.length > 0 {
		g.counts.took(by, time.Since(began))
	}
	if closing {
		return answeredLast
	}
	return answered
}

func isSmall(info *client.Info) bool {
	a := info.Attributes()
	return a.Size == uint64(a.InlineSize)
}

// answerWhole sends what needs no chunk server: a message, or a file that came
// with its attributes.
func (g *Gateway) answerWhole(c *connection, file *client.File, a *answer, closing bool) error {
	data := a.message
	if a.length > 0 {
		data = make([]byte, a.length)
		if _, err := file.ReadAt(data, a.offset); err != nil {
			return err
		}
		g.counts.library.Add(a.length)
		a.header.Set(verifiedHeader, "yes")
	}
	if a.header.Get("Content-Length") == "" && a.status != http.StatusNotModified {
		a.header.Set("Content-Length", fmt.Sprint(len(data)))
	}
	data = append(a.head(closing), data...)
	if c.target != nil {
		ctx, cancel := context.WithTimeout(g.bodies, g.config.bodyTime(relay.MaxBody))
		defer cancel()
		_, err := c.target.Write(ctx, data)
		return err
	}
	c.SetWriteDeadline(time.Now().Add(g.config.Grace))
	_, err := c.Write(data)
	return err
}

// answerRelayed sends the response's header and has its body moved.
func (g *Gateway) answerRelayed(ctx context.Context, c *connection, b *body, a *answer, closing bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, g.config.bodyTime(a.length))
	defer cancel()
	if c.target == nil {
		target, err := g.relay.NewTarget(c.TCPConn)
		if errors.Is(err, relay.ErrHalfClosed) {
			return g.answerRead(ctx, c, b.file, a, closing)
		}
		if err != nil {
			return err
		}
		c.target = target
	}
	a.header.Set(verifiedHeader, "no")
	a.header.Set(relayHeader, g.config.Relay)
	if b.chunked {
		a.header.Del("Content-Length")
		a.header.Set("Transfer-Encoding", "chunked")
		a.header.Set("Trailer", "Content-Digest")
	}
	if err := b.write(ctx, a.head(closing)); err != nil {
		return err
	}
	return b.send(ctx, a.offset, a.length)
}

// answerRead sends a file that the client library reads, and says so: to a client
// that has closed its side of the connection, behind its last request.
func (g *Gateway) answerRead(ctx context.Context, c *connection, file *client.File, a *answer, closing bool) error {
	a.header.Set(verifiedHeader, "yes")
	deadline, _ := ctx.Deadline()
	c.SetWriteDeadline(deadline)
	if _, err := c.Write(a.head(closing)); err != nil {
		return err
	}
	n, err := io.Copy(c.TCPConn, io.NewSectionReader(file, a.offset, a.length))
	g.counts.library.Add(n)
	if err == nil && n < a.length {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// wantsTrailer says whether the client reads what follows a body.
func wantsTrailer(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Te"], func(value string) bool {
		return slices.ContainsFunc(strings.Split(value, ","), func(coding string) bool {
			return strings.EqualFold(strings.TrimSpace(coding), "trailers")
		})
	})
}
