package settings

import "slices"

// BuiltIn are the names of the executors that come with Signalman.
var BuiltIn = []string{"shell", "compose", "k8s"}

// IsBuiltIn tells whether an executor of this name comes with Signalman.
func IsBuiltIn(executor string) bool { return slices.Contains(BuiltIn, executor) }
