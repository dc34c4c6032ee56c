package results

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// MaxHistogramText is the longest encoded histogram that is read, in bytes of
// base64: a histogram with three significant digits from 1 ns to an hour, with
// every bucket in use, is shorter.
const MaxHistogramText = 256 << 10

// EncodeHistogram gives a histogram of nanoseconds as a record holds it: V2
// compressed encoding, base64.
func EncodeHistogram(h *hdrhistogram.Histogram) (string, error) {
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("encode latency histogram: %w", err)
	}
	return string(text), nil
}

// DecodeHistogram reads a record's latency histogram; its values are
// nanoseconds. The packed form is used because its memory grows with the
// buckets in use, so that a hostile file can't ask for a huge one.
func DecodeHistogram(text string) (*hdrhistogram.PackedHistogram, error) {
	if len(text) > MaxHistogramText {
		return nil, fmt.Errorf("latency_histogram has %d bytes, more than %d", len(text), MaxHistogramText)
	}
	h, err := hdrhistogram.DecodePacked([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("latency_histogram: %w", err)
	}
	return h, nil
}
