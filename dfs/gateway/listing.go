package gateway

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// maxShown bounds the entries on a page for people, maxListed those in JSON.
const (
	maxShown  = 2000
	maxListed = 100_000
)

// entry is one entry of a directory.
type entry struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"` // "directory", "file", "symlink" or "other"
	Size     int64     `json:"size_bytes"`
	Modified time.Time `json:"modified"`
	ETag     string    `json:"etag"`
	// Href is the entry's path as a URL: the name may not be UTF-8.
	Href string `json:"href"`
}

// directoryListing is the answer to "Accept: application/json".
type directoryListing struct {
	Path    string  `json:"path"`
	Entries []entry `json:"entries"`
	// More says that there are more entries than are listed at once.
	More bool `json:"more"`
}

// directory answers with a directory, as the client wants to have it.
func (g *Gateway) directory(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("tag") {
		g.searchPage(w, r)
		return
	}
	w.Header().Add("Vary", "Accept")
	w.Header().Set("Cache-Control", "no-cache")
	asJSON := strings.Contains(r.Header.Get("Accept"), "application/json")
	limit := maxShown
	if asJSON {
		limit = maxListed
	}
	listing, err := g.list(r, limit)
	switch {
	case err != nil:
		failPage(w, r, err)
	case asJSON:
		writeJSON(w, listing)
	default:
		g.directoryPage(w, listing)
	}
}

func (g *Gateway) list(r *http.Request, limit int) (directoryListing, error) {
	l := directoryListing{Path: path.Clean(r.URL.Path), Entries: []entry{}}
	for e, err := range g.client.Entries(r.Context(), l.Path) {
		if err != nil {
			return l, err
		}
		full := path.Join(l.Path, e.Name())
		if isReserved(full) {
			continue
		}
		if len(l.Entries) == limit {
			l.More = true
			break
		}
		info := e.Stat()
		l.Entries = append(l.Entries, entry{e.Name(), typeName(e.Type()), info.Size(), info.ModTime().UTC(),
			entityTag(info.Attributes()), href(full, "")})
	}
	slices.SortFunc(l.Entries, func(a, b entry) int {
		if a.Type != b.Type && (a.Type == "directory" || b.Type == "directory") {
			return strings.Compare(a.Type, b.Type) // "directory" comes first
		}
		return strings.Compare(a.Name, b.Name)
	})
	return l, nil
}

func typeName(t fs.FileMode) string {
	switch t {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symlink"
	}
	return "other"
}

// href is a path as a URL, with a query unless that is empty.
func href(p, query string) string { return (&url.URL{Path: p, RawQuery: query}).String() }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}
