package main

import (
	"encoding/json"
	"io"
	"math"
	"net"
	"net/netip"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// DefaultMeta is the address of the metadata server that `waggle up` starts
// and every other command asks.
const DefaultMeta = "127.0.0.1:9430"

func metaFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "meta", Value: DefaultMeta, Usage: "`ADDRESS` of the cluster's metadata server",
		Action: func(_ *cli.Context, address string) error {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
				return usagef("--meta (or WAGGLE_META) is %q: give the metadata server's HOST:PORT, as `waggle up` says it", address)
			}
			return nil
		}}
}

func jsonFlag() *cli.BoolFlag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON for a program to read"}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// nameVariables gives every flag that has none its environment variable:
// WAGGLE_ and the flag's name.
func nameVariables(flags []cli.Flag) {
	for _, flag := range flags {
		variables := reflect.ValueOf(flag).Elem().FieldByName("EnvVars").Addr().Interface().(*[]string)
		if len(*variables) == 0 {
			name := strings.ToUpper(strings.ReplaceAll(flag.Names()[0], "-", "_"))
			*variables = []string{"WAGGLE_" + name}
		}
	}
}

// maxTime bounds every time that a flag can give: sums of longer ones overflow.
const maxTime = 10 * 365 * 24 * time.Hour

// checkRanges has every flag with a number or a time refuse what makes no sense
// for any of them: less than nothing, and nothing, unless that is the default
// and so has a meaning.
func checkRanges(flags []cli.Flag) {
	for _, flag := range flags {
		switch f := flag.(type) {
		case *cli.DurationFlag:
			if f.Action != nil { // it has a range of its own
				continue
			}
			zero := f.Value == 0
			f.Action = func(_ *cli.Context, v time.Duration) error {
				if v > maxTime {
					return usagef("--%s %v is too long: give at most %v", f.Name, v, maxTime)
				}
				return checkRange(f.Name, v, v > 0 || v == 0 && zero, zero)
			}
		case *cli.IntFlag:
			zero := f.Value == 0
			f.Action = func(_ *cli.Context, v int) error { return checkRange(f.Name, v, v > 0 || v == 0 && zero, zero) }
		case *cli.Float64Flag:
			zero := f.Value == 0
			f.Action = func(_ *cli.Context, v float64) error {
				return checkRange(f.Name, v, !math.IsInf(v, 0) && (v > 0 || v == 0 && zero), zero)
			}
		}
	}
}

func checkRange(name string, value any, ok, zero bool) error {
	switch {
	case ok:
		return nil
	case zero:
		return usagef("--%s %v: give a number that is not below 0", name, value)
	}
	return usagef("--%s %v: give a number above 0", name, value)
}

// checkIP refuses what is no IP address; empty is none.
func checkIP(name string) func(*cli.Context, string) error {
	return func(_ *cli.Context, text string) error {
		if _, err := netip.ParseAddr(text); err != nil && text != "" {
			return usagef("--%s %q: give an IP address such as 10.0.0.1", name, text)
		}
		return nil
	}
}

// flagsFirst moves the flags of a command in front of its arguments, because
// the cli package stops at the first argument and people write
// `waggle run FILE --effort smoke`. What stands behind "--" is left alone.
func flagsFirst(app *cli.App, args []string) []string {
	head, command := 1, (*cli.Command)(nil)
	for list := app.Commands; head < len(args); head++ {
		i := slices.IndexFunc(list, func(c *cli.Command) bool { return c.HasName(args[head]) })
		if i < 0 {
			break
		}
		command, list = list[i], list[i].Subcommands
	}
	if command == nil {
		return args
	}
	var flags, arguments []string
	for rest := args[head:]; len(rest) > 0; {
		n := 1
		switch {
		case rest[0] == "--":
			arguments = append(arguments, rest[1:]...)
			n = len(rest)
		case len(rest[0]) < 2 || rest[0][0] != '-':
			arguments = append(arguments, rest[0])
		default:
			if takesValue(command.Flags, rest[0]) {
				n = min(2, len(rest))
			}
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	if len(arguments) > 0 {
		flags = append(flags, "--")
	}
	return slices.Concat(args[:head], flags, arguments)
}

func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	for _, flag := range flags {
		if slices.Contains(flag.Names(), name) {
			_, isBool := flag.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
