package report

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"waggle/analysis/synthetic"
	"waggle/internal/browsertest"
	"waggle/results"
)

func TestTheReportInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	dir := pictures(t)
	report := makeReport(t, synthetic.Realistic(t))
	require.NoError(t, report.Write(dir))
	file, err := filepath.Abs(filepath.Join(dir, results.ReportFile))
	require.NoError(t, err)
	figures := 1 // the picture that it opens on
	for _, e := range report.Experiments {
		figures += len(e.Figures)
	}

	for name, look := range map[string]struct {
		width          int64
		medium, scheme string
	}{
		"small": {360, "screen", "light"}, "phone": {390, "screen", "light"}, "phone-dark": {390, "screen", "dark"},
		"desktop": {1200, "screen", "light"}, "desktop-dark": {1200, "screen", "dark"}, "paper": {800, "print", "light"},
	} {
		b.Media(look.medium, look.scheme)
		b.Open((&url.URL{Scheme: "file", Path: file}).String(), look.width)
		b.RequireFits(look.width)
		require.Less(t, browsertest.Look[float64](b, `[...document.querySelectorAll('#headlines svg')].find(e => e.getBoundingClientRect().height > 0).getBoundingClientRect().top`),
			400.0, "the picture is what a reader sees first")
		require.Equal(t, figures, browsertest.Look[int](b, `[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().height > 50).length`))
		require.True(t, browsertest.Look[bool](b, `document.fonts.check('10px "Waggle Sans"')`))
		if os.Getenv("WAGGLE_TEST_PICTURES") != "" { // nobody looks at others, and they take long
			b.Picture(filepath.Join(dir, "report-"+name+".jpeg"))
		}
	}
	b.Media("", "light")
	pdf, err := chromedp.Run(b.Context, chromedp.PrintToPDF())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.pdf"), pdf, 0o644))
	require.Empty(t, b.Complaints())
}
