// Package sockmap moves bytes between TCP sockets inside the kernel, past the
// parts of it that copying through user space, or through TCP, would cost.
package sockmap
