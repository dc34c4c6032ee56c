package store

import "github.com/cockroachdb/pebble/v2/vfs"

// logCategory is how the key-value store calls writes to its log.
const logCategory vfs.DiskWriteCategory = "pebble-wal"

// logAhead is how many bytes of a log are written as zeros before its records
// come to lie there. A record that overwrites what is on the disk already is
// durable after one write; one that makes the file longer waits for the file
// system's journal as well, which takes two to three times as long.
const logAhead = 4 << 20

// logsAhead is a file system that writes logs so. A log that is used again has
// been written before, but the store has such only after some time.
type logsAhead struct{ vfs.FS }

// Create implements vfs.FS.
func (fs logsAhead) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	if err != nil || category != logCategory {
		return f, err
	}
	return &logFile{File: f}, nil
}

// ReuseForWrite implements vfs.FS.
func (fs logsAhead) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(old, name, category)
	if err != nil || category != logCategory {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{File: f, zeroed: info.Size()}, nil
}

// logFile is a log that is written from front to back.
type logFile struct {
	vfs.File
	end    int64 // of what was written
	zeroed int64 // the file's length
}

// zeros is a piece of what is written ahead.
var zeros [256 << 10]byte

// Write implements io.Writer.
func (f *logFile) Write(p []byte) (int, error) {
	for f.end+int64(len(p)) > f.zeroed && f.writeAhead() == nil {
	}
	n, err := f.File.Write(p)
	f.end += int64(n)
	return n, err
}

// writeAhead makes the file longer. If that fails, as on a full disk, the record
// itself will say so, or still find room.
func (f *logFile) writeAhead() error {
	for range logAhead / len(zeros) {
		n, err := f.WriteAt(zeros[:], f.zeroed)
		f.zeroed += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
