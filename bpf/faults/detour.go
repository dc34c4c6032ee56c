package faults

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	detourPackets = 4096 // that are held at one time
	// maxFrame is the largest that the interface hands over: a virtio header, an
	// Ethernet header, and 64 KiB.
	maxFrame = 10 + 18 + 64<<10
)

// detour is a TAP interface, on which packets come out to be held, and go back
// in. They come with a virtio header, so that those that are yet to be segmented
// or to get their checksum stay as they are.
type detour struct {
	hold    time.Duration
	index   int
	file    *os.File
	queue   chan heldPacket
	closed  chan struct{}
	running sync.WaitGroup
}

// heldPacket is a packet and when it is to go on.
type heldPacket struct {
	frame []byte
	due   time.Time
}

func openDetour(hold time.Duration) (*detour, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	d := &detour{hold: hold, queue: make(chan heldPacket, detourPackets), closed: make(chan struct{})}
	if d.index, err = setUpTap(fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	d.file = os.NewFile(uintptr(fd), "/dev/net/tun") // after its set-up: only then can it be polled
	return d, nil
}

// setUpTap makes the interface, which lives as long as the file is open.
func setUpTap(fd int) (index int, err error) {
	request, err := unix.NewIfreq("fault%d") // the kernel fills the number in
	if err != nil {
		return 0, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return 0, fmt.Errorf("make a TAP interface: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		return 0, fmt.Errorf("take packets as they are: %w", err)
	}
	tap, err := netlink.LinkByName(request.Name())
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", request.Name(), err)
	}
	if err := netlink.LinkSetTxQLen(tap, detourPackets); err != nil {
		return 0, fmt.Errorf("give %s its queue: %w", request.Name(), err)
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return 0, fmt.Errorf("set %s up: %w", request.Name(), err)
	}
	return tap.Attrs().Index, nil
}

func (d *detour) start() {
	d.running.Go(d.takeIn)
	d.running.Go(d.sendOn)
}

// takeIn reads packets until the file is closed.
func (d *detour) takeIn() {
	defer close(d.queue)
	buffer := make([]byte, maxFrame)
	for {
		n, err := d.file.Read(buffer)
		if err != nil {
			return
		}
		select {
		case d.queue <- heldPacket{append([]byte(nil), buffer[:n]...), time.Now().Add(d.hold)}:
		case <-d.closed:
			return
		}
	}
}

// sendOn writes packets when they are due.
func (d *detour) sendOn() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range d.queue {
		timer.Reset(time.Until(p.due))
		select {
		case <-timer.C:
		case <-d.closed:
			return
		}
		if _, err := d.file.Write(p.frame); errors.Is(err, os.ErrClosed) {
			return
		} // any other failure is one more lost packet
	}
}

func (d *detour) Close() error {
	close(d.closed)
	err := d.file.Close()
	d.running.Wait()
	return err
}
