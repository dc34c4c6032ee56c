package sockmap

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Limits and defaults of an Ingress.
const (
	// MaxPorts bounds the ports that one Ingress serves.
	MaxPorts = 16
	// DefaultQueueLimit is enough for the largest answer of a chunk server.
	DefaultQueueLimit = 4 << 20
	// DefaultMaxConnections bounds the connections that an Ingress knows at once.
	DefaultMaxConnections = 16384
)

// Config says which connections an Ingress takes.
type Config struct {
	// Cgroup is the directory of the control group whose sockets are taken. Both
	// ends must have been made by processes in it or below it.
	Cgroup string
	// Ports are the ports that answerers listen on, at least one, at most MaxPorts.
	Ports []uint16
	// Mark, if not 0, leaves out connections dialled without it (see Dial).
	Mark uint32
	// BothWays redirects what the dialling end sends too.
	BothWays bool
	// QueueLimit bounds the bytes that wait, redirected, for one reader; above it
	// TCP's flow control is used. 0 means DefaultQueueLimit.
	QueueLimit uint32
	// MaxConnections bounds the ends of connections known at once; the others
	// stay with TCP. 0 means DefaultMaxConnections.
	MaxConnections uint32
}

// Ingress redirects what is sent on connections of this kernel into the
// receive queue of the other end. It belongs in the process that answers: its
// programs go when that process does, and with them what is queued.
type Ingress struct {
	objects ingressObjects
	link    link.Link
}

// NewIngress takes the connections that config chooses and that are established
// from now on.
func NewIngress(config Config) (*Ingress, error) {
	spec, err := config.spec()
	if err != nil {
		return nil, err
	}
	in := &Ingress{}
	if err := spec.LoadAndAssign(&in.objects, nil); err != nil {
		return nil, fmt.Errorf("load the programs of sockmap ingress: %w", err)
	}
	if err := in.attach(config); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

func (c Config) spec() (*ebpf.CollectionSpec, error) {
	if len(c.Ports) == 0 || len(c.Ports) > MaxPorts {
		return nil, fmt.Errorf("sockmap ingress for %d ports: name 1 to %d", len(c.Ports), MaxPorts)
	}
	spec, err := loadIngress()
	if err != nil {
		return nil, fmt.Errorf("read the programs of sockmap ingress: %w", err)
	}
	var ports [MaxPorts]uint32
	for i, p := range c.Ports {
		ports[i] = uint32(p)
	}
	for name, value := range map[string]any{
		"port_count":  uint32(len(c.Ports)),
		"ports":       ports,
		"only_mark":   c.Mark,
		"queue_limit": orDefault(c.QueueLimit, DefaultQueueLimit),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of sockmap ingress: %w", name, err)
		}
	}
	connections := orDefault(c.MaxConnections, DefaultMaxConnections)
	for _, name := range []string{"askers", "answerers", "addresses"} {
		spec.Maps[name].MaxEntries = connections
	}
	return spec, nil
}

func orDefault(value, otherwise uint32) uint32 {
	if value == 0 {
		return otherwise
	}
	return value
}

// attach puts the verdict on the maps before any socket can get into them.
func (in *Ingress) attach(c Config) error {
	maps := []*ebpf.Map{in.objects.Answerers}
	if c.BothWays {
		maps = append(maps, in.objects.Askers)
	}
	for _, m := range maps {
		err := link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: m.FD(), Program: in.objects.Verdict, Attach: ebpf.AttachSkMsgVerdict})
		if err != nil {
			return fmt.Errorf("attach the verdict to a socket map: %w", err)
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: c.Cgroup, Attach: ebpf.AttachCGroupSockOps, Program: in.objects.Track})
	if err != nil {
		return fmt.Errorf("attach to control group %q: %w", c.Cgroup, err)
	}
	in.link = l
	return nil
}

// Close gives every connection back to TCP. Bytes that were redirected and not
// yet read are lost: close the connections, or read them empty, first.
func (in *Ingress) Close() error {
	var err error
	if in.link != nil {
		err = in.link.Close()
	}
	return errors.Join(err, in.objects.Close())
}

// Joined says whether a connection of this process, at either end, is taken.
// For an answerer that means that its asker lives in this kernel.
func (in *Ingress) Joined(conn *net.TCPConn) (bool, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("look up %s in sockmap ingress: %w", conn.RemoteAddr(), err)
	}
	var lookup error
	err = raw.Control(func(fd uintptr) {
		var j ingressJoined
		lookup = in.objects.Joined.Lookup(int32(fd), &j)
	})
	if err == nil {
		err = lookup
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up %s in sockmap ingress: %w", conn.RemoteAddr(), err)
	}
	return true, nil
}

// Flow counts the bytes that were given to send in one direction. What TCP had no
// room for, and was therefore sent again, is counted each time.
type Flow struct {
	RedirectedBytes    uint64
	RedirectedMessages uint64
	// Passed to TCP, because the other end is not in this kernel, because its
	// queue is full, or because it has not yet read what came by TCP before.
	PassedRemoteBytes    uint64
	PassedFullBytes      uint64
	PassedUndrainedBytes uint64
	// FailedBytes were passed to TCP because the other end had left its map.
	FailedBytes uint64
}

// PassedBytes is what went by TCP for any reason.
func (f Flow) PassedBytes() uint64 {
	return f.PassedRemoteBytes + f.PassedFullBytes + f.PassedUndrainedBytes + f.FailedBytes
}

// Counters are the counts of all connections of an Ingress since it was made.
type Counters struct {
	Answers  Flow // sent by ends that accepted the connection
	Requests Flow // sent by ends that dialled; counted with BothWays only
}

// Counters sums the counts of all CPUs.
func (in *Ingress) Counters() (Counters, error) {
	var all Counters
	for direction, flow := range map[ingressDirection]*Flow{
		ingressDirectionANSWERS: &all.Answers, ingressDirectionREQUESTS: &all.Requests,
	} {
		var perCPU []ingressCounts
		if err := in.objects.Counters.Lookup(uint32(direction), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read the counters of sockmap ingress: %w", err)
		}
		for _, c := range perCPU {
			flow.RedirectedBytes += c.RedirectedBytes
			flow.RedirectedMessages += c.RedirectedMessages
			flow.PassedRemoteBytes += c.PassedRemoteBytes
			flow.PassedFullBytes += c.PassedFullBytes
			flow.PassedUndrainedBytes += c.PassedUndrainedBytes
			flow.FailedBytes += c.FailedBytes
		}
	}
	return all, nil
}

// Known returns how many ends of connections are known; 0 when all are closed.
func (in *Ingress) Known() (int, error) {
	n := 0
	var key ingressEnd
	var address uint64
	entries := in.objects.Addresses.Iterate()
	for entries.Next(&key, &address) {
		n++
	}
	if err := entries.Err(); err != nil {
		return 0, fmt.Errorf("count the ends that sockmap ingress knows: %w", err)
	}
	return n, nil
}

// Mark is for a net.Dialer's Control: it marks the socket, so that an Ingress
// with that Mark takes the connection. It needs CAP_NET_RAW or CAP_NET_ADMIN.
func Mark(mark uint32) func(network, address string, conn syscall.RawConn) error {
	return func(_, address string, conn syscall.RawConn) error {
		var set error
		err := conn.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		})
		if err = errors.Join(err, set); err != nil {
			return fmt.Errorf("mark the connection to %s: %w", address, err)
		}
		return nil
	}
}
