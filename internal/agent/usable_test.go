package agent

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestUsable(t *testing.T) {
	for address, want := range map[string]bool{
		"https://logs.example/api": true, "http://127.0.0.1:80/x?y": true,
		"": false, "logs.example/api": false, "ftp://logs.example/": false, "https://": false, "http://a b/": false, "\n": false,
	} {
		assert.Equal(t, want, usable(address), "%q", address)
	}
}
