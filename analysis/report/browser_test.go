package report

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"waggle/analysis/synthetic"
	"waggle/results"
)

// browser starts a headless Chromium. Without one the test is skipped, but not
// in CI, where a skip would hide a broken page.
func browser(t *testing.T) context.Context {
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("there is no chromium, and CI must have one: install the package chromium")
	}
	if err != nil {
		t.Skip("there is no chromium to look at the report with: install the package chromium")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
	}
	for _, name := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// complaints collects what the browser logs from now on.
func complaints(t *testing.T, ctx context.Context) func() []string {
	var mu sync.Mutex
	var all []string
	add := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, text)
	}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded:
			add(e.Entry.Text)
		case *runtime.EventExceptionThrown:
			add(e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			add(string(e.Type))
		}
	}))
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// wideElements finds what sticks out of the page, but for what scrolls by
// itself.
const wideElements = `[...document.querySelectorAll('body *')].filter(e => !e.closest('.plot, .table') &&
	e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))`

func TestTheReportInABrowser(t *testing.T) {
	ctx := browser(t)
	dir := pictures(t)
	report := makeReport(t, synthetic.Realistic(t))
	require.NoError(t, report.Write(dir))
	file, err := filepath.Abs(filepath.Join(dir, results.ReportFile))
	require.NoError(t, err)
	complained := complaints(t, ctx)
	figures := 0
	for _, e := range report.Experiments {
		figures += len(e.Figures)
	}

	for name, width := range map[string]int64{"phone": 360, "desktop": 1200} {
		require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(width, 800),
			chromedp.Navigate((&url.URL{Scheme: "file", Path: file}).String())))
		require.Empty(t, look[[]string](t, ctx, wideElements), name)
		require.LessOrEqual(t, look[int64](t, ctx, `document.documentElement.scrollWidth`), width, "the page scrolls sideways on a %s", name)
		require.Equal(t, figures, look[int](t, ctx, `[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().height > 50).length`))
		require.True(t, look[bool](t, ctx, `document.fonts.check('10px "Waggle Sans"')`))
		screenshot, err := chromedp.Run(ctx, chromedp.FullScreenshot(90))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "report-"+name+".jpeg"), screenshot, 0o644))
	}
	pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.pdf"), pdf, 0o644))
	require.Empty(t, complained())
}

// look asks the page.
func look[T any](t *testing.T, ctx context.Context, question string) T {
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[T](question))
	require.NoError(t, err)
	return answer
}

// A test that can't see a complaint would pass on any page.
func TestComplaintsAreSeen(t *testing.T) {
	ctx := browser(t)
	complained := complaints(t, ctx)
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	look[bool](t, ctx, `console.error('seen') === undefined`)
	require.Eventually(t, func() bool { return len(complained()) > 0 }, 10*time.Second, 10*time.Millisecond)
}
