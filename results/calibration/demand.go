package calibration

import "math"

// Demand is what an operation of a data path needs, as the path itself declares
// it: once an operation, and once a byte of payload. It holds what no ledger
// counts (which bytes go through TCP, over which a checksum is computed), and
// expectations of what one does count, by which the two are compared.
type Demand struct {
	Operation, Byte Work
	// ReplicaOperation and ReplicaByte come again for each replica but the first.
	ReplicaOperation, ReplicaByte Work
	// By is each role's share of the system calls of an operation without payload,
	// for paths whose processor time by role was never measured.
	By map[string]float64
	// InDriver says that the server's part is done within a soft interrupt, and
	// wakes nobody.
	InDriver bool
}

// Demands are those of all data paths, by names such as "read=copy".
type Demands map[string]Demand

// mostSegment is the largest piece of a TCP stream that crosses a link at once,
// where cards (or virtual links) cut it into packets themselves, in bytes.
const mostSegment = 65536

// At gives what an operation of so many bytes needs. Between hosts its bytes come
// in packets of at most mtu bytes, or in large segments where mtu is 0.
func (d Demand) At(size float64, replicas int, hosts bool, mtu float64) Work {
	w := d.Operation.Plus(size, d.Byte)
	if replicas > 1 {
		w = w.Plus(float64(replicas-1), d.ReplicaOperation).Plus(float64(replicas-1)*size, d.ReplicaByte)
	}
	if hosts {
		if mtu == 0 {
			mtu = mostSegment
		}
		// Each segment is acknowledged by a packet.
		w[Packet] += 2 * math.Ceil(w[TCPByte]/mtu)
	} else {
		delete(w, Packet)
	}
	return w
}
