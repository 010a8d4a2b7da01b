//go:build !linux

package process

func inSessions([]Identity) ([]int, error) { return nil, nil }
