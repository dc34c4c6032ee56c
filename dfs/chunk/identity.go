package chunk

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// identity is who a data directory belongs to. A new one has only a nonce, until the
// metadata server gives it a number. If the answer with the number is lost, the next
// one is for the same nonce, and so the same.
type identity struct {
	Nonce   []byte `json:"nonce,omitempty"`
	Cluster []byte `json:"cluster,omitempty"`
	Server  uint32 `json:"server,omitempty"`
}

const (
	nonceSize       = 16
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
	err = json.Unmarshal(b, &id)
	joined := len(id.Cluster) != 0 && id.Server != 0
	fresh := len(id.Nonce) == nonceSize && len(id.Cluster) == 0 && id.Server == 0
	if err != nil || !joined && !fresh {
		return id, fmt.Errorf("%s names no cluster and server (%v): restore it, or use a new data directory", path, err)
	}
	return id, nil
}

// withNonce returns the identity of a new directory, stored before anybody is told.
func (id identity) withNonce(directory string) (identity, error) {
	if id.Server != 0 || len(id.Nonce) > 0 {
		return id, nil
	}
	id.Nonce = make([]byte, nonceSize)
	rand.Read(id.Nonce)
	return id, id.write(directory)
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
