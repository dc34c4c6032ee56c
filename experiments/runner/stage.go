package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"waggle/bpf/faults"
	"waggle/dfs/wire/control"
	"waggle/experiments/spec"
	"waggle/experiments/topology"
	"waggle/experiments/workload"
	"waggle/results"
)

// Names of roles and hosts.
const (
	roleMeta    = "meta"
	roleChunk   = "chunk"
	roleClient  = "client"
	roleFloor   = "floor"
	roleGateway = "gateway"
	roleOrigin  = "origin" // of what nginx passes on
)

// How long roles have to be ready after their start, and to end when asked to.
const (
	startPatience = 20 * time.Second
	stopPatience  = 1500 * time.Millisecond
)

// stageKey is what cells must have in common to run on one stage: everything
// that is decided when roles start. Read and write paths are chosen by
// connection, so cells that differ in them share one, and a stage can have a
// gateway for each relay path.
type stageKey struct {
	topology     string
	chunkServers int
	lookup       string
	mtu          int
	offload      bool
	xdpPass      bool
	faults       faults.Rule
	gateway      bool // there is a host for it
	gatewayApart bool // whose packets its own processors receive
	congestion   string
	harmless     spec.Harmless
	revision     string
}

func keyOf(p spec.Parameters) stageKey {
	k := stageKey{topology: p.Topology, chunkServers: p.ChunkServers, lookup: p.Lookup, mtu: p.MTUBytes, offload: p.Offload, xdpPass: p.XDPPass,
		gateway: p.Workload == spec.HTTPGet, gatewayApart: p.Pin == spec.PinGateway, congestion: p.Congestion, harmless: decidedAtStart(p), revision: p.Revision}
	if p.HasFaults() {
		k.faults = faults.Rule{Seed: 1, Drop: p.LossPercent / 100, Duplicate: p.DuplicatePercent / 100, Hold: p.ReorderPercent / 100}
	}
	if results.IsFloor(k.lookup) {
		k.lookup = "udp"
	}
	return k
}

// hasReflector says whether the floor of lookups in the driver is on the stage, on a
// host of its own: where there is an XDP program on each link, and with the rivals
// that start the same.
func (k stageKey) hasReflector() bool {
	return k.topology == spec.Hosts && k.xdpPass && k.lookup == "udp"
}

// stage is a network with the roles on it: a load generator, and as cells need
// them a cluster and the floor control. It is kept up from trial to trial.
type stage struct {
	key       stageKey
	name      string // unique in the run
	slot      int    // unique among the stages that are up
	run       *run
	network   *topology.Network
	generator *workload.Generator
	roles     []*role
	// dataSets are those that are in place.
	dataSets map[string]bool

	meta               string // the metadata server's address; "" without a cluster
	floorTCP, floorUDP string // "" without a floor control
	floorXDP           string // "" without a reflector
	// gateways are those that are up: their addresses, by relay and read path.
	gateways map[[2]string]string
	origin   string // the address of what nginx passes on; "" without nginx
}

// role is a process of a stage.
type role struct {
	*topology.Process
	admin control.AdminClient // nil for those that are asked in another way
	conn  *grpc.ClientConn
}

func chunkHost(i int) string { return fmt.Sprintf("chunk-%d", i+1) }

// openStage makes the network and starts the load generator.
func (r *run) openStage(k stageKey) (*stage, error) {
	r.stagesOpened++
	s := &stage{key: k, name: fmt.Sprintf("stage-%d", r.stagesOpened), slot: r.freeSlot(), run: r, dataSets: map[string]bool{}, gateways: map[[2]string]string{}}
	hosts := []string{roleMeta, roleClient}
	if k.gateway {
		hosts = append(hosts, roleGateway)
	}
	for i := range k.chunkServers {
		hosts = append(hosts, chunkHost(i))
	}
	if k.hasReflector() {
		hosts = append(hosts, roleFloor)
	}
	if k.harmless.LinkReverse {
		slices.Reverse(hosts)
	}
	o := topology.Options{Kind: k.topology, Hosts: hosts, MTU: k.mtu, Offload: k.offload, XDPPass: k.xdpPass, Faults: k.faults, Sysctls: k.sysctls()}
	switch { // who brings a program
	case k.lookup == "xdp":
		o.XDPFree = []string{roleMeta}
	case k.hasReflector():
		o.XDPFree = []string{roleFloor}
	}
	if k.gatewayApart {
		all, err := ownProcessors()
		if err != nil {
			return nil, err
		}
		o.Receiving = receiving(all)
		for _, host := range hosts {
			if host != roleGateway {
				o.Receiving[host] = o.Receiving[""]
			}
		}
	}
	network, err := topology.Open(r.owner, o)
	if err != nil {
		return nil, err
	}
	s.network = network
	client, err := s.start(roleClient, roleClient, roleClient, s.waggle("load"))
	if err != nil {
		s.close()
		return nil, err
	}
	s.generator = workload.NewGenerator(client.Input, client.Output)
	return s, nil
}

// waggle is the command line of a role of ours.
func (s *stage) waggle(arguments ...string) []string {
	return append([]string{s.run.options.program(s.key.revision)}, arguments...)
}

// start starts a role on a host under a name that no other of the stage has.
func (s *stage) start(kind, host, name string, command []string) (*role, error) {
	name = s.name + "-" + name
	c := topology.Command{
		Role: kind, Name: name, Args: command,
		Log: filepath.Join(s.run.logs, name+".log"), Pipes: true,
	}
	s.holdCongestion(&c)
	c.Env = append(c.Env, s.key.environment()...)
	p, err := s.network.Host(host).Start(c)
	if err != nil {
		return nil, err
	}
	started := &role{Process: p}
	s.roles = append(s.roles, started)
	return started, s.run.ledger.add(s, started)
}

// kinds are those of the roles that are up.
func (s *stage) kinds() (kinds []string) {
	for _, r := range s.roles {
		if !slices.Contains(kinds, r.Role) {
			kinds = append(kinds, r.Role)
		}
	}
	return kinds
}

// scratch makes a directory for a role's data.
func (s *stage) scratch(host string) (string, error) {
	dir := filepath.Join(s.run.owner.Scratch, s.name, host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a role's directory: %w", err)
	}
	return dir, nil
}

// firstLine reads the line by which a role says that it is ready, and where.
func (s *stage) firstLine(ctx context.Context, r *role) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	pipe := r.Output.(*os.File)
	defer context.AfterFunc(ctx, func() { _ = pipe.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(io.LimitReader(pipe, 4096)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s is not ready: %w: see its log, %s.log", r.Name, err, r.Name)
	}
	return line, nil
}

// addressAfter finds the address that a role named behind a word in its line.
func addressAfter(line, word string) (string, error) {
	fields := strings.Fields(strings.ReplaceAll(line, ",", " "))
	for i := range len(fields) - 2 {
		if fields[i] == word && fields[i+1] == "on" {
			return fields[i+2], nil
		}
	}
	return "", fmt.Errorf("a role said %q, which names no address for %s", strings.TrimSpace(line), word)
}

// needCluster starts the metadata server and the chunk servers.
func (s *stage) needCluster(ctx context.Context) error {
	if s.meta != "" {
		return nil
	}
	meta, err := s.startMeta(ctx)
	if err != nil {
		return err
	}
	for i := range s.key.chunkServers {
		if err := s.startChunk(ctx, chunkHost(i), meta); err != nil {
			return err
		}
	}
	if err := s.waitForServers(ctx, meta); err != nil {
		return err
	}
	s.meta = meta
	return nil
}

func (s *stage) startMeta(ctx context.Context) (address string, err error) {
	dir, err := s.scratch(roleMeta)
	if err != nil {
		return "", err
	}
	ip := s.network.Host(roleMeta).Address.String()
	r, err := s.start(roleMeta, roleMeta, roleMeta,
		s.waggle("meta", "--dir", dir, "--address", ip+":0", "--lookup-address", ip+":0", "--lookup", s.key.lookup,
			"--trash-time", "0")) // what a workload removes must not fill the disk of the next trial
	if err != nil {
		return "", err
	}
	line, err := s.firstLine(ctx, r)
	if err != nil {
		return "", err
	}
	if address, err = addressAfter(line, "control"); err != nil {
		return "", err
	}
	return address, s.dialAdmin(r, address)
}

// startChunk starts a chunk server. It does not look for damage in the
// background: that is work that no cell asked for.
func (s *stage) startChunk(ctx context.Context, host, meta string) error {
	dir, err := s.scratch(host)
	if err != nil {
		return err
	}
	ip := s.network.Host(host).Address.String()
	arguments := []string{"chunk", "--dir", dir, "--meta", meta,
		"--data-address", ip + ":0", "--control-address", ip + ":0", "--scrub-rate", "0"}
	if cgroup := s.run.owner.Cgroup(); cgroup != "" && s.run.support.reasons["read=sockmap+copy"] == nil {
		arguments = append(arguments, "--sockmap-cgroup", cgroup)
	}
	r, err := s.start(roleChunk, host, host, s.waggle(arguments...))
	if err != nil {
		return err
	}
	line, err := s.firstLine(ctx, r)
	if err != nil {
		return err
	}
	address, err := addressAfter(line, "control")
	if err != nil {
		return err
	}
	return s.dialAdmin(r, address)
}

func (s *stage) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return s.network.Dial(ctx, "tcp", address)
		}))
}

func (s *stage) dialAdmin(r *role, address string) error {
	conn, err := s.dial(address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", r.Name, err)
	}
	r.conn, r.admin = conn, control.NewAdminClient(conn)
	return nil
}

// waitForServers waits until all chunk servers have registered.
func (s *stage) waitForServers(ctx context.Context, meta string) error {
	conn, err := s.dial(meta)
	if err != nil {
		return fmt.Errorf("connect to the metadata server: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		cluster, err := control.NewMetaClient(conn).Cluster(ctx, &control.Empty{}, grpc.WaitForReady(true))
		if err != nil {
			return fmt.Errorf("wait for the chunk servers: %w", err)
		}
		alive := 0
		for _, server := range cluster.Servers {
			if server.Alive {
				alive++
			}
		}
		if alive == s.key.chunkServers {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// needFloor starts the floor control, where the first chunk server is.
func (s *stage) needFloor(ctx context.Context) error {
	if s.floorTCP != "" {
		return nil
	}
	dir, err := s.scratch(roleFloor)
	if err != nil {
		return err
	}
	host := chunkHost(0)
	r, err := s.start(roleFloor, host, roleFloor, s.waggle("floor", "--dir", dir, "--address", s.network.Host(host).Address.String()))
	if err != nil {
		return err
	}
	line, err := s.firstLine(ctx, r)
	if err != nil {
		return err
	}
	tcp, err := addressAfter(line, "tcp")
	if err != nil {
		return err
	}
	if s.floorUDP, err = addressAfter(line, "udp"); err != nil {
		return err
	}
	s.floorTCP = tcp
	return nil
}

// needReflector has the floor's host send datagrams back. Nothing listens behind it.
func (s *stage) needReflector() error {
	if s.floorXDP != "" {
		return nil
	}
	at, err := s.network.Reflect(roleFloor)
	if err != nil {
		return err
	}
	s.floorXDP = at.String()
	return nil
}

// prepare makes ready what a job needs, and fills in where it is.
func (s *stage) prepare(ctx context.Context, j *workload.Job) error {
	if err := s.needRoles(ctx, j.Parameters); err != nil {
		return fmt.Errorf("%w the roles: %w", errStart, err)
	}
	j.Meta, j.FloorTCP, j.FloorUDP = s.meta, s.floorTCP, s.floorUDP
	if j.Parameters.Lookup == spec.FloorXDP {
		j.FloorUDP = s.floorXDP
	}
	if j.Parameters.Workload == spec.HTTPGet {
		j.Gateway = s.gateways[gatewayOf(j.Parameters)]
	}
	if j.Parameters.Relay == spec.Nginx {
		j.Origin = s.origin
	}
	set := j.DataSet()
	if set == "" || s.dataSets[set] {
		return nil
	}
	if err := s.generator.Prepare(ctx, j); err != nil {
		return fmt.Errorf("prepare the data set: %w", err)
	}
	s.dataSets[set] = true
	return nil
}

// needRoles starts the roles that a cell needs and that are not up.
func (s *stage) needRoles(ctx context.Context, p spec.Parameters) error {
	switch {
	case p.Lookup == spec.FloorXDP:
		return s.needReflector()
	case p.OnFloor():
		return s.needFloor(ctx)
	case p.Workload == spec.HTTPGet:
		return s.needGateway(ctx, p)
	}
	return s.needCluster(ctx)
}

// died says which roles have ended by themselves, or nil.
func (s *stage) died() error {
	var failed error
	for _, r := range s.roles {
		failed = errors.Join(failed, r.Ended())
	}
	return failed
}

// watch returns a context that ends when a role of the stage does.
func (s *stage) watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	for _, r := range s.roles {
		go func() {
			select {
			case <-r.Done():
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}

// close ends the stage. Roles are asked to end, all at once.
func (s *stage) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	stopped := make(chan struct{})
	for _, r := range s.roles {
		go func() {
			if r.conn != nil {
				r.conn.Close()
			}
			r.Stop(ctx)
			stopped <- struct{}{}
		}()
	}
	for range s.roles {
		<-stopped
	}
	s.network.Close()
	// Of no use any more; Owner.Close removes what could not be removed now.
	_ = os.RemoveAll(filepath.Join(s.run.owner.Scratch, s.name))
}
