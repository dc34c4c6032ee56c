package figure

import (
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// Language is one that figures can be drawn in.
type Language string

// The languages.
const (
	English Language = "en"
	Chinese Language = "zh"
)

// chineseFont is where Debian's package puts a font with Chinese characters. It
// has no Latin ones: those come from the font of all figures.
const (
	chineseFont        = "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"
	chineseFontPackage = "fonts-droid-fallback"
)

var chinese = font.Font{Typeface: "Chinese", Variant: "Sans"}

//go:embed zh.yaml
var chinesePhrases []byte

// UseLanguage makes this process draw all figures in a language, until it is
// called again. It is for a program that draws in one language, and not for
// concurrent use with drawing. An error says which font package is missing.
func UseLanguage(l Language) error {
	switch l {
	case English:
		plot.DefaultTextHandler = text.Plain{Fonts: font.DefaultCache}
		return nil
	case Chinese:
	default:
		return fmt.Errorf("figures can't be drawn in %q: use %s or %s", l, English, Chinese)
	}
	if err := loadChineseFont(); err != nil {
		return err
	}
	phrases, err := parsePhrases(chinesePhrases)
	if err != nil {
		return err
	}
	plot.DefaultTextHandler = translated{text.Plain{Fonts: font.DefaultCache}, phrases}
	return nil
}

// maxFont is the largest font file that is read, in bytes.
const maxFont = 64 << 20

func loadChineseFont() error {
	if font.DefaultCache.Has(chinese) {
		return nil
	}
	info, err := os.Stat(chineseFont)
	if err != nil {
		return fmt.Errorf("there is no font with Chinese characters: install %s (Debian's name): %w", chineseFontPackage, err)
	}
	if info.Size() > maxFont {
		return fmt.Errorf("the font %s is larger than %d bytes", chineseFont, maxFont)
	}
	data, err := os.ReadFile(chineseFont)
	if err != nil {
		return fmt.Errorf("read the Chinese font: %w", err)
	}
	face, err := opentype.Parse(data)
	if err != nil {
		return fmt.Errorf("read the Chinese font %s: %w", chineseFont, err)
	}
	font.DefaultCache.Add(font.Collection{{Font: chinese, Face: face}})
	return nil
}

// translated draws text in Chinese. It translates before text is measured, so that
// what is laid out around the text fits.
type translated struct {
	text.Plain
	phrases phrases
}

func (t translated) Lines(s string) []string { return t.Plain.Lines(t.phrases.translate(s)) }

func (t translated) Box(s string, f font.Font) (width, height, depth vg.Length) {
	for _, run := range runs(t.phrases.translate(s)) {
		w, h, d := t.Plain.Box(run.text, run.font(f))
		width, height, depth = width+w, max(height, h), max(depth, d)
	}
	return width, height, depth
}

func (t translated) Draw(c vg.Canvas, s string, style text.Style, at vg.Point) {
	t.Plain.Draw(mixed{c, t.Fonts, vg.Length(style.XAlign)}, t.phrases.translate(s), style, at)
}

// mixed is a canvas that writes each run of characters in the font that has them.
type mixed struct {
	vg.Canvas
	fonts *font.Cache
	align vg.Length
}

// FillString writes a text that was placed as if one font had all of it: where
// the text is not aligned to its left, its start moves by what the width differs.
func (m mixed) FillString(face font.Face, at vg.Point, s string) {
	var faces []font.Face
	width := vg.Length(0)
	for _, run := range runs(s) {
		used := m.fonts.Lookup(run.font(face.Font), face.Font.Size)
		faces = append(faces, used)
		width += used.Width(run.text)
	}
	at.X += m.align * (width - face.Width(s))
	for i, run := range runs(s) {
		m.Canvas.FillString(faces[i], at, run.text)
		at.X += faces[i].Width(run.text)
	}
}

// run is a part of a text that one font has all characters of.
type run struct {
	text    string
	chinese bool
}

func (r run) font(other font.Font) font.Font {
	if !r.chinese {
		return other
	}
	return font.From(chinese, other.Size)
}

// runs takes a text apart. Characters from the East Asian blocks on are Chinese.
func runs(s string) (all []run) {
	const firstChinese = 0x2E80
	for _, r := range s {
		isChinese := r >= firstChinese
		if n := len(all); n > 0 && all[n-1].chinese == isChinese {
			all[n-1].text += string(r)
		} else {
			all = append(all, run{string(r), isChinese})
		}
	}
	return all
}

// phrases are what a language says for the words of figures and tables.
type phrases struct {
	whole    map[string]string
	patterns []pattern
}

// pattern is a phrase with a part that stays as it is, such as "4 clients".
type pattern struct {
	match       *regexp.Regexp
	replacement string
}

// parsePhrases reads a language file: English on the left, where * stands for
// anything, which the right side repeats.
func parsePhrases(file []byte) (phrases, error) {
	var lines map[string]string
	if err := yaml.Unmarshal(file, &lines); err != nil {
		return phrases{}, fmt.Errorf("read the words of a language: %w", err)
	}
	p := phrases{whole: map[string]string{}}
	for english, other := range lines {
		if !strings.Contains(english, "*") {
			p.whole[english] = other
			continue
		}
		quoted := strings.ReplaceAll(regexp.QuoteMeta(english), `\*`, "(.*)")
		p.patterns = append(p.patterns, pattern{regexp.MustCompile("^" + quoted + "$"), strings.Replace(other, "*", "${1}", 1)})
	}
	// The longest pattern says most.
	slices.SortFunc(p.patterns, func(a, b pattern) int {
		if d := len(b.match.String()) - len(a.match.String()); d != 0 {
			return d
		}
		return strings.Compare(a.match.String(), b.match.String())
	})
	return p, nil
}

// translate gives the phrase in the other language, or as it is where there is
// none: names of paths, numbers and units are the same in all languages.
func (p phrases) translate(s string) string {
	if other, ok := p.whole[s]; ok {
		return other
	}
	for _, pattern := range p.patterns {
		if pattern.match.MatchString(s) {
			return pattern.match.ReplaceAllString(s, pattern.replacement)
		}
	}
	if parts := strings.Split(s, ", "); len(parts) > 1 {
		for i := range parts {
			parts[i] = p.translate(parts[i])
		}
		return strings.Join(parts, "，")
	}
	return s
}

// Translate gives words of a figure or its table in a language.
func Translate(l Language, s string) string {
	if l != Chinese {
		return s
	}
	phrases, err := parsePhrases(chinesePhrases)
	if err != nil {
		panic(err) // the file is part of the program
	}
	return phrases.translate(s)
}
