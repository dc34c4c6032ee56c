package lookup

import "fmt"

// Outcome says what became of a packet.
type Outcome uint32

// The outcomes, in the order of enum outcome in lookup.bpf.c.
const (
	Answered Outcome = iota
	OtherTraffic
	PassHeaders
	PassChecksum
	PassMalformed
	PassSession
	PassEntry
	PassInode
	PassLocation
	PassInline
	PassSymlink
	PassChanging
	PassNoRoom

	outcomeEnd
)

var outcomeNames = [outcomeEnd]string{
	"answered", "other_traffic", "pass_headers", "pass_checksum", "pass_malformed", "pass_session", "pass_entry", "pass_inode",
	"pass_location", "pass_inline", "pass_symlink", "pass_changing", "pass_no_room",
}

// String returns the outcome's name as it stands in counters.
func (o Outcome) String() string { return outcomeNames[o] }

// Outcomes returns how many packets had each outcome since Open.
func (t *Table) Outcomes() (map[Outcome]uint64, error) {
	counts := make(map[Outcome]uint64, outcomeEnd)
	for o := range outcomeEnd {
		var perCPU []uint64
		if err := t.objects.Outcomes.Lookup(uint32(o), &perCPU); err != nil {
			return nil, fmt.Errorf("read the count of %s: %w", o, err)
		}
		for _, n := range perCPU {
			counts[o] += n
		}
	}
	return counts, nil
}
