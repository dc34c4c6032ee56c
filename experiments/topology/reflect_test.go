package topology

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/bpf/reflector"
	"waggle/bpf/refusal/refusaltest"
)

func TestAHostReflectsDatagramsInItsDriver(t *testing.T) {
	if err := Supported(Hosts); err != nil {
		t.Skip(err)
	}
	refusaltest.SkipOrFail(t, reflector.Supported())
	o := options(Hosts)
	o.XDPPass, o.XDPFree = true, []string{"b"}
	owner := claimed(t)
	defer func() { require.NoError(t, owner.Close()) }()
	network, err := Open(owner, o)
	require.NoError(t, err)
	defer network.Close()
	at, err := network.Reflect("b")
	require.NoError(t, err)
	require.Equal(t, network.Host("b").Address, at.Addr())
	conn, err := network.Dial(t.Context(), "udp", at.String())
	require.NoError(t, err)
	defer conn.Close()
	request, answer := make([]byte, 1320), make([]byte, 1321)
	for i := range request {
		request[i] = byte(i)
	}
	for _, size := range []int{1320, 296, 12} {
		binary.LittleEndian.PutUint32(request[8:], uint32(size))
		_, err = conn.Write(request)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := conn.Read(answer)
		require.NoError(t, err)
		require.Equal(t, request[:size], answer[:n])
	}
	n, err := network.Reflected()
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	_, err = network.Reflect("a")
	require.ErrorContains(t, err, "host a: attach a reflector to eth0", "another program is there")

	binary.LittleEndian.PutUint32(request[8:], 1321)
	_, err = conn.Write(request)
	require.NoError(t, err)
	_, err = conn.Read(answer)
	require.ErrorContains(t, err, "connection refused", "nothing stands behind it")
}
