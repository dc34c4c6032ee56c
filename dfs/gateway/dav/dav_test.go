package dav

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/unicode"
)

func TestTimeoutsHaveALimit(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": time.Hour, "Infinite": time.Hour, "Second-60": time.Minute, "second-4100000000": time.Hour, "Second-4100000000, Infinite": time.Hour,
		"Second-99999999999999999999, Second-5": 5 * time.Second, "Second-0": time.Hour, "Second--1": time.Hour, "nonsense, Second-9": 9 * time.Second,
	} {
		require.Equal(t, want, ParseTimeout(http.Header{"Timeout": {value}}, time.Hour), value)
	}
}

// Locks end with their time, and there are only so many.
func TestLocksEnd(t *testing.T) {
	l := NewLocks(3)
	now := time.Now()
	l.now = func() time.Time { return now }
	long, err := l.Create(Lock{Root: "/a/b", Timeout: time.Hour})
	require.NoError(t, err)
	_, err = l.Create(Lock{Root: "/a", Deep: true, Timeout: time.Hour})
	var conflict *ConflictError
	require.ErrorAs(t, err, &conflict)
	short, err := l.Create(Lock{Root: "/", Timeout: time.Minute})
	require.NoError(t, err)
	_, err = l.Create(Lock{Root: "/c", Shared: true, Deep: true, Timeout: time.Minute})
	require.NoError(t, err)
	_, err = l.Create(Lock{Root: "/d", Timeout: time.Minute})
	require.ErrorIs(t, err, ErrTooManyLocks)
	require.Len(t, l.Covering("/c/d"), 1)
	require.Len(t, l.Below("/"), 2)
	now = now.Add(time.Minute + 1)
	require.ErrorIs(t, l.Unlock(short.Token, "/"), ErrNoSuchLock)
	require.Empty(t, l.Covering("/c/d"))
	require.Len(t, l.Covering("/a/b"), 1)
	require.Empty(t, l.Covering("/a/bc"))
	now = now.Add(50 * time.Minute)
	_, err = l.Refresh(long.Token, "/a/b", time.Hour)
	require.NoError(t, err)
	now = now.Add(50 * time.Minute)
	require.Len(t, l.Covering("/a/b"), 1)
	l.Removed("/a", true)
	require.Empty(t, l.byToken)
	require.Empty(t, l.byRoot)
}

// A header If that is understood is one that its parts can be read from.
func FuzzParseIf(f *testing.F) {
	for _, seed := range []string{
		`(["a"])`, `<http://h/a> (<urn:x> ["b"]) (Not <DAV:no-lock>) </c> (not [W/"d"])`, "(", "()", "(Not)", `(["a)"])`, "<>", "(<a>)<b>(<c>)", "(Not Not <a>)", "\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		condition, err := ParseIf([]string{value})
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NotEmpty(t, condition)
		asked := make(map[string]bool)
		condition.Holds(func(resource string) State {
			require.False(t, asked[resource], "a state is asked for once")
			asked[resource] = true
			return State{}
		})
		for _, list := range condition {
			require.NotEmpty(t, list.Conditions)
			// A list holds for a resource that has just what it asks for, unless it
			// contradicts itself.
			s := State{}
			wanted, unwanted := make(map[string]bool), make(map[string]bool)
			for _, c := range list.Conditions {
				require.NotEqual(t, c.Token == "", c.Tag == "", "one of both")
				into := wanted
				if c.Not {
					into = unwanted
				}
				into[c.Token+"\x00"+c.Tag] = true
				if !c.Not && c.Token != "" {
					s.Tokens = append(s.Tokens, c.Token)
				}
				if !c.Not && c.Tag != "" {
					if s.Tag != "" && s.Tag != c.Tag {
						return
					}
					s.Tag = c.Tag
				}
			}
			for c := range wanted {
				if unwanted[c] {
					return
				}
			}
			require.True(t, list.hold(s))
		}
	})
}

// What is parsed is what is written, and stays so.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`<a/>`, `<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><x xmlns="urn:x" y="z" xml:lang="en"/></D:prop></D:propfind>`,
		`<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x>a<!-- b -->c&amp;<![CDATA[<d>]]></x></D:prop></D:set></D:propertyupdate>`,
		`<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>`,
		`<a xmlns:b=""/>`, `<b:a/>`, `<a></b>`, "\xff\xfe<\x00a\x00/\x00>\x00", `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, `<a:b xmlns:a="c"><a:d a:e="f" g="h"/></a:b>`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		ParseLockInfo(document)
		ParsePropfind(document)
		if changes, err := ParsePropertyUpdate(document); err == nil {
			require.NotEmpty(t, changes)
		}
		root, err := Parse(document)
		if err != nil || root == nil {
			return
		}
		var once, twice bytes.Buffer
		root.Append(&once)
		again, err := Parse(once.Bytes())
		require.NoError(t, err, "%s", once.String())
		again.Append(&twice)
		require.Equal(t, once.String(), twice.String())
	})
}

func TestParseReadsUTF16(t *testing.T) {
	for _, order := range []unicode.Endianness{unicode.BigEndian, unicode.LittleEndian} {
		for _, mark := range []unicode.BOMPolicy{unicode.UseBOM, unicode.IgnoreBOM} {
			document, err := unicode.UTF16(order, mark).NewEncoder().Bytes([]byte(`<?xml version="1.0" encoding="UTF-16"?><a>ü𐀀</a>`))
			require.NoError(t, err)
			root, err := Parse(document)
			require.NoError(t, err)
			require.Equal(t, []any{"ü𐀀"}, root.Content)
		}
	}
}
