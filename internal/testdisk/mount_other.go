//go:build !linux

package testdisk

import (
	"errors"
	"testing"
)

func mount(testing.TB, string, Limits) error { return errors.ErrUnsupported }
