// Package xdppass attaches an XDP program that passes every packet. A veth needs
// one at its end for XDP_TX and XDP_REDIRECT at the other to be received, and an
// XDP program changes how its link behaves (no segmentation offload, one page a
// packet): so a fair comparison gives the rivals' links this one.
package xdppass

import (
	"fmt"
	"net"

	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" pass pass.bpf.c

// Attach puts the program on an interface of the calling thread's network
// namespace, in native mode. It stays until the link is closed or the process
// ends.
func Attach(interfaceName string) (link.Link, error) {
	i, err := net.InterfaceByName(interfaceName)
	if err != nil {
		return nil, fmt.Errorf("attach a passing XDP program to %q: %w", interfaceName, err)
	}
	var objects passObjects
	if err := loadPassObjects(&objects, nil); err != nil {
		return nil, fmt.Errorf("load a passing XDP program: %w", err)
	}
	defer objects.Close() // the link holds the program
	attached, err := link.AttachXDP(link.XDPOptions{Program: objects.Pass, Interface: i.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, fmt.Errorf("attach a passing XDP program to %s: %w", interfaceName, err)
	}
	return attached, nil
}
