package copies

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A Report is what a person or a program wants to know about some counts: the form that
// `waggle copies --json` prints.
type Report struct {
	Target       string        `json:"target"`
	Backend      Backend       `json:"backend"`
	Reason       string        `json:"reason"` // why this backend
	Seconds      float64       `json:"seconds"`
	PayloadBytes uint64        `json:"payload_bytes,omitempty"` // 0: not said
	Copies       Copied        `json:"copies"`
	NotCopied    NotCopiedRows `json:"not_copied"`
	Activity     Activity      `json:"activity"`
	Rows         []ReportRow   `json:"rows"`
	Sites        []ReportSite  `json:"sites,omitempty"`
	Losses       Losses        `json:"losses"`
}

// Copied are the bytes that the CPU copied.
type Copied struct {
	UserToKernelBytes uint64   `json:"user_to_kernel_bytes"`
	KernelToUserBytes uint64   `json:"kernel_to_user_bytes"`
	InKernelBytes     *uint64  `json:"in_kernel_bytes,omitempty"` // nil: backend boundary can't see them
	PerPayloadByte    *float64 `json:"per_payload_byte,omitempty"`
}

// Total of all directions that were measured.
func (c Copied) Total() uint64 {
	total := c.UserToKernelBytes + c.KernelToUserBytes
	if c.InKernelBytes != nil {
		total += *c.InKernelBytes
	}
	return total
}

// Copied adds up what was copied: from the copying functions if backend sites counted them,
// else from what crossed the boundary.
func (c Counts) Copied() Copied {
	if c.Sites == nil {
		return Copied{UserToKernelBytes: c.Crossed(UserToKernel), KernelToUserBytes: c.Crossed(KernelToUser)}
	}
	var sums [InKernel + 1]uint64
	for site, count := range c.Sites {
		sums[site.Direction] += count.Bytes
	}
	return Copied{UserToKernelBytes: sums[UserToKernel], KernelToUserBytes: sums[KernelToUser], InKernelBytes: &sums[InKernel]}
}

// NotCopiedRows are bytes that reached their place without crossing the boundary by copy.
type NotCopiedRows struct {
	MovedBytes          uint64 `json:"moved_bytes"`
	MappedBytes         uint64 `json:"mapped_bytes"`
	DirectBytes         uint64 `json:"direct_bytes"`
	VoidBytes           uint64 `json:"void_bytes"`
	ZeroCopyBytes       uint64 `json:"zerocopy_bytes"`
	ZeroCopyCopiedBytes uint64 `json:"zerocopy_copied_bytes"` // of these, copied after all
	ZeroCopyKeptBytes   uint64 `json:"zerocopy_kept_bytes"`   // of these, reported as not copied
}

// ReportRow is a row of the ledger in words.
type ReportRow struct {
	Operation string `json:"operation"`
	Class     string `json:"class"`
	From      string `json:"from"`
	To        string `json:"to"`
	Direction string `json:"direction"`
	Calls     uint64 `json:"calls"`
	Bytes     uint64 `json:"bytes"`
	Failed    uint64 `json:"failed"`
	Again     uint64 `json:"again"`
}

// ReportSite is a copying function of the kernel, as called from one place.
type ReportSite struct {
	Function  string   `json:"function"`
	Direction string   `json:"direction"`
	Callers   []string `json:"callers"` // nearest first
	Calls     uint64   `json:"calls"`
	Bytes     uint64   `json:"bytes"`
}

// Report describes counts of one target, taken by this ledger over some time. The payload
// is how many bytes the program was meant to move, 0 if nobody said.
func (l *Ledger) Report(target string, c Counts, losses Losses, lasted time.Duration, payload uint64) Report {
	r := Report{
		Target: target, Backend: l.backend, Reason: l.reason, Seconds: lasted.Seconds(), PayloadBytes: payload,
		Copies: c.Copied(), Activity: c.Activity, Losses: losses,
		NotCopied: NotCopiedRows{
			MovedBytes:          c.OfClass(ClassMoved),
			MappedBytes:         c.OfClass(ClassMapped),
			DirectBytes:         c.OfClass(ClassDirect),
			VoidBytes:           c.OfClass(ClassVoid),
			ZeroCopyBytes:       c.OfClass(ClassZeroCopy),
			ZeroCopyCopiedBytes: c.OfClass(ClassZeroCopyCopied),
			ZeroCopyKeptBytes:   c.OfClass(ClassZeroCopyKept),
		},
		Rows: []ReportRow{}, Sites: reportSites(c.Sites),
	}
	if payload > 0 {
		perByte := float64(r.Copies.Total()) / float64(payload)
		r.Copies.PerPayloadByte = &perByte
	}
	for _, row := range c.Rows() {
		r.Rows = append(r.Rows, ReportRow{
			Operation: row.Operation.String(), Class: row.Class.String(),
			From: row.From.String(), To: row.To.String(), Direction: row.Direction().String(),
			Calls: row.Calls, Bytes: row.Bytes, Failed: row.Failed, Again: row.Again,
		})
	}
	return r
}

func reportSites(sites map[Site]SiteCount) []ReportSite {
	var list []ReportSite
	for site, count := range sites {
		list = append(list, ReportSite{
			Function: site.Function, Direction: site.Direction.String(),
			Callers: strings.Split(site.Callers, " < "), Calls: count.Calls, Bytes: count.Bytes,
		})
	}
	slices.SortFunc(list, func(a, b ReportSite) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Function, b.Function), slices.Compare(a.Callers, b.Callers))
	})
	return list
}
