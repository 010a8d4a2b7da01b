//go:build !unix

package doctor

import "context"

// files finds nothing where there is no such limit.
func files(context.Context, Settings) []Check { return nil }
