package lookup

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// programName is what the kernel calls the program.
const programName = "answer_lookups"

// AnswersAt says whether an interface, by its index, has the program for a port:
// this process's, another's, or that of one that was killed, which the kernel may
// still be taking apart. It needs CAP_SYS_ADMIN.
func AnswersAt(index int, port uint16) (bool, error) {
	device, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, fmt.Errorf("look for a lookup program on interface %d: %w", index, err)
	}
	xdp := device.Attrs().Xdp
	if xdp == nil || !xdp.Attached || xdp.ProgId == 0 {
		return false, nil
	}
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId))
	if err != nil {
		return false, fmt.Errorf("look at the XDP program of %s: %w", device.Attrs().Name, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil || info.Name != programName {
		return false, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		if is, err := speaksFor(id, port); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// speaksFor says whether a map holds the program's constants, with that port.
func speaksFor(id ebpf.MapID, port uint16) (bool, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return false, fmt.Errorf("look at a map of the lookup program: %w", err)
	}
	defer m.Close()
	if info, err := m.Info(); err != nil || !strings.HasSuffix(info.Name, ".rodata") {
		return false, err
	}
	spec, err := loadLookup()
	if err != nil {
		return false, err
	}
	constants, err := m.LookupBytes(uint32(0))
	if err != nil {
		return false, fmt.Errorf("read the constants of the lookup program: %w", err)
	}
	at := int(spec.Variables["server_port"].Offset)
	return len(constants) >= at+2 && binary.BigEndian.Uint16(constants[at:]) == port, nil
}
