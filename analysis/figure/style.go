package figure

import (
	_ "embed"
	"encoding/base64"
	"fmt"
	"image/color"
	"maps"
	"strings"

	"golang.org/x/image/font/opentype"
	"golang.org/x/text/encoding/charmap"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
)

// Sizes fit a paper of two columns.
const (
	singleColumn = 3.33 * vg.Inch
	doubleColumn = 7.0 * vg.Inch

	labelSize = vg.Length(8) // points
	tickSize  = vg.Length(7)
	noteSize  = vg.Length(6)

	// maxLabel is the most characters of a name that are shown.
	maxLabel = 28
)

//go:embed fonts/WaggleSans-Regular.ttf
var fontData []byte

const typeface = "Waggle"

var sans = font.Font{Typeface: typeface, Variant: "Sans"}

func init() {
	face, err := opentype.Parse(fontData)
	if err != nil {
		panic(fmt.Sprintf("figure: the built-in font is broken: %v", err))
	}
	font.DefaultCache.Add(font.Collection{{Font: sans, Face: face}})
}

// FontCSS is a style sheet rule that brings the font of all figures into a web
// page, for SVG that is written without it.
func FontCSS() string {
	return `@font-face{font-family:"Waggle Sans";src:url(data:font/ttf;base64,` +
		base64.StdEncoding.EncodeToString(fontData) + `) format("truetype")}`
}

// Okabe and Ito's colours, which people with any kind of colour vision tell
// apart. Their yellow is left out as a line: it is too faint on paper.
var (
	black      = color.RGBA{A: 255}
	orange     = color.RGBA{R: 0xE6, G: 0x9F, A: 255}
	skyBlue    = color.RGBA{R: 0x56, G: 0xB4, B: 0xE9, A: 255}
	green      = color.RGBA{G: 0x9E, B: 0x73, A: 255}
	yellow     = color.RGBA{R: 0xF0, G: 0xE4, B: 0x42, A: 255}
	blue       = color.RGBA{G: 0x72, B: 0xB2, A: 255}
	vermillion = color.RGBA{R: 0xD5, G: 0x5E, A: 255}
	purple     = color.RGBA{R: 0xCC, G: 0x79, B: 0xA7, A: 255}

	grey      = color.RGBA{R: 0x59, G: 0x59, B: 0x59, A: 255}
	paleGreen = color.RGBA{R: 0xB8, G: 0xE4, B: 0xD6, A: 255}
	paleGrey  = color.RGBA{R: 0xDD, G: 0xDD, B: 0xDD, A: 255}
	faintGrey = color.RGBA{R: 0xF2, G: 0xF2, B: 0xF2, A: 255}
)

// A series is told apart three times: by colour, by marker and by dashes, so
// that it survives a black-and-white printer.
var (
	lineColours = []color.RGBA{blue, vermillion, green, orange, skyBlue, purple}
	markers     = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{},
		draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PlusGlyph{}, draw.CrossGlyph{}}
	dashes = [][]vg.Length{nil, {4, 1.5}, {1, 1.5}, {5, 1.5, 1, 1.5}, {2.5, 1}}
)

// style is how a series looks.
type style struct {
	colour color.RGBA
	marker draw.GlyphDrawer
	dashes []vg.Length
}

func (s style) line() draw.LineStyle {
	return draw.LineStyle{Color: s.colour, Width: 1, Dashes: s.dashes}
}

func (s style) glyph() draw.GlyphStyle {
	return draw.GlyphStyle{Color: s.colour, Radius: 2.2, Shape: s.marker}
}

// floorStyles never stand for a path.
var floorStyles = map[string]style{
	results.Floor:    {colour: black, marker: draw.CrossGlyph{}, dashes: []vg.Length{1, 1}},
	results.FloorXDP: {colour: black, marker: draw.PlusGlyph{}, dashes: []vg.Length{3, 1}},
}

// palette gives a name the same style in every figure of a run.
type palette struct {
	styles map[string]style
	// further counts the names that no plan lists.
	further int
}

// newPalette hands out styles in the order in which the plan names the levels
// of the factors that are series. Levels of two factors never meet in one
// figure, so they may look alike.
func newPalette(plan results.Plan) *palette {
	p := &palette{styles: maps.Clone(floorStyles)}
	for _, e := range plan.Experiments {
		series := map[string]bool{}
		for _, spec := range e.Figures {
			series[spec.Series] = true
		}
		for _, f := range e.Factors {
			if !series[f.Name] {
				continue
			}
			p.addFactor(f)
		}
	}
	return p
}

// addFactor gives each level without a style the first one that no other level
// of the factor has.
func (p *palette) addFactor(f results.Factor) {
	taken := map[color.RGBA]bool{}
	for _, level := range f.Levels {
		if s, ok := p.styles[seriesLevel(f.Name, level)]; ok {
			taken[s.colour] = true
		}
	}
	n := 0
	for _, level := range f.Levels {
		name := seriesLevel(f.Name, level)
		if _, ok := p.styles[name]; ok {
			continue
		}
		for n < len(lineColours) && taken[lineColours[n]] {
			n++
		}
		p.styles[name] = numberedStyle(n)
		n++
	}
}

// of gives the style of a name. One that no plan lists gets the next style.
func (p *palette) of(name string) style {
	s, ok := p.styles[name]
	if !ok {
		s = numberedStyle(p.further)
		p.further++
		p.styles[name] = s
	}
	return s
}

// numberedStyle gives 120 styles before one comes again.
func numberedStyle(n int) style {
	return style{lineColours[n%len(lineColours)], markers[n%len(markers)], dashes[n%len(dashes)]}
}

func textStyle(size vg.Length, c color.Color) text.Style {
	return text.Style{Color: c, Font: font.From(sans, size), Handler: plot.DefaultTextHandler}
}

// drawBeside writes text with the middle of its capitals at the height of at.
func drawBeside(canvas draw.Canvas, sty text.Style, at vg.Point, words string) {
	const capitals = 0.72 // of the font's size
	ascent := sty.FontExtents().Ascent
	at.Y -= capitals/2*sty.Font.Size + sty.Font.Size - ascent
	sty.YAlign = draw.YBottom
	canvas.FillText(sty, at, words)
}

// newPlot is an empty plot in the style of all figures.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = font.From(sans, labelSize)
		axis.Tick.Label.Font = font.From(sans, tickSize)
		axis.Tick.Length = 3
		axis.Padding = 0
	}
	p.Title.TextStyle.Font = font.From(sans, labelSize)
	p.Title.Padding = 3
	return p
}

func gridLines() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical = draw.LineStyle{Color: paleGrey, Width: 0.4}
	g.Horizontal = g.Vertical
	return g
}

// printable makes a name fit for a picture: characters the font doesn't have
// become question marks, and what is too long loses its end.
func printable(s string) string { return limited(s, maxLabel) }

// limited is printable for a name of at most so many characters.
func limited(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == most-1 && len(s) > b.Len()+1 {
			b.WriteRune('…')
			break
		}
		if _, ok := charmap.Windows1252.EncodeRune(r); !ok || r < ' ' {
			r = '?'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
