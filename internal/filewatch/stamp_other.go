//go:build !linux

package filewatch

import "io/fs"

func identity(fs.FileInfo) string { return "" }
