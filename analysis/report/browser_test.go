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
	figures := 0
	for _, e := range report.Experiments {
		figures += len(e.Figures)
	}

	for name, width := range map[string]int64{"phone": 360, "desktop": 1200} {
		b.Open((&url.URL{Scheme: "file", Path: file}).String(), width)
		b.RequireFits(width)
		require.Equal(t, figures, browsertest.Look[int](b, `[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().height > 50).length`))
		require.True(t, browsertest.Look[bool](b, `document.fonts.check('10px "Waggle Sans"')`))
		b.Picture(filepath.Join(dir, "report-"+name+".jpeg"))
	}
	pdf, err := chromedp.Run(b.Context, chromedp.PrintToPDF())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.pdf"), pdf, 0o644))
	require.Empty(t, b.Complaints())
}
