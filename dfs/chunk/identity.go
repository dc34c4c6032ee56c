package chunk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// identity is who a data directory belongs to. A new one is empty, until the
// metadata server gives it a number.
type identity struct {
	Cluster []byte `json:"cluster,omitempty"`
	Server  uint32 `json:"server,omitempty"`
}

const (
	identityName    = "identity.json"
	maxIdentitySize = 4 << 10
)

func readIdentity(directory string) (identity, error) {
	path := filepath.Join(directory, identityName)
	var id identity
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return id, nil
	case err != nil:
		return id, fmt.Errorf("read who the data directory belongs to: %w", err)
	case len(b) > maxIdentitySize:
		return id, fmt.Errorf("%s has %d bytes, at most %d are possible: restore it, or use a new data directory", path, len(b), maxIdentitySize)
	}
	if err := json.Unmarshal(b, &id); err != nil || len(id.Cluster) == 0 || id.Server == 0 {
		return id, fmt.Errorf("%s names no cluster and server (%v): restore it, or use a new data directory", path, err)
	}
	return id, nil
}

// write stores the identity durably, or leaves the old one.
func (id identity) write(directory string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("store who the data directory belongs to: %w", err)
		}
	}()
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	path := filepath.Join(directory, identityName)
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	d, err := os.Open(directory)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
