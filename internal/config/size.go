package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// sizeUnits goes from the largest to the smallest, so that String finds the shortest text.
var sizeUnits = []struct {
	name  string
	bytes Size
}{
	{"TiB", TiB}, {"TB", 1e12}, {"GiB", GiB}, {"GB", 1e9}, {"MiB", MiB}, {"MB", 1e6}, {"KiB", KiB}, {"KB", 1e3}, {"B", 1},
}

var sizeText = regexp.MustCompile(`^(\d{1,18})\s*([A-Za-z]*)$`)

// ParseSize reads a size such as "64 MiB", "10GB" or "1000" (bytes).
func ParseSize(text string) (Size, error) {
	m := sizeText.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a whole number and a unit, such as \"500MB\" or \"1GiB\"", text)
	}
	number, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", text)
	}
	unit := m[2]
	if unit == "" {
		unit = "B"
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(u.name, unit) {
			continue
		}
		if number > math.MaxInt64/int64(u.bytes) {
			return 0, fmt.Errorf("%q is too large a size", text)
		}
		return Size(number) * u.bytes, nil
	}
	return 0, fmt.Errorf("%q has no unit that is known; units are B, KB, MB, GB, TB, KiB, MiB, GiB and TiB", text)
}

// String writes the size as ParseSize reads it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
