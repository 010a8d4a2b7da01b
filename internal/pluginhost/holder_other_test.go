//go:build unix && !linux

package pluginhost

func hold() {}

func holdable() {}
