package results

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrNoChain says that the records of a run were written before there was a
// chain: whether they were edited can't be told from it.
var ErrNoChain = errors.New("the records carry no hash chain")

// chainField is how a record's line ends: the chain is its last field, so that
// the rest of the line is what stands before it.
const chainField = `,"chain":"`

// chainStart is the link before the first record: the digest of the plan and the
// environment, so that an edit of these breaks the chain, too.
func chainStart(dir string) (string, error) {
	digest := sha256.New()
	for _, name := range []string{PlanFile, EnvironmentFile} {
		text, err := readDocument(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("start the chain of records: %w", err)
		}
		digest.Write(text)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// link gives the chain's next link: a digest of the link before and of a record's
// line without its chain.
func link(before string, line []byte) string {
	digest := sha256.New()
	io.WriteString(digest, before)
	digest.Write(line)
	return hex.EncodeToString(digest.Sum(nil))
}

// linked appends the chain's next link to a record's line, which has none.
func linked(before string, line []byte) (withChain []byte, chain string) {
	chain = link(before, line)
	withChain = append(bytes.TrimSuffix(line, []byte("}")), chainField...)
	return append(append(withChain, chain...), `"}`...), chain
}

// unlinked takes a line apart into what the chain covers and its link. It has no
// answer for a line without one.
func unlinked(line []byte) (covered []byte, chain string, ok bool) {
	at := bytes.LastIndex(line, []byte(chainField))
	if at < 0 || !bytes.HasSuffix(line, []byte(`"}`)) {
		return nil, "", false
	}
	chain = string(line[at+len(chainField) : len(line)-len(`"}`)])
	return append(bytes.Clone(line[:at]), '}'), chain, true
}

// CheckChain verifies that nobody has changed, removed or inserted records of a
// run, or changed its plan or environment, since they were written: the error
// names the first line at which the chain breaks. Records that were removed from
// the end leave no trace here; they are missing from the plan. The chain has no
// key: it tells of edits, not of somebody who makes the whole chain anew.
func CheckChain(dir string) error {
	before, err := chainStart(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, RecordsFile))
	if err != nil {
		return fmt.Errorf("check the chain of records: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, MaxRecordBytes+1)
	number, unchained := 0, 0
	for lines.Scan() {
		number++
		covered, chain, ok := unlinked(lines.Bytes())
		if !ok {
			unchained++
			continue
		}
		if unchained > 0 || chain != link(before, covered) {
			return fmt.Errorf("%s:%d: the hash chain breaks: this record, one before, the plan or the environment was changed after it was written", RecordsFile, number)
		}
		before = chain
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("check the chain of records: %s:%d: %w", RecordsFile, number+1, lines.Err())
	case unchained == number:
		return ErrNoChain
	case unchained > 0:
		return fmt.Errorf("%s: %d of %d records carry no hash chain: they were added after the run", RecordsFile, unchained, number)
	}
	return nil
}
