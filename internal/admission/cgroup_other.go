//go:build !linux

package admission

import "math"

func leftByCgroup() uint64 { return math.MaxUint64 }
