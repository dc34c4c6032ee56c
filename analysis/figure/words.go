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

// factorName is a factor's name for people: "size_bytes" is "Size".
func factorName(factor string) string {
	return capital(strings.ReplaceAll(strings.TrimSuffix(factor, sizeSuffix), "_", " "))
}

// levelText is a level for people, on an axis that names its factor.
func levelText(factor string, level any) string {
	f, isNumber := level.(float64)
	switch {
	case isNumber && strings.HasSuffix(factor, sizeSuffix):
		return sizeText(f)
	case isNumber:
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	if text, ok := level.(string); ok {
		return text
	}
	return results.FormatLevel(level)
}

// factorLevel is a level for people where nothing else names its factor, such
// as "4 clients" or "topology hosts".
func factorLevel(factor string, level any) string {
	name := strings.ToLower(factorName(factor))
	switch v := level.(type) {
	case bool:
		if !v {
			return "no " + name
		}
		return name
	case float64:
		text := levelText(factor, level)
		if strings.HasSuffix(factor, sizeSuffix) {
			return name + " " + text
		}
		if v == 1 {
			name = strings.TrimSuffix(name, "s")
		}
		return text + " " + name
	}
	return levelText(factor, level)
}

// seriesLevel names a series: words stand alone, numbers need their factor.
func seriesLevel(factor string, level any) string {
	if text, ok := level.(string); ok {
		return text
	}
	return factorLevel(factor, level)
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

func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}
