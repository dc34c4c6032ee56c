package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"waggle/dfs/wire/control"
)

// Status asks any role at its control address what it is and what it has
// counted.
func Status(ctx context.Context, address string) (*control.RoleStatus, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, control.DialOptions(connectTime)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", address, err)
	}
	defer conn.Close()
	status, err := control.NewAdminClient(conn).Status(ctx, &control.Empty{})
	if err != nil {
		return nil, fmt.Errorf("ask the role at %s for its status: %w", address, fromStatus(err))
	}
	return status, nil
}

// Cluster describes the servers and what is stored.
func (c *Client) Cluster(ctx context.Context) (*control.ClusterReply, error) {
	reply, err := call(ctx, c, func(ctx context.Context, _ *session) (*control.ClusterReply, error) {
		return c.control.Cluster(ctx, &control.Empty{}, wait)
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the state of the cluster: %w", err)
	}
	return reply, nil
}

// Statuses asks the metadata server and every chunk server that is alive for
// its status. They are named by their control addresses.
func (c *Client) Statuses(ctx context.Context) (map[string]*control.RoleStatus, error) {
	cluster, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	addresses := []string{c.meta}
	for _, server := range cluster.Servers {
		if server.Alive {
			addresses = append(addresses, server.ControlAddress)
		}
	}
	statuses := make(map[string]*control.RoleStatus, len(addresses))
	for _, address := range addresses {
		status, failed := Status(ctx, address)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		statuses[address] = status
	}
	return statuses, err
}

// Check has the metadata server look for everything that is inconsistent, and
// tells what it finds and how far it is.
func (c *Client) Check(ctx context.Context, request *control.CheckRequest, tell func(*control.CheckProgress)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.control.Check(ctx, request)
	for err == nil {
		var progress *control.CheckProgress
		if progress, err = stream.Recv(); err == nil {
			tell(progress)
		}
	}
	if err == io.EOF {
		return nil
	}
	return fmt.Errorf("check the file system: %w", fromStatus(err))
}

// Chunk describes one chunk of a file.
type Chunk struct {
	Index    uint32   `json:"index"`
	ID       uint64   `json:"chunk"` // 0: a hole
	Epoch    uint64   `json:"epoch"`
	Replicas []string `json:"replicas"` // data addresses
}

// Chunks tells where the chunks of a file are. A small file has none.
func (c *Client) Chunks(ctx context.Context, path string) ([]Chunk, error) {
	f, err := c.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if isSmall(&f.known.Attributes) || isDirectory(f.known.Mode) {
		return nil, nil
	}
	var chunks []Chunk
	count := (f.known.Size + uint64(f.chunkSize) - 1) / uint64(f.chunkSize)
	for index := range uint32(count) {
		location, err := f.location(ctx, index)
		if err != nil {
			return nil, pathError("locate", path, err)
		}
		chunk := Chunk{Index: index, ID: location.Chunk, Epoch: location.Epoch}
		for _, r := range location.Replicas {
			chunk.Replicas = append(chunk.Replicas, r.Address.String())
		}
		chunks = append(chunks, chunk)
	}
	return chunks, nil
}
