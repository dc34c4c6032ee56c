package figure

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waggle/results"
)

// sizeSuffix marks factors that hold a number of bytes.
const sizeSuffix = "_bytes"

// percentSuffix marks factors that hold a share in percent: "hit_percent" is the
// hit ratio.
const percentSuffix = "_percent"

// counted are what the numbers of some factors count, where it isn't the
// factor's name.
var counted = map[string]string{"replication": "replicas"}

// rateFactor is the factor whose numbers are operations per second.
const rateFactor = "rate"

// FactorName is a factor's name for people: "size_bytes" is "Size".
func FactorName(factor string) string {
	if share, ok := strings.CutSuffix(factor, percentSuffix); ok {
		factor = share + "_ratio"
	}
	return Capital(strings.ReplaceAll(strings.TrimSuffix(factor, sizeSuffix), "_", " "))
}

// LevelText is a level for people, on an axis that names its factor.
func LevelText(factor string, level any) string {
	f, isNumber := level.(float64)
	switch {
	case isNumber && strings.HasSuffix(factor, sizeSuffix):
		return sizeText(f)
	case isNumber && strings.HasSuffix(factor, percentSuffix):
		return strconv.FormatFloat(f, 'g', 6, 64) + " %"
	case isNumber && factor == rateFactor:
		return quantityOf(offeredLoad).tickText(f)
	case isNumber:
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	if text, ok := level.(string); ok {
		return text
	}
	return results.FormatLevel(level)
}

// FactorLevel is a level for people where nothing else names its factor, such
// as "4 clients", "size 64 KiB" or "no pin". Words speak for themselves.
func FactorLevel(factor string, level any) string {
	name := strings.ToLower(FactorName(factor))
	switch v := level.(type) {
	case bool:
		if !v {
			return "no " + name
		}
		return name
	case float64:
		text := LevelText(factor, level)
		switch {
		case factor == rateFactor:
			return text
		case strings.HasSuffix(factor, sizeSuffix), strings.HasSuffix(factor, percentSuffix):
			return name + " " + text
		}
		if things, ok := counted[factor]; ok {
			name = things
		}
		if v == 1 {
			name = strings.TrimSuffix(name, "s")
		}
		return text + " " + name
	case string:
		if v == "none" {
			return "no " + name
		}
	}
	return LevelText(factor, level)
}

// PlaceText is a level of a figure's x factor within a sentence: "64 KiB", but
// "4 clients", and "a hit ratio of 50 %".
func PlaceText(factor string, level any) string {
	if strings.HasSuffix(factor, percentSuffix) {
		return "a " + strings.ToLower(FactorName(factor)) + " of " + LevelText(factor, level)
	}
	if _, isNumber := level.(float64); isNumber && !strings.HasSuffix(factor, sizeSuffix) {
		return FactorLevel(factor, level)
	}
	return LevelText(factor, level)
}

// seriesLevel names a series: words stand alone, numbers need their factor.
func seriesLevel(factor string, level any) string {
	if text, ok := level.(string); ok {
		return text
	}
	return FactorLevel(factor, level)
}

// sizeText writes a number of bytes in binary units, as file systems count: in
// the largest that needs no more than quarters. So 1025 B are not 1.001 KiB.
func sizeText(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 && (math.Mod(bytes, 256) == 0 || i > 0) {
		bytes /= 1024
		i++
	}
	digits := 4
	if i == 0 {
		digits = -1
	}
	return strconv.FormatFloat(bytes, 'g', digits, 64) + " " + units[i]
}

// Capital makes the first letter a capital.
func Capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}
