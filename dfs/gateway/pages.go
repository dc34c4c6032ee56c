package gateway

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"waggle/dfs/client"
)

//go:embed assets
var assets embed.FS

// pagePolicy lets a page load nothing but the gateway's own files, and run no
// script inside it.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"bytes": func(n int64) string { return humanize.IBytes(uint64(n)) },
	"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
	"href":  href,
	"plural": func(n int, one, more string) string {
		if n == 1 {
			return "1 " + one
		}
		return humanize.Comma(int64(n)) + " " + more
	},
}).ParseFS(assets, "assets/*.html.tmpl"))

func showPage(w http.ResponseWriter, name string, data any) {
	showPageAs(w, http.StatusOK, name, data)
}

func showPageAs(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	w.Write(bytes.ToValidUTF8(page.Bytes(), []byte("\uFFFD"))) // names and tags may be anything
}

// complain says what is wrong: on a page if a browser shows the answer to a
// person, else in a line.
func complain(w http.ResponseWriter, r *http.Request, status int, text string) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Error(w, strings.ToValidUTF8(text, "\uFFFD"), status)
		return
	}
	showPageAs(w, status, "error.html.tmpl", struct {
		Status     int
		Name, Text string
	}{status, http.StatusText(status), text})
}

// failPage is fail for requests that browsers make to show the answer.
func failPage(w http.ResponseWriter, r *http.Request, err error) {
	complain(w, r, statusOf(err), err.Error())
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("asset")
	if ext := path.Ext(name); ext != ".css" && ext != ".js" && ext != ".svg" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, assets, "assets/"+name)
}

// crumb is a part of a path that leads to it.
type crumb struct {
	Name, Href string
	Last       bool
}

func crumbs(p string) []crumb {
	list := []crumb{{Name: "files", Href: "/"}}
	at := ""
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if name != "" {
			at += "/" + name
			list = append(list, crumb{Name: name, Href: href(at, "")})
		}
	}
	list[len(list)-1].Last = true
	return list
}

func (g *Gateway) directoryPage(w http.ResponseWriter, l directoryListing) {
	directories := 0
	for _, e := range l.Entries {
		if e.Type == "directory" {
			directories++
		}
	}
	showPage(w, "directory.html.tmpl", struct {
		directoryListing
		Crumbs             []crumb
		Wanted             string // what is searched for: nothing
		Directories, Files int
	}{l, crumbs(l.Path), "", directories, len(l.Entries) - directories})
}

type tag struct{ Name, Value string }

func tagsOf(xattrs map[string][]byte) []tag {
	var tags []tag
	for name, value := range xattrs {
		if name, ok := strings.CutPrefix(name, tagPrefix); ok && tagPrefix+name != propertiesXattr {
			tags = append(tags, tag{name, string(value)})
		}
	}
	slices.SortFunc(tags, func(a, b tag) int { return strings.Compare(a.Name, b.Name) })
	return tags
}

// infoPage is about one file or directory.
func (g *Gateway) infoPage(w http.ResponseWriter, r *http.Request, info *client.Info) {
	p := path.Clean(r.URL.Path)
	xattrs, err := g.client.Xattrs(r.Context(), p)
	if err != nil {
		failPage(w, r, err)
		return
	}
	chunks, err := g.client.Chunks(r.Context(), p)
	if err != nil {
		failPage(w, r, err)
		return
	}
	showPage(w, "info.html.tmpl", struct {
		Path, Name, Type, Parent string
		IsRoot                   bool
		Info                     *client.Info
		Crumbs                   []crumb
		Tags                     []tag
		Chunks                   []client.Chunk
		MoreChunks               int
	}{p, info.Name(), typeName(info.Mode().Type()), href(path.Dir(p), ""), p == "/", info, crumbs(p), tagsOf(xattrs),
		chunks[:min(len(chunks), maxShownChunks)], max(0, len(chunks)-maxShownChunks)})
}

const maxShownChunks = 64

// Limits of one search by tag.
const (
	maxSearched = 20_000 // files and directories looked at
	maxFound    = 200
	searchTime  = 10 * time.Second
)

// found is a file that has a tag.
type found struct {
	Path, Href string
	Tag        tag
	Type       string
}

// search looks through the tree below root for "name", or "name=value".
type search struct {
	client      *client.Client
	name, value string
	anyValue    bool

	looked int
	Found  []found
	Cut    string // why the search ended early
}

func (g *Gateway) searchPage(w http.ResponseWriter, r *http.Request) {
	root, wanted := path.Clean(r.URL.Path), r.URL.Query().Get("tag")
	ctx, cancel := context.WithTimeout(r.Context(), searchTime)
	defer cancel()
	s := &search{client: g.client}
	var given bool
	s.name, s.value, given = strings.Cut(wanted, "=")
	s.anyValue = !given
	err := s.walk(ctx, root)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		s.Cut, err = "it took longer than "+searchTime.String(), nil
	}
	if err != nil {
		failPage(w, r, err)
		return
	}
	showPage(w, "search.html.tmpl", struct {
		*search
		Path, Wanted string
		Crumbs       []crumb
	}{s, root, wanted, crumbs(root)})
}

func (s *search) walk(ctx context.Context, directory string) error {
	for entry, err := range s.client.Entries(ctx, directory) {
		if err != nil {
			return err
		}
		full := path.Join(directory, entry.Name())
		if isReserved(full) || entry.Type() == fs.ModeSymlink {
			continue
		}
		if err := s.look(ctx, full, typeName(entry.Type())); err != nil {
			return err
		}
		if entry.IsDir() && s.Cut == "" {
			if err := s.walk(ctx, full); err != nil {
				return err
			}
		}
		if s.Cut != "" {
			return nil
		}
	}
	return nil
}

func (s *search) look(ctx context.Context, p, kind string) error {
	if s.looked++; s.looked > maxSearched {
		s.Cut = "it has looked at " + humanize.Comma(maxSearched) + " files"
		return nil
	}
	value, err := s.client.Xattrs(ctx, p)
	if err != nil {
		return err
	}
	v, ok := value[tagPrefix+s.name]
	if !ok || !s.anyValue && string(v) != s.value {
		return nil
	}
	if len(s.Found) == maxFound {
		s.Cut = "it has found " + humanize.Comma(maxFound) + " files"
		return nil
	}
	s.Found = append(s.Found, found{p, href(p, "info"), tag{s.name, string(v)}, kind})
	return nil
}

// livePage shows what the gateway is doing, as its script keeps asking.
func (g *Gateway) livePage(w http.ResponseWriter, _ *http.Request) {
	showPage(w, "live.html.tmpl", struct{ Status status }{g.status()})
}
