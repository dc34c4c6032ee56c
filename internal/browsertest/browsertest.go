// Package browsertest looks at pages in a headless Chromium, for the tests of
// whoever makes pages.
package browsertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Browser is a browser with one page.
type Browser struct {
	t testing.TB
	// Context is what chromedp knows the page by.
	Context context.Context

	mu         sync.Mutex
	complaints []string
}

// Start starts a browser that ends with the test. Where there is none the test
// is skipped, but not in CI, where a skip would hide a broken page.
func Start(t testing.TB) *Browser {
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("there is no chromium, and CI must have one: install the package chromium")
	}
	if err != nil {
		t.Skip("there is no chromium to look at pages with: install the package chromium")
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
	b := &Browser{t: t, Context: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.hear))
	return b
}

func (b *Browser) hear(event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		b.complain(e.Entry.Text + " " + e.Entry.URL)
	case *runtime.EventExceptionThrown:
		b.complain(e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		b.complain(string(e.Type))
	}
}

func (b *Browser) complain(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, text)
}

// Complaints are what the browser has logged since they were asked for last.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(b.complaints)
	b.complaints = nil
	return all
}

// Do carries out steps.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.Context, steps...))
}

// Open opens a page in a window of a width in pixels.
func (b *Browser) Open(url string, width int64) {
	b.t.Helper()
	b.Do(chromedp.EmulateViewport(width, 800), chromedp.Navigate(url))
}

// Media lets pages believe that they are shown on a medium, "screen" or "print", by
// people who prefer a colour scheme, "light" or "dark".
func (b *Browser) Media(medium, scheme string) {
	b.t.Helper()
	b.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Media: medium, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// Look asks the page in JavaScript, and waits for an answer that is promised.
func Look[T any](b *Browser, question string) T {
	b.t.Helper()
	answer, err := chromedp.Run(b.Context, chromedp.Evaluate[T](question, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err, question)
	return answer
}

// Await waits until the page answers a question in JavaScript with something true. The page
// may be left for another one meanwhile.
func (b *Browser) Await(question string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		answer, err := chromedp.Run(b.Context, chromedp.Evaluate[bool]("!!("+question+")"))
		return err == nil && answer
	}, 30*time.Second, 20*time.Millisecond, question)
}

// AcceptDialogs says yes whenever a page asks.
func (b *Browser) AcceptDialogs() {
	b.t.Helper()
	require.NoError(b.t, chromedp.Listen(b.Context, func(event any) {
		if _, ok := event.(*page.EventJavascriptDialogOpening); ok {
			go chromedp.Do(b.Context, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
				_, err := cdp.Call(ctx, t, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
				return err
			})) // if it fails, what was asked about does not happen
		}
	}))
}

// wide finds what sticks out of the page, but for what scrolls by itself.
const wide = `[...document.querySelectorAll('body *')].filter(e => !e.closest('.plot, .table') &&
	e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))`

// RequireFits fails if the page is wider than its window.
func (b *Browser) RequireFits(width int64) {
	b.t.Helper()
	require.Empty(b.t, Look[[]string](b, wide), "wider than %d", width)
	require.LessOrEqual(b.t, Look[int64](b, `document.documentElement.scrollWidth`), width, "the page scrolls sideways")
}

// Picture writes how the whole page looks.
func (b *Browser) Picture(file string) {
	b.t.Helper()
	picture, err := chromedp.Run(b.Context, chromedp.FullScreenshot(90))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Clean(file), picture, 0o644))
}
