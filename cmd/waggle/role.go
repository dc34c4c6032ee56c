package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"waggle/dfs/metrics"
)

// role is a server of the file system.
type role interface {
	Metrics() *prometheus.Registry
	Serve(context.Context) error
}

// metricsFlag is the flag of whatever serves metrics, which what names.
func metricsFlag(what string) *cli.StringFlag {
	return &cli.StringFlag{Name: "metrics-address",
		Usage: "serve " + what + " for Prometheus on `ADDRESS`, at /metrics; \":PORT\" is for this machine only (default: don't)",
		Action: func(_ *cli.Context, address string) error {
			if _, _, err := net.SplitHostPort(address); err != nil && address != "" {
				return usagef("--metrics-address (or WAGGLE_METRICS_ADDRESS) is %q: give HOST:PORT, or :PORT for this machine only", address)
			}
			return nil
		}}
}

// serveRole serves a role, and its metrics where the command line says. Open
// makes the role, and says where it is in a line for people.
func serveRole(c *cli.Context, open func() (role, string, error)) error {
	endpoint, err := metrics.Listen(c.String("metrics-address"))
	if err != nil {
		return err
	}
	r, line, err := open()
	if err != nil {
		return errors.Join(err, endpoint.Close())
	}
	if url := endpoint.URL(); url != "" {
		line += ", metrics at " + url
	}
	fmt.Fprintln(c.App.Writer, line)
	return errors.Join(endpoint.Beside(c.Context, r.Metrics, r.Serve), endpoint.Close())
}
