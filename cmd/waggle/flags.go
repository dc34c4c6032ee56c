package main

import (
	"encoding/json"
	"io"
	"net"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"

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
