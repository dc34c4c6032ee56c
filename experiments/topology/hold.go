package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Settings of the machine that an owner may change, by their files. Nothing else is
// ever written, whatever a file that was left behind says.
const (
	HugePages   = "/sys/kernel/mm/transparent_hugepage/enabled"
	Autocorking = "/proc/sys/net/ipv4/tcp_autocorking"
)

var holdable = []string{HugePages, Autocorking}

// heldFile, in the scratch directory, says what the settings were that an owner has
// changed. It is there before any of them is changed, so that the next run's Sweep can
// restore them if the owner was killed.
const heldFile = "machine-settings.json"

// holding is what an owner has changed: what each setting was.
type holding map[string]string

// Hold has the machine's settings be as wanted, by their files, and all others that the
// owner has changed be what they were. Close restores all.
func (o *Owner) Hold(wanted map[string]string) error {
	for path := range o.held {
		if _, still := wanted[path]; !still {
			if err := o.letGo(path); err != nil {
				return err
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		if err := o.hold(path, wanted[path]); err != nil {
			return fmt.Errorf("set %s to %q: %w", filepath.Base(path), wanted[path], err)
		}
	}
	return nil
}

func (o *Owner) hold(path, value string) error {
	if !slices.Contains(holdable, path) {
		return errors.New("no setting that a run may change")
	}
	now, err := readSetting(path)
	if err != nil || now == value {
		return err
	}
	if _, held := o.held[path]; !held {
		if o.held == nil {
			o.held = holding{}
		}
		o.held[path] = now
		if err := o.held.write(filepath.Join(o.Scratch, heldFile)); err != nil {
			delete(o.held, path)
			return err
		}
	}
	return os.WriteFile(path, []byte(value), 0)
}

func (o *Owner) letGo(path string) error {
	if err := os.WriteFile(path, []byte(o.held[path]), 0); err != nil {
		return fmt.Errorf("restore %s to %q: %w", filepath.Base(path), o.held[path], err)
	}
	delete(o.held, path)
	return o.held.write(filepath.Join(o.Scratch, heldFile))
}

// write replaces the file whole.
func (h holding) write(path string) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// restore makes the settings what a file says that they were; there need not be one.
func restore(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore the machine's settings: %w", err)
	}
	var held holding
	if err := json.Unmarshal(text, &held); err != nil {
		return fmt.Errorf("restore the machine's settings: %w", err)
	}
	for path, value := range held {
		if !slices.Contains(holdable, path) {
			return fmt.Errorf("restore the machine's settings: %q is none that a run may change", path)
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("restore %s to %q: %w", filepath.Base(path), value, err)
		}
	}
	return nil
}

// readSetting reads what a setting is; of a list of values, that in brackets.
func readSetting(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(text))
	if _, rest, ok := strings.Cut(value, "["); ok {
		value, _, _ = strings.Cut(rest, "]")
	}
	return value, nil
}
