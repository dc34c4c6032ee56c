// Package congestion gives every TCP socket of the processes in a control group a
// congestion control, by a program on the group (sockops). It is for programs that
// can't be asked to set it themselves, as nginx: the machine's default would decide
// how fast they are, and their rivals not ask it.
package congestion

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" congestion congestion.bpf.c

// nameSize is the kernel's limit for the name of a congestion control, with the 0
// behind it, in bytes (TCP_CA_NAME_MAX).
const nameSize = 16

// Attached is the program on a control group.
type Attached struct {
	objects congestionObjects
	link    link.Link
}

// Attach has each socket of the control group with this directory, and of those
// below it, that connects, begins to listen or is accepted from now on use the
// congestion control of that name. It ends with Close, or with this process.
func Attach(cgroup, name string) (*Attached, error) {
	if name == "" || len(name) >= nameSize {
		return nil, fmt.Errorf("%q is no name of a congestion control: it has 1 to %d characters", name, nameSize-1)
	}
	spec, err := loadCongestion()
	if err != nil {
		return nil, fmt.Errorf("read the program that sets a congestion control: %w", err)
	}
	var wanted [nameSize]byte
	copy(wanted[:], name)
	if err := spec.Variables["wanted"].Set(wanted); err != nil {
		return nil, fmt.Errorf("set the name of a congestion control: %w", err)
	}
	a := &Attached{}
	if err := spec.LoadAndAssign(&a.objects, nil); err != nil {
		return nil, fmt.Errorf("load the program that sets a congestion control: %w", err)
	}
	a.link, err = link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: a.objects.SetCongestion})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach the program that sets a congestion control to control group %q: %w", cgroup, err), a.objects.Close())
	}
	return a, nil
}

// Refused is how many times the kernel did not let a socket have the congestion
// control.
func (a *Attached) Refused() (n uint64, err error) {
	if err := a.objects.Refused.Get(&n); err != nil {
		return 0, fmt.Errorf("read how many sockets were refused a congestion control: %w", err)
	}
	return n, nil
}

// Close detaches the program. Sockets keep what they were given.
func (a *Attached) Close() error { return errors.Join(a.link.Close(), a.objects.Close()) }
