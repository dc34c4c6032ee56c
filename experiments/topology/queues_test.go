package topology

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

func TestEachProcessorHasOneQueue(t *testing.T) {
	require.Equal(t, []int{1}, senders(2, 1))
	require.Equal(t, []int{0, 64, 128}, senders(129, 0))
	require.Equal(t, []int{63}, senders(127, 63))
}

func TestEachProcessorSendsOnAQueueOfItsOwn(t *testing.T) {
	if err := Supported(Hosts); err != nil {
		t.Skip(err)
	}
	o := options(Hosts)
	o.XDPPass = true
	n, err := Open(claimed(t), o)
	require.NoError(t, err)
	defer n.Close()
	processors, err := ebpf.PossibleCPU()
	require.NoError(t, err)
	for name, on := range map[string]*thread{hostLink: n.Host("a").thread, portName(2): n.bridge} {
		var masks []string
		require.NoError(t, onThread(on, func() (err error) {
			masks, err = readMasks(name)
			return err
		}))
		require.Len(t, masks, queues(processors), name)
		for queue, mask := range masks {
			// The kernel leaves out zeros at the front.
			require.Equal(t, strings.TrimLeft(processorMask(senders(processors, queue)), "0"), strings.TrimLeft(mask, "0,"), name)
		}
	}
}

// readMasks returns which processors send on each queue of an interface of the
// calling thread's namespace.
func readMasks(name string) (masks []string, err error) {
	sysfs, err := openSysfs()
	if err != nil {
		return nil, err
	}
	defer sysfs.Close()
	files, err := fs.Glob(sysfs.FS(), "class/net/"+name+"/queues/tx-*/xps_cpus")
	for _, file := range files {
		text, err := fs.ReadFile(sysfs.FS(), file)
		if err != nil {
			return nil, err
		}
		masks = append(masks, strings.TrimSpace(string(text)))
	}
	return masks, err
}
