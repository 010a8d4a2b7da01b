//go:build !linux

package filewatch

import (
	"io/fs"
	"time"
)

func identity(fs.FileInfo) string { return "" }

func lastChange(info fs.FileInfo) time.Time { return info.ModTime() }
