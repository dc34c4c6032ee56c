package lookup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	kernel "waggle/bpf/lookup"
)

// awaitSilence waits until no program in the kernel answers at an address any
// more. That of a server that was killed does so until the kernel has taken its
// process apart, from tables that nobody keeps true, whatever path its successor
// takes.
func awaitSilence(ctx context.Context, at netip.AddrPort) error {
	for end := time.Now().Add(attachTime); ; {
		device := answeringDevice(at)
		if device == "" {
			return nil
		}
		err := sleep(ctx, 20*time.Millisecond)
		if err == nil && time.Now().After(end) {
			err = fmt.Errorf("it did not end within %v", attachTime)
		}
		if err != nil {
			return fmt.Errorf("lookups at %s are answered by the XDP program of another server, on %s: %w", at, device, err)
		}
	}
}

// answeringDevice is an interface whose program answers at an address, or "".
// Who may not look could not have started such a server either.
func answeringDevice(at netip.AddrPort) string {
	devices := []net.Interface{}
	if at.Addr().IsUnspecified() {
		devices, _ = net.Interfaces()
	} else if device, err := deviceOf(at.Addr()); err == nil {
		devices = append(devices, *device)
	}
	for _, device := range devices {
		if answers, err := kernel.AnswersAt(device.Index, at.Port()); err == nil && answers {
			return device.Name
		}
	}
	return ""
}
