package calibration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waggle/results"
)

// MaxFileBytes is the largest calibration that is read.
const MaxFileBytes = 4 << 20

// FileName is what a calibration is called in a directory.
const FileName = "calibration.json"

// Read reads a calibration. An error is one line that names the file, and the
// line where there is one.
func Read(path string) (*Calibration, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a calibration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read a calibration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return c, nil
}

// Parse reads a calibration. An error begins with the line that is wrong.
func Parse(text []byte) (*Calibration, error) {
	if len(text) > MaxFileBytes {
		return nil, fmt.Errorf("1: larger than %d bytes", MaxFileBytes)
	}
	var c Calibration
	if err := json.Unmarshal(text, &c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%d: %s", lineOf(text, err), oneLine(err))
	}
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("%d: %w", lineNaming(text, err), err)
	}
	return &c, nil
}

// lineOf is the line at which decoding stopped.
func lineOf(text []byte, err error) int {
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	offset := int64(0)
	switch {
	case errors.As(err, &syntactic):
		offset = syntactic.ByteOffset
	case errors.As(err, &semantic):
		offset = semantic.ByteOffset
	}
	return 1 + bytes.Count(text[:min(int64(len(text)), offset)], []byte("\n"))
}

// lineNaming is the line of the field that an error begins with.
func lineNaming(text []byte, err error) int {
	field, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), ":", " "), " ")
	before, _, found := bytes.Cut(text, []byte(`"`+field+`"`))
	if !found {
		return 1
	}
	return 1 + bytes.Count(before, []byte("\n"))
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "json: ")), " ")
}

// Write writes a calibration so that whoever looks sees the old file or the new one.
func (c *Calibration) Write(path string) error {
	text, err := json.Marshal(c, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return results.WriteFile(path, append(text, '\n'))
}
