package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"waggle/dfs/datapath"
)

// waggle runs a command line in this process.
func waggle(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"waggle"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongUsageExitsWith2AndOneLine(t *testing.T) {
	for _, args := range [][]string{{"nosuch"}, {"doctor", "--nosuch"}, {"doctor", "surplus"}, {"ls", "--meta", "localhost", "/"}, {"ls", "--meta", "", "/"},
		{"meta", "--dir", "none", "--metrics-address", "nonsense"}, {"up", "--metrics-address", "9000"}} {
		code, _, stderr := waggle(t, args...)
		require.Equal(t, exitUsage, code, args)
		require.Regexp(t, `^waggle: [^\n]+\n$`, stderr, args)
	}
}

func TestExitCodes(t *testing.T) {
	require.Equal(t, 0, exitCode(nil))
	require.Equal(t, 1, exitCode(errors.New("x")))
	require.Equal(t, 2, exitCode(fmt.Errorf("x: %w", datapath.ErrUnknown)))
	require.Equal(t, 3, exitCode(fmt.Errorf("x: %w", datapath.ErrUnsupported)))
	require.Equal(t, 4, exitCode(cli.Exit("invalid trials", 4)))
}

func TestEveryFlagHasAVariable(t *testing.T) {
	var check func(list []*cli.Command)
	check = func(list []*cli.Command) {
		for _, command := range list {
			for _, flag := range command.Flags {
				if flag == cli.HelpFlag {
					continue
				}
				require.NotEmpty(t, reflect.ValueOf(flag).Elem().FieldByName("EnvVars").Interface(), "%s --%s", command.Name, flag.Names()[0])
			}
			check(command.Subcommands)
		}
	}
	check(newApp(nil, nil).Commands)
}

func TestFlagsMayStandBehindArguments(t *testing.T) {
	app := &cli.App{Commands: []*cli.Command{{Name: "run", Flags: []cli.Flag{jsonFlag(), metaFlag()}}}}
	for _, c := range []struct{ have, want []string }{
		{[]string{"w"}, []string{"w"}},
		{[]string{"w", "nosuch", "--x"}, []string{"w", "nosuch", "--x"}},
		{[]string{"w", "run", "a", "--json", "b", "--meta", "m", "-"}, []string{"w", "run", "--json", "--meta", "m", "--", "a", "b", "-"}},
		{[]string{"w", "run", "a", "--meta=m", "--", "--json"}, []string{"w", "run", "--meta=m", "--", "a", "--json"}},
		{[]string{"w", "run", "--meta"}, []string{"w", "run", "--meta"}},
	} {
		require.Equal(t, c.want, flagsFirst(app, c.have))
	}
}

func TestDoctorPrintsJSON(t *testing.T) {
	code, stdout, stderr := waggle(t, "doctor", "--json")
	require.Zero(t, code, stderr)
	var d diagnosis
	require.NoError(t, json.Unmarshal([]byte(stdout), &d))
	require.NotEmpty(t, d.Machine.Kernel)
	code, stdout, _ = waggle(t, "doctor")
	require.Zero(t, code)
	require.Contains(t, stdout, "kernel")
}

// TestNoFlagTakesANumberThatMakesNoSense tries each flag that takes a number or a
// time, of every command.
func TestNoFlagTakesANumberThatMakesNoSense(t *testing.T) {
	for _, command := range newApp(io.Discard, io.Discard).Commands {
		var required []string
		for _, flag := range command.Flags {
			if r, ok := flag.(cli.RequiredFlag); ok && r.IsRequired() {
				required = append(required, "--"+flag.Names()[0], t.TempDir())
			}
		}
		for _, flag := range command.Flags {
			var wrong []string
			switch f := flag.(type) {
			case *cli.DurationFlag:
				wrong = []string{"-1s", "1000000h"}
				if f.Value != 0 && !strings.Contains(f.Usage, "; 0 ") { // which says what that means
					wrong = append(wrong, "0s")
				}
			case *cli.IntFlag, *cli.UintFlag, *cli.Uint64Flag:
				wrong = []string{"-1", "1.5", "99999999999999999999"}
			case *cli.Float64Flag:
				wrong = []string{"-0.5", "NaN", "Inf", "-Inf"}
			}
			for _, value := range wrong {
				name := "--" + flag.Names()[0]
				code, _, stderr := waggle(t, append([]string{command.Name, name + "=" + value}, required...)...)
				require.Equal(t, exitUsage, code, "%s %s=%s: %s", command.Name, name, value, stderr)
				require.Contains(t, stderr, flag.Names()[0], "%s %s=%s", command.Name, name, value)
			}
		}
	}
	code, _, stderr := waggle(t, "chunk", "--dir", t.TempDir(), "--advertise", "example")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "give an IP address")
}
