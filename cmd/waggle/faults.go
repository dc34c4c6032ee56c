package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"waggle/bpf/faults"
)

func faultsCommand() *cli.Command {
	return &cli.Command{
		Name:      "faults",
		Usage:     "make a link lose, double, change or hold back packets, or cut it",
		UsageText: "waggle faults --interface NAME [--from ADDRESS] [--to ADDRESS] [--both-ways] --drop PERCENT ...",
		Description: "Does so until Ctrl-C, or for a time, and then says what was done. The same seed does the same to the\n" +
			"same packets. Everything ends with this process, however it ends. In another network namespace:\n" +
			"`ip netns exec NAME waggle faults ...`.",
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringFlag{Name: "interface", Required: true, Usage: "`NAME` of the interface that the packets pass"},
			&cli.BoolFlag{Name: "ingress", Usage: "meet packets that come in at the interface, instead of those that go out"},
			&cli.StringFlag{Name: "from", Usage: "`ADDRESS` that packets come from (any)"},
			&cli.StringFlag{Name: "to", Usage: "`ADDRESS` that packets go to (any)"},
			&cli.BoolFlag{Name: "both-ways", Usage: "do it to packets the other way, too, at the interface's other hook"},
			&cli.BoolFlag{Name: "cut", Usage: "let no packet through"},
			&cli.Float64Flag{Name: "drop", Usage: "lose so many `PERCENT` of the packets"},
			&cli.Float64Flag{Name: "duplicate", Usage: "double so many `PERCENT`"},
			&cli.Float64Flag{Name: "reorder", Usage: "hold so many `PERCENT` back, so that later ones overtake them"},
			&cli.DurationFlag{Name: "hold", Value: faults.DefaultHold, Usage: "`TIME` for which --reorder holds a packet back"},
			&cli.Float64Flag{Name: "corrupt", Usage: "change a byte in so many `PERCENT`"},
			&cli.BoolFlag{Name: "fix-checksum", Usage: "make the checksum of changed packets right, so that only a check from end to end sees it"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`NUMBER` that decides, with the number of packets before, what is done to one"},
			&cli.DurationFlag{Name: "for", Usage: "end after `TIME` (0: with Ctrl-C)"},
		},
		Action: injectFaults,
	}
}

// direction is a hook and the rule there.
type direction struct {
	hook faults.Hook
	rule faults.Rule
}

func injectFaults(c *cli.Context) error {
	directions, err := faultDirections(c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return cli.Exit("faults need root, to load a BPF program and to make an interface", exitUnsupported)
	}
	var injectors []*faults.Injector
	for _, d := range directions {
		in, err := faults.Attach(c.String("interface"), faults.Options{Hook: d.hook, Hold: c.Duration("hold")})
		if err != nil {
			return err
		}
		defer in.Close()
		if err := in.Set(d.rule); err != nil {
			return usagef("%v", err)
		}
		injectors = append(injectors, in)
	}
	ctx, cancel := c.Context, context.CancelFunc(func() {})
	if c.Duration("for") > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.Duration("for"))
	}
	defer cancel()
	fmt.Fprintf(c.App.ErrWriter, "faults are being injected at %s\n", c.String("interface"))
	<-ctx.Done()
	return reportFaults(c, directions, injectors)
}

func faultDirections(c *cli.Context) ([]direction, error) {
	if _, err := arguments(c, 0, 0); err != nil {
		return nil, err
	}
	r := faults.Rule{Seed: c.Uint64("seed"), Cut: c.Bool("cut"), FixChecksum: c.Bool("fix-checksum")}
	var err error
	for _, a := range []struct {
		flag string
		to   *netip.Addr
	}{{"from", &r.From}, {"to", &r.To}} {
		if text := c.String(a.flag); text != "" {
			if *a.to, err = netip.ParseAddr(text); err != nil {
				return nil, usagef("--%s %q is no IP address", a.flag, text)
			}
		}
	}
	for _, p := range []struct {
		flag string
		to   *float64
	}{{"drop", &r.Drop}, {"duplicate", &r.Duplicate}, {"reorder", &r.Hold}, {"corrupt", &r.Corrupt}} {
		percent := c.Float64(p.flag)
		if !(percent >= 0 && percent <= 100) {
			return nil, usagef("--%s %v: give a percentage from 0 to 100", p.flag, percent)
		}
		*p.to = percent / 100
	}
	if !r.Cut && r.Drop+r.Duplicate+r.Hold+r.Corrupt == 0 {
		return nil, usagef("no fault was chosen: give one or more of --cut, --drop, --duplicate, --reorder and --corrupt")
	}
	if hold := c.Duration("hold"); hold <= 0 || hold > time.Minute {
		return nil, usagef("--hold %v: give a time up to a minute", hold)
	}
	hook, other := faults.Egress, faults.Ingress
	if c.Bool("ingress") {
		hook, other = other, hook
	}
	directions := []direction{{hook, r}}
	if c.Bool("both-ways") {
		r.From, r.To = r.To, r.From
		directions = append(directions, direction{other, r})
	}
	return directions, nil
}

func reportFaults(c *cli.Context, directions []direction, injectors []*faults.Injector) error {
	done := make(map[faults.Hook]faults.Counters)
	var failed error
	for i, d := range directions {
		counted, err := injectors[i].Counters(d.rule.From, d.rule.To)
		failed = errors.Join(failed, err)
		done[d.hook] = counted
	}
	if failed != nil {
		return failed
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, done)
	}
	for _, d := range directions {
		n := done[d.hook]
		fmt.Fprintf(c.App.Writer, "%s: %d packets; %d cut, %d dropped, %d doubled, %d held back, %d changed\n",
			d.hook, n.Packets, n.Cut, n.Dropped, n.Duplicated, n.Held, n.Corrupted)
	}
	return nil
}
