//go:build !linux

package plugins

import (
	"bytes"
	"runtime"
	"slices"
)

// magics are how programs of this system begin: PE on Windows, Mach-O of one or several architectures on macOS.
var magics = map[string][]string{
	"windows": {"MZ"},
	"darwin":  {"\xcf\xfa\xed\xfe", "\xce\xfa\xed\xfe", "\xca\xfe\xba\xbe", "\xca\xfe\xba\xbf"},
}

func isProgram(head []byte) bool {
	known, ok := magics[runtime.GOOS]
	return !ok || slices.ContainsFunc(known, func(m string) bool { return bytes.HasPrefix(head, []byte(m)) })
}

func checkMachine([]byte) error { return nil }
