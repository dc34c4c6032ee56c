package topology

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// maxQueues is how many queues a link has at most.
const maxQueues = 64

// queues is how many queues a link has that is to be like a network card's: one
// for each processor. With a single one, as a veth has by itself, processors wait
// for each other's packets to be received.
func queues(processors int) int { return min(processors, maxQueues) }

// spreadQueues has each processor send on a queue of its own, as drivers of
// network cards do. The interface is of the calling thread's network namespace.
func spreadQueues(name string) error {
	processors, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the processors: %w", err)
	}
	sysfs, err := openSysfs()
	if err != nil {
		return fmt.Errorf("open the sysfs of a network namespace: %w", err)
	}
	defer sysfs.Close()
	count := queues(processors)
	for queue := range count {
		file := fmt.Sprintf("class/net/%s/queues/tx-%d/xps_cpus", name, queue)
		if err := sysfs.WriteFile(file, []byte(processorMask(senders(processors, queue))), 0); err != nil {
			return fmt.Errorf("give processors a queue of %s: %w", name, err)
		}
	}
	return nil
}

// senders are the processors that send on a queue.
func senders(processors, queue int) (list []int) {
	for p := queue; p < processors; p += queues(processors) {
		list = append(list, p)
	}
	return list
}

// openSysfs opens a sysfs that shows the calling thread's network namespace. The
// mounted one shows that of whoever mounted it.
func openSysfs() (*os.Root, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", mount))
}
