package told

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a writer whose content may be looked at meanwhile.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func write(t *testing.T, o *Output, text string) {
	t.Helper()
	_, err := o.Write([]byte(text))
	require.NoError(t, err)
}

func TestLinesComeBetweenLines(t *testing.T) {
	board, out := NewBoard(), &buffer{}
	o := Over(out, board)
	board.Tell("before\n")
	stop := o.Follow()
	comes := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool { return out.String() == text }, time.Minute, time.Millisecond, out)
	}
	comes("before\n")
	write(t, o, "a line\nhalf")
	board.Tell("told\n")
	write(t, o, " a line")
	write(t, o, "\n")
	comes("before\na line\nhalf a line\ntold\n")
	board.Tell("at once\n")
	comes("before\na line\nhalf a line\ntold\nat once\n")
	stop()
	board.Tell("later\n")
	assert.Equal(t, "before\na line\nhalf a line\ntold\nat once\n", out.String())
	texts, _ := board.Take()
	assert.Equal(t, []string{"later\n"}, texts)
}

// What waits for the end of a line that doesn't come is told at the command's end, on a line of its own.
func TestTheLastLineIsUnfinished(t *testing.T) {
	board, out := NewBoard(), &buffer{}
	o := Over(out, board)
	stop := o.Follow()
	write(t, o, "unfinished")
	board.Tell("told\n")
	stop()
	assert.Equal(t, "unfinished\ntold\n", out.String())
	o.Line("last\n")
	assert.Equal(t, "unfinished\ntold\nlast\n", out.String())
}
