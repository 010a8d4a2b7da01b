package admission

import (
	"os"
	"path/filepath"
)

// deviceOf tells file systems apart.
func deviceOf(folder string) (any, error) {
	if _, err := os.Stat(folder); err != nil {
		return nil, withoutPath(err)
	}
	return filepath.VolumeName(folder), nil
}
