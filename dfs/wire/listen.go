package wire

import (
	"context"
	"net"
)

// ListenTCP listens for data connections. It asks for plain TCP: Go's own
// listeners speak Multipath TCP where the kernel has it, and the sockets that
// such a listener accepts refuse zero-copy sends.
func ListenTCP(address string) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
