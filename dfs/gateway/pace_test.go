package gateway

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/dfstest"
)

// begun opens a connection, sends a request and reads a little of the answer.
func (p *place) begun(t *testing.T, request string, read int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.gateway.Address())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err = io.ReadFull(conn, make([]byte, read))
	require.NoError(t, err)
	return conn
}

// noRate lets a body take years, but for the limit of a stall.
func noRate(c *Config) { c.Grace, c.MinRate = 500*time.Millisecond, 1 }

// A client that stops taking loses its connection after a time that does not depend
// on how much there is to take: of a file, of a listing, at once or after much.
func TestAClientThatStopsTaking(t *testing.T) {
	eachRelay(t, noRate, func(t *testing.T, p *place) {
		if !p.gateway.exists(t.Context(), "/large") { // from the path before
			p.put(t, "/large", make([]byte, 24<<20))
		}
		p.begun(t, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 100)
		p.begun(t, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 6<<20)
		p.begun(t, "GET /large HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nRange: bytes=5-\r\n\r\n", 100)
		require.Eventually(t, func() bool { return p.gateway.status().Connections == 0 }, 30*time.Second, 5*time.Millisecond)
		require.EqualValues(t, 3, p.counters.Snapshot()["gateway_stalled_connections"])
	})
}

// One that goes on taking, however long it takes, keeps its connection.
func TestAClientThatGoesOnTaking(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	for _, name := range []string{NoRelay, relay.Copy} {
		t.Run(name, func(t *testing.T) {
			p := start(t, cluster, func(c *Config) { c.Relay, c.Grace, c.MinRate = name, 1200*time.Millisecond, 1 })
			const size = 48 << 20
			p.put(t, "/large", make([]byte, size))
			conn := p.begun(t, "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 100)
			until := time.Now().Add(2 * p.gateway.config.Grace)
			conn.SetReadDeadline(time.Now().Add(60 * time.Second))
			got, step := 100, make([]byte, 16<<10)
			for time.Now().Before(until) && got < size/2 {
				time.Sleep(2 * time.Millisecond) // a slow client, not a wait for something
				n, err := conn.Read(step)
				require.NoError(t, err, "after %d bytes", got)
				got += n
			}
			rest, err := io.Copy(io.Discard, conn)
			require.NoError(t, err)
			require.Greater(t, got+int(rest), size)
		})
	}
}

// An upload that stops is given up after the same time, however large and however
// much of it has come.
func TestAnUploadThatStops(t *testing.T) {
	eachRelay(t, noRate, func(t *testing.T, p *place) {
		for _, sent := range []int{0, 3 << 20} {
			conn, err := net.Dial("tcp", p.gateway.Address())
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 1<<30, make([]byte, sent))
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusRequestTimeout, r.StatusCode)
		}
		p.requireNoParts(t)
	})
}

// Clients that hold all connections and do nothing with them, in whatever state,
// keep nobody out for long.
func TestQuietClientsMakeRoomForOthers(t *testing.T) {
	states := []string{
		"", "GET /lar", "PUT /file HTTP/1.1\r\nHost: x\r\n", // no request, or half of one
		"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",                                       // nothing is taken
		"GET /large HTTP/1.0\r\nHost: x\r\n\r\n",                                       // likewise, of net/http
		"PUT /file HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc",          // nothing is sent
		"PUT /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",          // likewise, to the client library
		"HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", // nothing more is asked
	}
	const each = 3
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), func(c *Config) {
		c.MaxConnections = each * len(states)
		c.HeaderTimeout, c.IdleTimeout, c.MinRate = time.Hour, time.Hour, 1
		c.Grace = 10 * time.Second // a tenth of which is what the others wait
	})
	p.put(t, "/large", make([]byte, 16<<20))
	for _, request := range states {
		for range each {
			p.begun(t, request, 0)
		}
	}
	require.Eventually(t, func() bool { return p.gateway.status().Connections == p.gateway.config.MaxConnections }, 10*time.Second, time.Millisecond)
	for range p.gateway.config.MaxConnections { // others come, and stay
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		require.Eventually(t, func() bool {
			r, err := (&http.Client{Transport: transport}).Get(p.url + "/-/live")
			if err != nil {
				return false
			}
			defer r.Body.Close()
			io.Copy(io.Discard, r.Body)
			return r.StatusCode == http.StatusOK
		}, 20*time.Second, 10*time.Millisecond)
	}
	require.EqualValues(t, p.gateway.config.MaxConnections, p.counters.Snapshot()["gateway_evicted_connections"])
}

// Work that takes the gateway long is nobody's quiet.
func TestAClientThatWaitsIsNotQuiet(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), func(c *Config) {
		c.MaxConnections, c.Grace = 1, 200*time.Millisecond
	})
	release, err := p.gateway.handler.claims.take(t.Context(), []claimed{{"/dir", true}}) // somebody else's change
	require.NoError(t, err)
	waiting := p.begun(t, "MKCOL /dir HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	require.Eventually(t, func() bool { return p.counters.Snapshot()["gateway_requests"] == 1 }, 10*time.Second, time.Millisecond)
	until := time.Now().Add(2 * p.gateway.config.Grace)
	for time.Now().Before(until) {
		conn, err := net.Dial("tcp", p.gateway.Address())
		require.NoError(t, err)
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer, err := io.ReadAll(conn)
		if err == nil { // or it was reset
			require.Contains(t, string(answer), "503")
		}
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		conn.Close()
	}
	release()
	r, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, r.StatusCode)
}

// The rate that is demanded is of what was taken since there was something to take.
func TestPace(t *testing.T) {
	config := Config{Grace: 30 * time.Second, MinRate: 4 << 10, Client: new(client.Client)}
	now := time.Unix(1e9, 0)
	require.Equal(t, now.Add(30*time.Second), config.moreBy(now, 0, now))
	require.Equal(t, now.Add(40*time.Second), config.moreBy(now, 1<<40, now.Add(10*time.Second)), "a stall after much")
	require.Equal(t, now.Add(31*time.Second), config.moreBy(now, 4<<10, now.Add(29*time.Second)), "too little in all")
	require.Positive(t, config.bodyTime(math.MaxInt64/2))
}
