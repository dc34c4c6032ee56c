package figure

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waggle/results"
)

// sizeSuffix marks factors that hold a number of bytes.
const sizeSuffix = "_bytes"

// rateFactor is the factor whose numbers are operations per second.
const rateFactor = "rate"

// FactorName is a factor's name for people: "size_bytes" is "Size".
func FactorName(factor string) string {
	return Capital(strings.ReplaceAll(strings.TrimSuffix(factor, sizeSuffix), "_", " "))
}

// LevelText is a level for people, on an axis that names its factor.
func LevelText(factor string, level any) string {
	f, isNumber := level.(float64)
	switch {
	case isNumber && strings.HasSuffix(factor, sizeSuffix):
		return sizeText(f)
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
// as "4 clients" or "topology hosts".
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
		case strings.HasSuffix(factor, sizeSuffix):
			return name + " " + text
		}
		if v == 1 {
			name = strings.TrimSuffix(name, "s")
		}
		return text + " " + name
	}
	return LevelText(factor, level)
}

// PlaceText is a level of a figure's x factor within a sentence: "64 KiB", but
// "4 clients".
func PlaceText(factor string, level any) string {
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

// sizeText writes a number of bytes in binary units, as file systems count.
func sizeText(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return strconv.FormatFloat(bytes, 'g', 4, 64) + " " + units[i]
}

// Capital makes the first letter a capital.
func Capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}
