package filewatch

import (
	"fmt"
	"io/fs"
	"time"
)

// Stamp is a text that differs when a file was changed or replaced, without reading the file: from its size, mode, time of
// change and, where the system has such, inode and ctime, which can't be set back. Two writes within a tick of the kernel's
// clock (4 ms) that leave the size as it is look the same; see Settled.
func Stamp(info fs.FileInfo) string {
	return fmt.Sprintf("%d %s %s %s", info.Size(), info.Mode(), info.ModTime().UTC().Format(time.RFC3339Nano), identity(info))
}

// settling is longer than a tick of any kernel's or file system's clock.
const settling = 3 * time.Second

// Settled tells whether a file was changed so long ago that any later change will show in its stamp.
func Settled(info fs.FileInfo) bool {
	age := time.Since(lastChange(info))
	return age > settling
}
