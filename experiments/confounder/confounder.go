// Package confounder reads the settings of the machine that are known to move a
// result, although nobody studies them: how TCP paces itself, how fast the processors
// are allowed to be, who else wants them. Each run records them, and `waggle doctor`
// says which are unusual and what to do about it.
//
//   - confounder.go: what a setting is, and the list of all.
//   - network.go, processor.go, system.go: where each is found, and what is usual.
//
// A new one takes a line in one of the tables.
package confounder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Setting is one of the machine, as it is now.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Warning says what is unusual about it and what to do, "" if nothing is.
	Warning string `json:"warning,omitempty"`
}

// source is where a setting is found.
type source struct {
	name string
	// read gives the value; "" if this machine does not have such a thing.
	read func() (string, error)
	// judge returns a warning about a value, or "".
	judge func(value string) string
}

// Read reads all settings. Scratch is the directory that the roles' data is in, "" if
// that is not known. A setting that this machine or this user can't read is left out.
func Read(scratch string) []Setting {
	var all []Setting
	for _, s := range slices.Concat(network, processors, system, []source{fileSystem(scratch)}) {
		value, err := s.read()
		if err != nil || value == "" {
			continue
		}
		setting := Setting{Name: s.name, Value: value}
		if s.judge != nil {
			setting.Warning = s.judge(value)
		}
		all = append(all, setting)
	}
	return all
}

// Warnings are those of the settings, with their names and values in front.
func Warnings(settings []Setting) (list []string) {
	for _, s := range settings {
		if s.Warning != "" {
			list = append(list, fmt.Sprintf("%s is %s: %s", s.Name, s.Value, s.Warning))
		}
	}
	return list
}

// file reads a setting from a file of the kernel's, on one line.
func file(path string) func() (string, error) {
	return func() (string, error) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return strings.Join(strings.Fields(string(text)), " "), err
	}
}

// chosen reads a setting from a file that lists what there is, with brackets around
// what is chosen.
func chosen(path string) func() (string, error) {
	read := file(path)
	return func() (string, error) {
		text, err := read()
		if _, rest, ok := strings.Cut(text, "["); ok {
			text, _, _ = strings.Cut(rest, "]")
		}
		return text, err
	}
}

// unless warns of every value that is not one of those that are usual.
func unless(warning string, usual ...string) func(string) string {
	return func(value string) string {
		if slices.Contains(usual, value) {
			return ""
		}
		return warning
	}
}
