// Package afxdp is the block transfer of read=afxdp: the data of an answer in
// datagrams, past the network stacks of both hosts.
//
//   - Requests and the headers of answers go by the data connection, as on every
//     path. The server sends an answer's data first and its header last, which so
//     says that all was sent.
//   - A datagram (datagram.go) carries a piece of the range: the ID of the frame
//     that asked, the offset in the chunk, the data and a CRC32C. A server reads
//     the replica right to where the kernel sends from (port.go), along the route
//     of the connection (route.go).
//   - The client has reserved a UDP port and told the server. A program on its
//     interface redirects this port's datagrams, and nothing else, to a socket
//     (receiver.go), and each is copied to where its transfer wants it
//     (transfer.go), in whatever order they come.
//   - What is missing after the header is lost; the client asks for its blocks
//     again, in a new frame, a limited number of times.
//   - The sender of a datagram is not authenticated. Whoever guesses the ID of a
//     frame can put wrong bytes into a range, but not the right checksums: those
//     come by the connection, for each block. Such a block is asked for again like
//     a torn one, and at last by a locked read, which no datagram is part of.
//
// Copies: pread into the shared memory, and from the client's shared memory to
// the reader; where a socket is not bound with zero copy, one more on each side,
// which the package counts for the ledger, since no system call names those bytes.
package afxdp
