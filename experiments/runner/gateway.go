package runner

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"waggle/experiments/spec"
)

// gatewayOf is what decides which gateway a cell goes through.
func gatewayOf(p spec.Parameters) [2]string {
	if p.Relay == spec.Nginx {
		return [2]string{p.Relay}
	}
	return [2]string{p.Relay, p.Read}
}

// needGateway starts the gateway of a cell and what is behind it. Gateways of
// several relay paths share a host and a cluster: one serves at a time.
func (s *stage) needGateway(ctx context.Context, p spec.Parameters) (err error) {
	key := gatewayOf(p)
	if s.gateways[key] != "" {
		return nil
	}
	start := s.startGateway
	if p.Relay == spec.Nginx {
		start = s.startNginx
	}
	address, err := start(ctx, p)
	if err != nil {
		return err
	}
	s.gateways[key] = address
	return nil
}

func (s *stage) startGateway(ctx context.Context, p spec.Parameters) (address string, err error) {
	if err := s.needCluster(ctx); err != nil {
		return "", err
	}
	ip := s.network.Host(roleGateway).Address.String()
	name := fmt.Sprintf("%s-%s-%s", roleGateway, p.Relay, p.Read)
	r, err := s.start(roleGateway, roleGateway, name, s.waggle("gateway", "--meta", s.meta,
		"--address", ip+":0", "--control-address", ip+":0", "--relay", p.Relay, "--read", p.Read))
	if err != nil {
		return "", err
	}
	line, err := s.firstLine(ctx, r)
	if err != nil {
		return "", err
	}
	if address, err = addressOfURL(line); err != nil {
		return "", err
	}
	control, err := addressAfter(line, "control")
	if err != nil {
		return "", err
	}
	return address, s.dialAdmin(r, control)
}

// addressOfURL finds the address of the URL that a role named in its line.
func addressOfURL(line string) (string, error) {
	for word := range strings.FieldsSeq(line) {
		if u, err := url.Parse(strings.TrimRight(word, ",")); err == nil && u.Host != "" {
			return u.Host, nil
		}
	}
	return "", errors.New("a role said " + strings.TrimSpace(line) + ", which names no URL")
}
