package sockmap

import (
	"errors"
	"fmt"
)

// IngressSupported returns nil if this machine can take connections with an
// Ingress, else why not. It leaves nothing behind.
func IngressSupported() error {
	group, err := NewCgroup()
	if err != nil {
		return fmt.Errorf("sockmap ingress needs a control group of its own: %w", err)
	}
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{0}, BothWays: true})
	if err == nil {
		err = in.Close()
	}
	if err = errors.Join(err, group.Close()); err != nil {
		return fmt.Errorf("sockmap ingress needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, and Linux 6.13 or later: %w", err)
	}
	return nil
}

// RelaySupported returns nil if this machine can relay, else why not. It leaves
// nothing behind.
func RelaySupported() error {
	r, err := NewRelay()
	if err == nil {
		err = r.Close()
	}
	if err != nil {
		return fmt.Errorf("sockmap relay needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, and Linux 6.14 or later: %w", err)
	}
	return nil
}
