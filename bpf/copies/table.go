package copies

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	rowsShown  = 12
	sitesShown = 8
)

// WriteTable writes a report for a person to read at a glance.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\ncopies of %s, %.3g s, backend %s (%s)\n\n", r.Target, r.Seconds, r.Backend, r.Reason)
	r.writeCopied(t)
	r.writeNotCopied(t)
	a := r.Activity
	fmt.Fprintf(t, "\nsystem calls\t%s\n", humanize.Comma(int64(a.SystemCalls)))
	fmt.Fprintf(t, "context switches\t%s\t%d voluntary, %d involuntary; %d wake-ups\n",
		humanize.Comma(int64(a.ContextSwitches())), a.VoluntarySwitches, a.InvoluntarySwitches, a.Wakeups)
	fmt.Fprintf(t, "page faults\t%s\t%d in mapped files, %d in other memory\n",
		humanize.Comma(int64(a.FileFaults+a.AnonymousFaults+a.UnresolvedFaults)), a.FileFaults, a.AnonymousFaults)
	r.writeRows(t)
	r.writeSites(t)
	r.writeLosses(t)
	return t.Flush()
}

// WriteLine writes what happened in one interval as one line, after the time that has gone by.
func (r Report) WriteLine(w io.Writer, elapsed time.Duration) error {
	rate := func(bytes uint64) string { return humanize.IBytes(uint64(float64(bytes)/r.Seconds)) + "/s" }
	inKernel := "not measured"
	if r.Copies.InKernelBytes != nil {
		inKernel = rate(*r.Copies.InKernelBytes)
	}
	perSecond := func(n uint64) float64 { return float64(n) / r.Seconds }
	_, err := fmt.Fprintf(w, "%7.1fs  user to kernel %12s  kernel to user %12s  in kernel %12s  moved %12s  calls %8.0f/s  switches %7.0f/s\n",
		elapsed.Seconds(), rate(r.Copies.UserToKernelBytes), rate(r.Copies.KernelToUserBytes), inKernel, rate(r.NotCopied.MovedBytes),
		perSecond(r.Activity.SystemCalls), perSecond(r.Activity.ContextSwitches()))
	return err
}

func (r Report) writeCopied(w io.Writer) {
	perByte := ""
	if r.Copies.PerPayloadByte != nil {
		perByte = fmt.Sprintf("%.3f per payload byte", *r.Copies.PerPayloadByte)
	}
	fmt.Fprintf(w, "copied\t%s\t%s\n", byteCount(r.Copies.Total()), perByte)
	fmt.Fprintf(w, "  user to kernel\t%s\n", byteCount(r.Copies.UserToKernelBytes))
	fmt.Fprintf(w, "  kernel to user\t%s\n", byteCount(r.Copies.KernelToUserBytes))
	if r.Copies.InKernelBytes == nil {
		fmt.Fprintf(w, "  in kernel\tnot measured\tby backend %s\n", r.Backend)
	} else {
		fmt.Fprintf(w, "  in kernel\t%s\n", byteCount(*r.Copies.InKernelBytes))
	}
}

func (r Report) writeNotCopied(w io.Writer) {
	n := r.NotCopied
	for _, line := range []struct {
		name  string
		bytes uint64
		note  string
	}{
		{"moved without crossing", n.MovedBytes, "sendfile, splice, tee, copy_file_range"},
		{"mapped, not copied", n.MappedBytes, "length of file mappings"},
		{"direct", n.DirectBytes, "O_DIRECT: by the device"},
		{"no data", n.VoidBytes, "null and zero devices, MSG_TRUNC"},
		{"zero-copy sends", n.ZeroCopyBytes, fmt.Sprintf("%s copied after all, %s not, rest not reported",
			byteCount(n.ZeroCopyCopiedBytes), byteCount(n.ZeroCopyKeptBytes))},
	} {
		if line.bytes > 0 {
			fmt.Fprintf(w, "%s\t%s\t%s\n", line.name, byteCount(line.bytes), line.note)
		}
	}
}

func (r Report) writeRows(w io.Writer) {
	fmt.Fprint(w, "\noperation\tfrom -> to\tclass\tcalls\tbytes\tfailed\n")
	shown, calls := 0, uint64(0)
	for _, row := range r.Rows {
		if shown == rowsShown || row.Bytes == 0 {
			calls += row.Calls
			continue
		}
		shown++
		fmt.Fprintf(w, "%s\t%s -> %s\t%s\t%d\t%s\t%d\n", row.Operation, row.From, row.To, row.Class, row.Calls, byteCount(row.Bytes), row.Failed)
	}
	fmt.Fprintf(w, "others\t\t\t%d\t\n", calls)
}

func (r Report) writeSites(w io.Writer) {
	if len(r.Sites) == 0 {
		return
	}
	fmt.Fprint(w, "\nkernel function\tcalled from\tdirection\tcalls\tbytes\n")
	for _, site := range r.Sites[:min(sitesShown, len(r.Sites))] {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", site.Function, strings.Join(site.Callers, " < "), site.Direction, site.Calls, byteCount(site.Bytes))
	}
}

func (r Report) writeLosses(w io.Writer) {
	for _, loss := range []struct {
		count uint64
		what  string
	}{
		{r.Losses.Processes, "processes were not followed: the table of processes was full"},
		{r.Losses.Entries, "calls were not counted: a table of counters was full"},
		{r.Losses.InFlight, "io_uring requests or zero-copy sends were forgotten before their completion"},
		{r.Losses.Unread, "calls had arguments that could not be read: their bytes are missing"},
		{r.Losses.Compat, "calls came from 32-bit programs: their bytes are missing"},
		{r.Losses.Misses, "events came while their program was running: they are missing"},
	} {
		if loss.count > 0 {
			fmt.Fprintf(w, "\nINCOMPLETE: %d %s", loss.count, loss.what)
		}
	}
}

// byteCount is exact, because people compare copies to the byte, and readable beside it.
func byteCount(n uint64) string {
	if n < 10_000 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%s B (%s)", humanize.Comma(int64(n)), humanize.IBytes(n))
}
