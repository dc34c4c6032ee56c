package client

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/datapath"
)

// Errors beside those of package fs. Most errors also wrap a syscall.Errno.
var (
	// ErrBusy: another client is writing the same part of the file.
	ErrBusy = errors.New("another client is writing here")
	// ErrCorrupt: no replica has the bytes that were written.
	ErrCorrupt = errors.New("no intact replica")
	// ErrLost: bytes that a write was acknowledged for are not there any more, or it
	// can't be told whether they are; they were not synced yet. A *LostError says
	// which. Every use of the file tells it from then on.
	ErrLost = errors.New("acknowledged bytes are lost")
	// ErrLeaseLost: the session ended while writes were under way, and another
	// client has written since. What was not acknowledged is lost.
	ErrLeaseLost = errors.New("the lease to write was lost")
	// ErrUncertain: the connection was lost and then the session ended, so the
	// change may or may not have been made.
	ErrUncertain = errors.New("it is unknown whether the change was made")
	// ErrUnsupported: a server can't take the data path that was asked for.
	ErrUnsupported = datapath.ErrUnsupported
	errClosed      = errors.New("the client is closed")
	// ErrUnavailable: servers were away for longer than the client's patience.
	ErrUnavailable = errors.New("gave up")
)

// LostError names the bytes that were lost of a file: all are within the range.
type LostError struct {
	Inode          uint64
	Offset, Length uint64 // bytes
	reason         string
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%v: %d bytes at %d, which were not synced yet: %s; write them again", ErrLost, e.Length, e.Offset, e.reason)
}

// Unwrap makes it an ErrLost, and EIO for those who know errnos only.
func (e *LostError) Unwrap() []error { return []error{ErrLost, syscall.EIO} }

// remoteError is an error that a server answered with.
type remoteError struct {
	errno  syscall.Errno
	detail string // may be empty
}

func (e *remoteError) Error() string {
	if e.detail == "" {
		return e.errno.Error()
	}
	return e.errno.Error() + ": " + e.detail
}

func (e *remoteError) Unwrap() []error {
	switch e.errno {
	case syscall.EINVAL, syscall.ENAMETOOLONG:
		return []error{e.errno, fs.ErrInvalid}
	case syscall.EBUSY:
		return []error{e.errno, ErrBusy}
	}
	return []error{e.errno}
}

// errnos maps the names of errnos to them.
var errnos = func() map[string]syscall.Errno {
	m := make(map[string]syscall.Errno)
	for e := syscall.Errno(1); e < 256; e++ {
		if name := unix.ErrnoName(e); name != "" {
			m[name] = e
		}
	}
	return m
}()

// codeErrnos are the errnos that gRPC codes stand for where a message names none.
var codeErrnos = map[codes.Code]syscall.Errno{
	codes.NotFound:           syscall.ENOENT,
	codes.AlreadyExists:      syscall.EEXIST,
	codes.InvalidArgument:    syscall.EINVAL,
	codes.PermissionDenied:   syscall.EACCES,
	codes.FailedPrecondition: syscall.EINVAL,
	codes.ResourceExhausted:  syscall.ENOSPC,
	codes.Unimplemented:      syscall.ENOSYS,
}

// fromCode makes an error of a gRPC code and its message.
func fromCode(code codes.Code, message string) error {
	if name, detail, ok := strings.Cut(message, ": "); ok && errnos[name] != 0 {
		return &remoteError{errnos[name], detail}
	}
	switch code {
	case codes.NotFound, codes.AlreadyExists:
		return &remoteError{codeErrnos[code], ""} // the message only repeats the path
	}
	if errno := codeErrnos[code]; errno != 0 {
		return &remoteError{errno, message}
	}
	if _, cause, found := strings.Cut(message, "Error while dialing: "); found { // what gRPC wraps around it helps nobody
		return fmt.Errorf("metadata server: %s", strings.TrimSuffix(cause, `"`))
	}
	return fmt.Errorf("metadata server: %v: %s", code, message)
}

// isErrno says whether err stands for one of the errnos.
func isErrno(err error, list ...syscall.Errno) bool {
	for _, errno := range list {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func codeOf(err error) codes.Code { return status.Code(err) }

// pathError wraps err, if there is one, for the caller.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
