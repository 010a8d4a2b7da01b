package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// On a terminal each frame takes the place of the one before, and a shorter one leaves nothing of it.
func TestRedraw(t *testing.T) {
	var out bytes.Buffer
	draw := redraw(&out)
	require.NoError(t, draw([]byte("one\ntwo\n")))
	assert.Equal(t, "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J", out.String())
	out.Reset()
	require.NoError(t, draw([]byte("1\n")))
	assert.Equal(t, "\x1b[H1\x1b[K\n\x1b[J", out.String())
}

func TestBytesOf(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1.0KiB", 1 << 20: "1.0MiB", 5 << 30: "5.0GiB", 5 << 40: "5120.0GiB"} {
		assert.Equal(t, want, bytesOf(n))
	}
}
