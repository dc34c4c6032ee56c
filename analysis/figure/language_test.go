package figure

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"

	"waggle/analysis/synthetic"
)

func TestPhrasesTranslateWholesAndParts(t *testing.T) {
	for english, chinese := range map[string]string{
		"Throughput":                "吞吐量",
		"Throughput (GB/s)":         "吞吐量（GB/s）",
		"16 clients":                "16 个客户端",
		"16 clients, size 64 KiB":   "16 个客户端，大小 64 KiB",
		"sockmap+copy":              "sockmap+copy",
		"Something nobody has said": "Something nobody has said",
	} {
		assert.Equal(t, chinese, Translate(Chinese, english))
		assert.Equal(t, english, Translate(English, english))
	}
}

func TestRunsOfOneFont(t *testing.T) {
	assert.Equal(t, []run{{"A/A ", false}, {"噪声", true}, {" 5 %", false}}, runs("A/A 噪声 5 %"))
	assert.Empty(t, runs(""))
}

func TestFiguresInChineseAreDrawnAndMeasured(t *testing.T) {
	english := plot.DefaultTextHandler
	if err := UseLanguage(Chinese); err != nil {
		t.Skipf("%v", err)
	}
	defer func() {
		require.NoError(t, UseLanguage(English))
		assert.Equal(t, english, plot.DefaultTextHandler, "the language of other figures is what it was")
	}()
	handler := plot.DefaultTextHandler
	narrow, _, _ := handler.Box("吞", font.From(sans, 10))
	wide, _, _ := handler.Box("吞吐量", font.From(sans, 10))
	assert.InDelta(t, 3*float64(narrow), float64(wide), 0.01)
	latin, _, _ := handler.Box("GB/s", font.From(sans, 10))
	both, _, _ := handler.Box("吞GB/s", font.From(sans, 10))
	assert.InDelta(t, float64(narrow+latin), float64(both), 0.01)

	figures, _ := DrawAll(synthetic.Realistic(t))
	require.NotEmpty(t, figures)
	svg, err := figures[0].SVG()
	require.NoError(t, err)
	assert.True(t, strings.Contains(string(svg), "吞吐量"), "the axis is labelled in Chinese")
}

func TestLanguageThatNobodyHasWritten(t *testing.T) {
	assert.ErrorContains(t, UseLanguage("tlh"), "en or zh")
}
