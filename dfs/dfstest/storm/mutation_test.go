package storm

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	mutationNames = flag.String("mutations", "", "take guarantees away, one at a time, and see whether storms notice: all, or names with commas")
	mutationSeeds = flag.Int("mutation-storms", 60, "how many storms a mutation has to survive to count as not caught")
)

// mutation takes one guarantee of the file system away: either package weaken
// does, or a piece of a source file is replaced by another when the test is
// built.
type mutation struct {
	name string
	what string // is wrong then

	file     string // below the module's directory; "" for one of package weaken
	old, new string
}

// mutations are those that storms are tried on, beside those of package weaken.
var mutations = []mutation{
	{"pass-writes-on", "a write is acknowledged that only the first replica has", "dfs/chunk/write.go",
		"	if len(next) > 0 {\n		if due.next,", "	if len(next) > 99 {\n		if due.next,"},
	{"sync-replicas", "a sync of a replica does nothing", "dfs/chunk/replica/sync.go",
		"func (r *Replica) Sync() error {\n", "func (r *Replica) Sync() error {\n	if r != nil {\n		return nil\n	}\n"},
	{"refuse-old-epochs", "a replica takes writes of a lease that has ended", "dfs/chunk/replica/replica.go",
		"	case epoch != r.state.Epoch:\n", "	case epoch > r.state.Epoch:\n"},
	{"commit-before-answer", "the metadata server answers before the change is on its disk", "dfs/meta/store/pebble.go",
		"ApplyNoSyncWait(batch.Batch, pebble.Sync)", "Apply(batch.Batch, pebble.NoSync)"},
	{"mutate-once", "a change that is asked for again is carried out again", "dfs/meta/session.go",
		"if known := s.answers[number]; known != nil {", "if known := s.answers[number]; known != nil && number == 0 {"},
	{"settle-at-most", "a chunk is settled at its shortest replica instead of its longest", "dfs/meta/settle.go",
		"slices.MaxFunc(states", "slices.MinFunc(states"},
	{"verify-reads", "a client does not compare what it reads with the checksums", "dfs/client/read.go",
		"if at := checkParts(answer.Extra, first, parts[:]); at >= 0 {", "if at := checkParts(answer.Extra, first, parts[:]); at >= 1<<40 {"},
	{"copy-to-settle", "replicas are said to be equal that are not", "dfs/meta/settle.go",
		"		return r.server, s.copyReplica(ctx, c.id, epoch, best.server, r.server, nil)\n", "		return r.server, nil\n"},
}

// TestMutations takes guarantees away and demands that storms notice. It takes
// many minutes:
//
//	go test ./dfs/dfstest/storm -run Mutations -mutations all -timeout 0 -v
func TestMutations(t *testing.T) {
	if *mutationNames == "" {
		t.Skip("run by hand: -mutations all")
	}
	seed := firstSeed()
	t.Logf("from seed %d on", seed)
	weakened := build(t, nil)
	var table strings.Builder
	for _, m := range chosenMutations(t) {
		program := weakened
		if m.file != "" {
			program = build(t, &m)
		}
		caught, by := m.storm(t, program, seed)
		fmt.Fprintf(&table, "| %s | %s | %s |\n", m.name, m.what, by)
		if !caught {
			t.Errorf("%s was not caught: %s", m.name, by)
		}
		t.Logf("%s: %s", m.name, by)
	}
	t.Logf("| mutation | without it | caught |\n|---|---|---|\n%s", &table)
}

// chosenMutations are those that the flag names.
func chosenMutations(t *testing.T) []mutation {
	all := slices.Concat(weakenings(t), mutations)
	if *mutationNames == "all" {
		return all
	}
	var chosen []mutation
	for name := range strings.SplitSeq(*mutationNames, ",") {
		i := slices.IndexFunc(all, func(m mutation) bool { return m.name == name })
		require.GreaterOrEqual(t, i, 0, "there is no mutation %q", name)
		chosen = append(chosen, all[i])
	}
	return chosen
}

const module = "../../.."

// guarantee is how package weaken lists what can be taken away.
var guarantee = regexp.MustCompile(`(?s)// (\w+): ((?:[^\n]|\n\t// )*)\n\t\w+ +Guarantee = "([^"]+)"`)

// weakenings reads the list of package weaken.
func weakenings(t *testing.T) (list []mutation) {
	source, err := os.ReadFile(filepath.Join(module, "dfs/weaken/weaken.go"))
	require.NoError(t, err)
	for _, m := range guarantee.FindAllStringSubmatch(string(source), -1) {
		list = append(list, mutation{name: m[3], what: strings.ReplaceAll(m[2], "\n\t// ", " ")})
	}
	require.NotEmpty(t, list)
	return list
}

// build builds this test with a mutation, or for the mutations of package weaken.
func build(t *testing.T, m *mutation) (program string) {
	t.Helper()
	directory := t.TempDir()
	program = filepath.Join(directory, "storm.test")
	arguments := []string{"test", "-c", "-tags", "weaken", "-o", program}
	if m != nil {
		arguments = append(arguments, "-overlay", m.overlay(t, directory))
	}
	out, err := exec.CommandContext(t.Context(), "go", append(arguments, ".")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// overlay writes the changed source file, and the file by which the go command
// takes it instead of the other.
func (m *mutation) overlay(t *testing.T, directory string) string {
	t.Helper()
	original, err := filepath.Abs(filepath.Join(module, m.file))
	require.NoError(t, err)
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(source), m.old), "%s: what %s is to replace stands in %s once: adapt the mutation to the code", m.name, m.name, m.file)
	changed := filepath.Join(directory, "changed.go")
	require.NoError(t, os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600))
	encoded, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	require.NoError(t, err)
	overlay := filepath.Join(directory, "overlay.json")
	require.NoError(t, os.WriteFile(overlay, encoded, 0o600))
	return overlay
}

var (
	caughtBy = regexp.MustCompile(`-run (\w+) -seed (\d+) -storms`)
	wrong    = regexp.MustCompile(`(?m)^\s*(at [0-9.]+ ms: .*|error: [^<].*)$`)
)

// storm has storms over a program until one finds the mutation, and says how.
func (m *mutation) storm(t *testing.T, program string, seed uint64) (caught bool, by string) {
	began := time.Now()
	run := exec.CommandContext(t.Context(), program, "-test.run", "^TestStorm$", "-test.failfast", "-test.timeout", "0",
		"-storms", strconv.Itoa(*mutationSeeds), "-seed", strconv.FormatUint(seed, 10), "-clusters", strconv.Itoa(*clusterCount), "-heal", "20s")
	run.Env = append(os.Environ(), "WAGGLE_WEAKEN="+m.name)
	out, err := run.CombinedOutput()
	took := time.Since(began).Round(time.Second)
	if err == nil {
		return false, fmt.Sprintf("no: survived %d storms (%v)", *mutationSeeds, took)
	}
	found := caughtBy.FindSubmatch(out)
	require.NotNil(t, found, "%s", out)
	at, err := strconv.ParseUint(string(found[2]), 10, 64)
	require.NoError(t, err)
	what := ""
	if said := wrong.FindSubmatch(out); said != nil {
		what = string(said[1][:min(len(said[1]), 160)])
	}
	return true, fmt.Sprintf("%s, storm %d, seed %d (%v): %s", found[1], at-seed+1, at, took, what)
}
