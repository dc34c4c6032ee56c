package sockmap

import (
	"errors"
	"fmt"

	"waggle/bpf/refusal"
)

// What the two need.
var (
	ingressFeature = refusal.Feature{Name: "sockmap ingress", Since: refusal.Version{Major: 6, Minor: 13},
		Needs: []refusal.Capability{refusal.BPF, refusal.NetAdmin, refusal.Perfmon}}
	relayFeature = refusal.Feature{Name: "sockmap relay", Since: refusal.Version{Major: 6, Minor: 14},
		Needs: []refusal.Capability{refusal.BPF, refusal.NetAdmin, refusal.Perfmon}}
)

// IngressSupported returns nil if this machine can take connections with an
// Ingress, else a *refusal.Error that says why not. It leaves nothing behind.
func IngressSupported() error {
	group, err := NewCgroup()
	if err != nil {
		return ingressFeature.Explain(fmt.Errorf("make a control group: %w", err))
	}
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{0}, BothWays: true})
	if err == nil {
		err = in.Close()
	}
	return ingressFeature.Explain(errors.Join(err, group.Close()))
}

// RelaySupported returns nil if this machine can relay, else a *refusal.Error
// that says why not. It leaves nothing behind.
func RelaySupported() error {
	r, err := NewRelay()
	if err == nil {
		err = r.Close()
	}
	return relayFeature.Explain(err)
}
