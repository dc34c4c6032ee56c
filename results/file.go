package results

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// MaxDocumentBytes is the largest plan or environment that is read.
const MaxDocumentBytes = 4 << 20

// WriteFile puts data at path so that whoever looks sees the old file or the
// new one, whole, also after a crash. Two programs must not write one path at
// the same time; the file left by one that was killed on the way is replaced
// by the next.
func WriteFile(path string, data []byte) error {
	dir, name := filepath.Split(path)
	temporary := filepath.Join(dir, "."+name+".tmp")
	if err := writeSynced(temporary, data); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(dir)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes a new or renamed entry of a directory durable.
func syncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readDocument reads a whole small file, refusing one that is too large.
func readDocument(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(f, MaxDocumentBytes+1))
	if err != nil {
		return nil, err
	}
	if n > MaxDocumentBytes {
		return nil, fmt.Errorf("larger than %d bytes", MaxDocumentBytes)
	}
	return buf.Bytes(), nil
}
