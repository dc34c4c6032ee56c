package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"waggle/dfs/datapath"
	"waggle/experiments/spec"
)

// relay=nginx puts the gateway beside a program that is known to be fast. One
// nginx, the origin, has the data set as files, where the first chunk server
// would be, and sends them with sendfile. Another, on the gateway's host, passes
// them on. There are no lookups and no checksums, so it has less to do than the
// gateway of a file system: as the floor control, it is a bound, not a rival.

// Each is a single process, which ends with ours and can be pinned: a worker of
// nginx outlives a master that is killed. One event loop is enough for what one
// client asks for at a time.
const nginxCommon = `daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	sendfile on;
	tcp_nopush on;
	tcp_nodelay on;
	keepalive_timeout 1h;
	keepalive_time 1d;
	keepalive_requests 1000000000;
	client_max_body_size 0;
`

// originConfig has files in a directory "files", which PUT makes.
const originConfig = nginxCommon + `
	open_file_cache max=4096 inactive=1h;
	server {
		listen %s;
		root files;
		location / { dav_methods PUT; create_full_put_path on; }
	}
}
`

// proxyConfig keeps its connections to the origin, and never a body on disk. Its
// buffers hold a part of a large body in few pieces.
const proxyConfig = nginxCommon + `
	upstream origin {
		server %[2]s;
		keepalive 512;
		keepalive_time 1d;
		keepalive_timeout 1h;
		keepalive_requests 1000000000;
	}
	server {
		listen %[1]s;
		location / {
			proxy_pass http://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering on;
			proxy_buffer_size 64k;
			proxy_buffers 16 64k;
			proxy_busy_buffers_size 512k;
			proxy_max_temp_file_size 0;
		}
	}
}
`

// nginxPort is free: the roles of a host of its own listen on what the kernel
// chooses, which is never below 32768 unless somebody has changed that.
const nginxPort = 8080

// nginxProgram finds nginx, which is not on everybody's path.
func nginxProgram() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("relay=%s: %w: there is no program nginx (on Debian: apt-get install nginx-core)", spec.Nginx, datapath.ErrUnsupported)
}

// nginxSupported has nginx read both configurations.
func nginxSupported() error {
	program, err := nginxProgram()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "waggle-nginx-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address := fmt.Sprintf("127.0.0.1:%d", nginxPort) // may be taken: this only reads
	for _, config := range []string{fmt.Sprintf(originConfig, address), fmt.Sprintf(proxyConfig, address, address)} {
		if err := writeNginx(dir, config); err != nil {
			return err
		}
		if said, err := exec.Command(program, append(nginxArguments(dir), "-t")...).CombinedOutput(); err != nil {
			return fmt.Errorf("relay=%s: %w: nginx refuses its configuration: %s", spec.Nginx, datapath.ErrUnsupported, strings.TrimSpace(string(said)))
		}
	}
	return nil
}

func nginxArguments(dir string) []string {
	return []string{"-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")}
}

func writeNginx(dir, config string) error {
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("write nginx's configuration: %w", err)
	}
	return nil
}

func (s *stage) startNginx(ctx context.Context, _ spec.Parameters) (address string, err error) {
	origin := fmt.Sprintf("%s:%d", s.network.Host(chunkHost(0)).Address, nginxPort)
	if err := s.runNginx(ctx, roleOrigin, chunkHost(0), origin, fmt.Sprintf(originConfig, origin)); err != nil {
		return "", err
	}
	address = fmt.Sprintf("%s:%d", s.network.Host(roleGateway).Address, nginxPort)
	if err := s.runNginx(ctx, roleGateway, roleGateway, address, fmt.Sprintf(proxyConfig, address, origin)); err != nil {
		return "", err
	}
	s.origin = origin
	return address, nil
}

// nginxEnvironment has the C library keep the memory of one request for the next:
// otherwise each would take a page fault for each page of its buffers.
var nginxEnvironment = []string{"env", "MALLOC_TRIM_THRESHOLD_=268435456", "MALLOC_MMAP_THRESHOLD_=268435456"}

func (s *stage) runNginx(ctx context.Context, kind, host, address, config string) error {
	name := kind + "-" + spec.Nginx
	dir, err := s.scratch(name)
	if err != nil {
		return err
	}
	if err := writeNginx(dir, config); err != nil {
		return err
	}
	program, err := nginxProgram()
	if err != nil {
		return err
	}
	r, err := s.start(kind, host, name, slices.Concat(nginxEnvironment, []string{program}, nginxArguments(dir)))
	if err != nil {
		return err
	}
	return s.awaitListener(ctx, r, address)
}

// awaitListener waits until a role, which does not say so, accepts connections.
func (s *stage) awaitListener(ctx context.Context, r *role, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		conn, err := s.network.Dial(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if ended := r.Ended(); ended != nil {
			return errors.Join(ended, fmt.Errorf("see its log, %s.log", r.Name))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ready: %w: see its log, %s.log", r.Name, err, r.Name)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
