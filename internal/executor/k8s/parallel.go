package k8s

import (
	"errors"
	"sync"
)

// inParallel does something with each, side by side, and returns when all is done, with all errors.
func inParallel[T any](all []T, do func(int, T) error) error {
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, one := range all {
		group.Go(func() { errs[i] = do(i, one) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func codeOf(err error) int {
	if err != nil {
		return 1
	}
	return 0
}
