package gateway

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/dfstest"
	"waggle/internal/browsertest"
)

// oddNames are hostile to HTML, to URLs, or to both.
var oddNames = []string{
	`"quotes" & 'apostrophes'`, `<script>alert(1)<.html`, `<img src=x onerror=alert(1)>`, `100% sure?`, `%41%2e`, `#1`, `?info`, `a=b&c;d`, `back\slash`,
	`.hidden`, `...`, `  spaces  `, "tab\tand\nnewline", `{{.}}`, `javascript:alert(1)`, `蜂蜜 🐝 über`, "-", "日" + strings.Repeat("本", 84), // 255 bytes
}

// pages is the gateway in a browser.
type pages struct {
	*place
	*browsertest.Browser
	pictures string // directory
}

// One browser looks at everything, because starting one takes longer than all
// that it is asked.
func TestPagesInABrowser(t *testing.T) {
	p := &pages{Browser: browsertest.Start(t), pictures: cmp.Or(os.Getenv("WAGGLE_TEST_PICTURES"), t.TempDir())}
	p.place = start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), func(c *Config) { c.Relay = relay.Copy })
	p.AcceptDialogs()
	p.seeFiles(t)
	p.seeOddNames(t)
	p.seeTags(t)
	p.seeTheLivePanel(t)
	p.seeErrors(t)
}

const (
	phone   = 360 // pixels
	desktop = 1200
)

// look opens a path at both widths, and leaves it open at the larger one.
func (p *pages) look(path, picture string) {
	p.t.Helper()
	for name, width := range map[string]int64{"phone": phone, "desktop": desktop} {
		p.Open(p.url+path, width)
		p.RequireFits(width)
		p.Picture(filepath.Join(p.pictures, picture+"-"+name+".jpeg"))
	}
	p.Open(p.url+path, desktop)
}

// fill types into a field.
func (p *pages) fill(field chromedp.CSS, text string) {
	p.t.Helper()
	p.Do(chromedp.SetValue(field, text))
}

// click clicks, and waits until the page that comes of it satisfies a condition.
func (p *pages) click(button chromedp.CSS, then string) {
	p.t.Helper()
	p.Do(chromedp.Click(button, chromedp.NodeVisible))
	p.Await("document.readyState === 'complete' && (" + then + ")")
}

// names are those that the directory on the page shows.
const names = `[...document.querySelectorAll('td.name a')].map(a => a.textContent.replace(/\/$/, ''))`

// button is the one to delete the entry of a name with.
func button(name string) chromedp.CSS {
	return chromedp.CSS(fmt.Sprintf(`button.delete[data-name=%s]`, cssString(name)))
}

func cssString(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\%x `, r)
	}
	return `"` + b.String() + `"`
}

func (p *pages) seeFiles(t *testing.T) {
	p.look("/", "empty")
	require.Contains(t, browsertest.Look[string](p.Browser, `document.querySelector('main').innerText`), "This directory is empty")

	// Make a directory, and upload into it.
	p.fill("#name", `<b>"new" & 100% #1?`)
	p.click("#mkdir button", names+`.length === 1`)
	require.Equal(t, []string{`<b>"new" & 100% #1?`}, browsertest.Look[[]string](p.Browser, names))
	p.click("td.name a", `document.querySelector('.crumbs [aria-current]').textContent.startsWith('<b>')`)
	content := randomBytes(6 << 20)
	local := t.TempDir()
	files := []string{filepath.Join(local, "100% bees #1?.bin"), filepath.Join(local, "small.txt")}
	require.NoError(t, os.WriteFile(files[0], content, 0o600))
	require.NoError(t, os.WriteFile(files[1], []byte("small"), 0o600))
	p.Do(chromedp.SetUploadFiles(chromedp.CSS("#files"), files))
	browsertest.Look[bool](p.Browser, `new MutationObserver(() => sessionStorage.progress = document.querySelector('#progress p').textContent + '|' + (sessionStorage.progress || ''))
		.observe(document.querySelector('#progress'), { subtree: true, childList: true, attributes: true }) === undefined`)
	p.click("#upload button", names+`.length === 2`)
	progress := browsertest.Look[string](p.Browser, `sessionStorage.progress`)
	require.Contains(t, progress, "100% bees #1?.bin: file 1 of 2, ")
	require.Contains(t, progress, "small.txt: file 2 of 2, 6.0 MiB of 6.0 MiB")
	stored, err := p.client.ReadFile(t.Context(), `/<b>"new" & 100% #1?/100% bees #1?.bin`)
	require.NoError(t, err)
	require.Equal(t, content, stored)

	// Download it.
	saved := t.TempDir()
	p.Do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
			Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: saved})
		return err
	}))
	p.Do(chromedp.Click(chromedp.CSS("td.actions a"), chromedp.NodeVisible))
	require.Eventually(t, func() bool {
		got, err := os.ReadFile(filepath.Join(saved, "100% bees #1_.bin")) // the browser replaces the question mark
		return err == nil && bytes.Equal(got, content)
	}, 20*time.Second, 20*time.Millisecond)

	// Rename one, delete the other.
	p.click(`td.actions a[href*="small.txt?info"]`, `document.querySelector('#rename')`)
	p.fill("#rename input", `%2e%2e & <i>`)
	p.click("#rename button", `document.querySelector('h1').textContent === '%2e%2e & <i>'`)
	p.click(".crumbs a:nth-of-type(2)", names+`.length === 2`)
	p.click(button("100% bees #1?.bin"), names+`.length === 1`)
	require.Equal(t, []string{`%2e%2e & <i>`}, browsertest.Look[[]string](p.Browser, names))
	require.Empty(t, p.Complaints())
}

// Every page works with every name.
func (p *pages) seeOddNames(t *testing.T) {
	require.NoError(t, p.client.Mkdir(t.Context(), "/odd", 0o755))
	require.NoError(t, p.client.Mkdir(t.Context(), "/odd/"+oddNames[0]+oddNames[2], 0o755))
	for i, name := range oddNames {
		p.put(t, "/odd/"+name, fmt.Appendf(nil, "content %d", i))
		require.NoError(t, p.client.SetXattr(t.Context(), "/odd/"+name, "user.<tag>", []byte(name), client.XattrAny))
	}
	p.look("/odd", "odd")
	require.Len(t, browsertest.Look[[]string](p.Browser, names), len(oddNames)+1)
	for i, name := range oddNames {
		link := fmt.Sprintf(`%s[%s.indexOf(%s)]`, `[...document.querySelectorAll('td.name a')]`, names, jsString(name))
		require.Equal(t, fmt.Sprintf("content %d", i), browsertest.Look[string](p.Browser, `fetch(`+link+`.href).then(r => r.text())`), "content of %q", name)
		value := strings.ReplaceAll(name, "\n", "") // no field holds a line break
		require.Equal(t, []string{name, value}, browsertest.Look[[]string](p.Browser, `fetch(`+link+`.href + '?info').then(r => r.text()).then(text => {
			const page = new DOMParser().parseFromString(text, 'text/html');
			return [page.querySelector('h1').textContent, page.querySelector('form.tag input[name=value]').value];
		})`), "details of %q", name)
	}
	p.look("/odd/"+"%3Cscript%3Ealert(1)%3C.html?info", "odd-details")
	p.look("/?tag=%3Ctag%3E", "odd-search")
	require.Len(t, browsertest.Look[[]string](p.Browser, `[...document.querySelectorAll('tbody a')].map(a => a.href)`), len(oddNames))
	for i, name := range oddNames {
		p.Open(p.url+"/odd", desktop)
		p.click(button(name), fmt.Sprintf(`document.querySelectorAll('td.name').length === %d`, len(oddNames)-i))
	}
	require.Empty(t, p.Complaints())
}

// jsString is a string in JavaScript.
func jsString(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\u{%x}`, r)
	}
	return `"` + b.String() + `"`
}

func (p *pages) seeTags(t *testing.T) {
	require.NoError(t, p.client.Mkdir(t.Context(), "/papers", 0o755))
	p.put(t, "/papers/thesis.pdf", randomBytes(3<<20))
	p.put(t, "/papers/notes.txt", []byte("notes"))
	p.look("/papers/thesis.pdf?info", "no-tags")
	tags := `[...document.querySelectorAll('.tag > .tagname:first-child')].filter(e => e.localName === 'span').map(e => e.textContent + '=' + e.parentElement.querySelector('input[name=value]').defaultValue)`
	for _, tag := range []string{"project=bees", `"odd" <name>=a & b`} {
		name, value, _ := strings.Cut(tag, "=")
		p.fill("#addtag input[name=name]", name)
		p.fill("#addtag input[name=value]", value)
		p.click("#addtag button", tags+`.includes(`+jsString(tag)+`)`)
	}
	p.fill(`.tag input[aria-label="Value of project"]`, "wasps")
	p.click(`button[aria-label="Change project"]`, tags+`.includes('project=wasps')`)
	p.look("/papers/thesis.pdf?info", "details")
	p.look("/papers", "directory")
	p.fill("#tag", "project=wasps")
	p.click(`form[method=get] button`, `document.querySelectorAll('tbody tr').length === 1`)
	require.Contains(t, browsertest.Look[string](p.Browser, `document.querySelector('tbody').innerText`), "/papers/thesis.pdf")
	p.look("/papers?tag=project", "search")
	p.Open(p.url+"/papers/thesis.pdf?info", desktop)
	p.click(`button[aria-label="Remove project"]`, tags+`.length === 1`)
	p.look("/?tag=project", "nothing-found")
	require.Contains(t, browsertest.Look[string](p.Browser, `document.querySelector('main').innerText`), "Nothing here or below has this tag")
	require.Empty(t, p.Complaints())
}

func (p *pages) seeTheLivePanel(t *testing.T) {
	p.put(t, "/large", randomBytes(4<<20))
	p.put(t, "/small", []byte("small"))
	p.Open(p.url+"/-/live", desktop)
	cell := func(row, column int) string {
		return fmt.Sprintf(`document.querySelector('#paths').rows[%d].cells[%d].textContent`, row-1, column-1)
	}
	require.Eventually(t, func() bool {
		for _, path := range []string{"/large", "/large", "/small"} {
			p.do(t, http.MethodGet, path, nil)
		}
		p.do(t, http.MethodPut, "/new", strings.NewReader(strings.Repeat("new", 1000)))
		return browsertest.Look[bool](p.Browser, cell(1, 3)+`.includes('MiB/s') && !document.querySelector('[data-key=up]').textContent.startsWith('0')`)
	}, 30*time.Second, 100*time.Millisecond, "throughput")
	p.Await(cell(3, 5) + `.includes('s')`)
	require.Equal(t, "relay=copy", browsertest.Look[string](p.Browser, cell(1, 2)))
	require.Equal(t, "write=chain", browsertest.Look[string](p.Browser, cell(3, 2)))
	require.Regexp(t, `^[\d.]+ (µs|ms|s)$`, browsertest.Look[string](p.Browser, cell(1, 5)), "median latency")
	require.Regexp(t, `^[\d.]+ (µs|ms|s)$`, browsertest.Look[string](p.Browser, cell(1, 6)), "99 % latency")
	require.Equal(t, "2.00", browsertest.Look[string](p.Browser, cell(1, 7)), "copies of relay=copy: in and out")
	require.Equal(t, "not counted", browsertest.Look[string](p.Browser, cell(3, 7)))
	for name, width := range map[string]int64{"phone": phone, "desktop": desktop} {
		p.Do(chromedp.EmulateViewport(width, 800))
		p.RequireFits(width)
		p.Picture(filepath.Join(p.pictures, "live-"+name+".jpeg"))
	}
	require.Empty(t, p.Complaints())
}

// What goes wrong is said on the page.
func (p *pages) seeErrors(t *testing.T) {
	require.NoError(t, p.client.Mkdir(t.Context(), "/there", 0o755))
	p.put(t, "/file", []byte("x"))
	p.Do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
		return err
	}))
	message := `!document.querySelector('#message').hidden && document.querySelector('#message').textContent.includes(%s)`
	p.Open(p.url+"/", desktop)
	for name, want := range map[string]string{"there": "something of this name", "..": "can't be", "a/b": "a slash", strings.Repeat("é", 200): "400 bytes"} {
		p.fill("#name", name)
		p.click("#mkdir button", fmt.Sprintf(message, jsString(want)))
	}
	p.Picture(filepath.Join(p.pictures, "message-desktop.jpeg"))
	p.Open(p.url+"/file?info", desktop)
	p.fill("#rename input", "there")
	p.click("#rename button", fmt.Sprintf(message, jsString("something of this name")))
	p.look("/none", "none")
	require.Equal(t, "Not Found", browsertest.Look[string](p.Browser, `document.querySelector('h1').textContent`))
	p.look("/there?info", "dark")
	info, err := p.client.Stat(t.Context(), "/file")
	require.NoError(t, err, "it is where it was")
	require.EqualValues(t, 1, info.Size())
}
