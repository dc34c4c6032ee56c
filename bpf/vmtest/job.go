package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// jobFile is where the machine finds what to run, if it is not tests.
const jobFile = "job.json"

// job is a command to run in the machine.
type job struct {
	// Command is the name of a program that is in the machine, with its arguments.
	Command string
	// Fetch is the directory whose files are brought out when it has ended.
	Fetch string
	// Modules of the kernel to load first, by name, in this order.
	Modules []string
	into    string // where they are put
}

// runJob carries out a job in the machine.
func runJob(text []byte) error {
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	for _, name := range j.Modules {
		if err := loadModule(filepath.Join("/", testsDirectory, name)); err != nil {
			return err
		}
	}
	words := strings.Fields(j.Command)
	command := exec.Command(filepath.Join("/", testsDirectory, words[0]), words[1:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "TMPDIR=/tmp")
	err := command.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w", j.Command, err)
	}
	return errors.Join(err, sendFiles(j.Fetch)) // what a program left that failed says why
}

// The console is the machine's only way out: files leave on lines of their own.
const (
	fileMark  = "VM FILE "
	lineBytes = 3000
)

// sendFiles writes the files of a directory to the console.
func sendFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		for len(content) > 0 {
			n := min(lineBytes, len(content))
			fmt.Printf("%s%s %s\n", fileMark, e.Name(), base64.StdEncoding.EncodeToString(content[:n]))
			content = content[n:]
		}
	}
	return nil
}

// files are those that the machine sent, by name.
type files map[string][]byte

// add takes a line of the console if it is a part of a file.
func (f files) add(line string) bool {
	rest, ok := strings.CutPrefix(line, fileMark)
	name, encoded, two := strings.Cut(rest, " ")
	part, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || !two || err != nil || name != filepath.Base(name) {
		return false
	}
	f[name] = append(f[name], part...)
	return true
}

// write puts the files into a directory.
func (f files) write(dir string) error {
	if len(f) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, content := range f {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
