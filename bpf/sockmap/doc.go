// Package sockmap moves bytes between TCP sockets inside the kernel. It has two
// parts, which share nothing but the idea.
//
// # Ingress: both ends in one kernel
//
// An [Ingress] puts what one end of a connection sends straight into the receive
// queue of the other, without TCP in between. A program on a control group
// (sockops) sees connections to chosen ports come about and puts their sockets
// into maps; a program on the maps (sk_msg) is asked about each message sent.
//
//   - Choosing connections. The dialling end decides: it can mark its socket
//     before it connects ([Mark]), and the accepting end joins if, and only if, the
//     dialling end is known in this kernel. So a server serves redirected and
//     plain connections side by side, and needs no word about it with the client.
//     The rejected way was to add sockets by descriptor, later: both processes
//     would have to pass descriptors to one owner, and a socket that joins late
//     has bytes on their way by TCP.
//   - Pairing. Addresses and ports don't name a connection, because network
//     namespaces reuse them. The first sequence number of each direction, which
//     both ends know, is part of the key.
//   - Order. A reader gets redirected bytes before those that came by TCP. A
//     message is redirected only if the reader's TCP position shows that it has
//     read all that was ever sent to it by TCP; otherwise the message goes by TCP
//     too. So both kinds can be mixed freely.
//   - Slow readers. The kernel lets the redirected queue grow until it is out of
//     memory for TCP, then fails the send. Above Config.QueueLimit messages go by
//     TCP, whose flow control blocks the sender. The limit can be exceeded by one
//     message, at most 17 of the kernel's 32 KiB fragments.
//   - Death of the owner. The attachment to the control group is a link that dies
//     with its descriptor. The programs on the maps are held by the sockets that
//     they serve, so connections that outlive an Ingress stay redirected, and the
//     last one to close takes the programs along. A socket never leaves a map
//     alive: it would lose what is queued.
//
// On an Ingress's connections use plain reads and writes. The reader's splice does
// not see redirected bytes: it says there is nothing, and whoever waits for more
// waits for ever (Go's TCPConn.WriteTo, and ReadFrom of another TCPConn). sendfile
// into such a connection works, but the kernel (6.18) copies the pages into the
// message. So it does for MSG_ZEROCOPY, and never reports that send's completion.
//
// # Relay: from one connection to another
//
// A [Relay] moves a counted number of bytes from one connection of a process to
// another, by the kernel's stream parser (sk_skb) on the source. The hard part is
// the count: a body begins and ends in the middle of buffers.
//
//   - The parser is told the bytes that are left, and cuts the buffers there. A
//     verdict without a parser could not: it decides about whole buffers, and
//     takes one that was partly read again from its start. Where in the buffer a
//     message begins is not in the program's context, so it is read from the
//     kernel's own structure.
//   - What lies behind the body is refused: the parser returns an error, which
//     stops it and leaves the bytes in TCP's queue. The error appears on the
//     socket (ECANCELED), wakes whoever waits, and is taken off again.
//   - A slow receiver is met the same way. The kernel would take from the source
//     without end; the parser refuses while more than HeldLimit bytes are not
//     acknowledged by the receiver, and TCP's flow control stops the sender.
//   - The kernel tells nobody that redirected bytes have reached the target's TCP.
//     It is found out from the target's own counts (acknowledged and queued).
//   - Leaving the map while a buffer is parsed loses what is in it. Once something
//     was refused that can't happen; a byte that arrives behind the body in the
//     instant of leaving could be lost, so the connection's position is compared
//     afterwards, and a loss is an error (ErrLost), never silent.
//
// [Relay.Relay] does that for any two connections, at the price of joining and
// leaving two maps: right for large bodies. A small body has arrived with its
// header before anyone could ask. For those a [Source] stays in its map; before
// the request is sent, [Source.Begin] says what the answer's header must look
// like and where its body goes. The header, an answer that differs, and all else
// is passed to user space, through a queue that splice does not see.
//
// What was learned about the kernel is in the tests, each hazard with its own.
package sockmap
