package figure

import (
	"bytes"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/text/encoding/charmap"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgpdf"
	"gonum.org/v1/plot/vg/vgsvg"

	"waggle/results"
)

// dotsPerInch of PNG files: what journals ask for.
const dotsPerInch = 300

// SVG gives the figure as a file of its own, with its font.
func (f *Figure) SVG() ([]byte, error) { return f.svg(true) }

// InlineSVG gives the figure as an element for a web page that has [FontCSS].
func (f *Figure) InlineSVG() (string, error) {
	data, err := f.svg(false)
	if err != nil {
		return "", err
	}
	_, element, _ := strings.Cut(string(data), "<svg")
	return "<svg" + element, nil
}

func (f *Figure) svg(withFont bool) ([]byte, error) {
	c := vgsvg.NewWith(vgsvg.UseWH(f.width, f.height), vgsvg.EmbedFonts(withFont))
	data, err := f.render(c)
	if err != nil {
		return nil, err
	}
	// The canvas has no way to say what the picture shows.
	prolog, element, _ := strings.Cut(string(data), "<svg")
	attributes, content, _ := strings.Cut(element, ">")
	return fmt.Appendf(nil, "%s<svg%s>\n<title>%s</title>\n<desc>%s</desc>%s",
		prolog, attributes, html.EscapeString(f.Spec.Title), html.EscapeString(f.Alt), content), nil
}

// PNG gives the figure as pixels.
func (f *Figure) PNG() ([]byte, error) {
	return f.render(vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(f.width, f.height), vgimg.UseDPI(dotsPerInch))})
}

// fixedPDF makes PDF documents a function of what is drawn: no dates of today,
// no order of a map.
var fixedPDF = sync.OnceFunc(func() {
	epoch := time.Unix(0, 0).UTC()
	fpdf.SetDefaultCreationDate(epoch)
	fpdf.SetDefaultModificationDate(epoch)
	fpdf.SetDefaultCatalogSort(true)
})

// PDF gives the figure for a paper, its font embedded.
func (f *Figure) PDF() ([]byte, error) {
	fixedPDF()
	return f.render(pdfCanvas{vgpdf.New(f.width, f.height)})
}

// pdfCanvas writes text in the encoding that the PDF canvas takes its strings
// to have.
type pdfCanvas struct{ *vgpdf.Canvas }

func (c pdfCanvas) FillString(face font.Face, at vg.Point, text string) {
	var encoded strings.Builder
	for _, r := range text {
		b, ok := charmap.Windows1252.EncodeRune(r)
		if !ok {
			b = '?'
		}
		encoded.WriteByte(b)
	}
	c.Canvas.FillString(face, at, encoded.String())
}

func (f *Figure) render(c vg.CanvasWriterTo) ([]byte, error) {
	f.paint(draw.New(c))
	var buf bytes.Buffer
	if _, err := c.WriteTo(&buf); err != nil {
		return nil, fmt.Errorf("write figure %s: %w", f.Name, err)
	}
	return buf.Bytes(), nil
}

// WriteAll writes all figures in all formats into a directory, making it if
// need be.
func WriteAll(dir string, figures []*Figure) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range figures {
		group.Go(func() error { return f.write(dir) })
	}
	return group.Wait()
}

func (f *Figure) write(dir string) error {
	for ext, format := range map[string]func() ([]byte, error){".pdf": f.PDF, ".png": f.PNG, ".svg": f.SVG} {
		data, err := format()
		if err != nil {
			return err
		}
		if err := results.WriteFile(filepath.Join(dir, f.Name+ext), data); err != nil {
			return fmt.Errorf("write figure %s: %w", f.Name, err)
		}
	}
	return nil
}

// Wide reports whether the figure fills a page rather than a column.
func (f *Figure) Wide() bool { return f.width > singleColumn }
