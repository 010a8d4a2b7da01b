package imagepull

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// timed is a stream whose messages come at given times; its clock stands at the time of the last one that was read.
type timed struct {
	messages []at
	rest     string
	time     time.Time
	end      error
}

// at is a message after so many milliseconds.
type at struct {
	ms   int
	text string
}

func stream(messages ...at) *timed { return &timed{messages: messages, end: io.EOF} }

func (s *timed) now() time.Time { return s.time }

func (s *timed) Read(p []byte) (int, error) {
	if s.rest == "" {
		if len(s.messages) == 0 {
			return 0, s.end
		}
		s.rest, s.time = s.messages[0].text, time.Time{}.Add(time.Duration(s.messages[0].ms)*time.Millisecond)
		s.messages = s.messages[1:]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// show gives the lines of a pull of debian:12.
func show(s *timed) ([]string, error) {
	var out bytes.Buffer
	err := Pull{Image: "debian:12", Now: s.now}.Show(&out, s)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), err
}

func TestShow(t *testing.T) {
	const (
		pulling = `{"status":"Pulling from library/debian","id":"12"}`
		newer   = `{"status":"Digest: sha256:79e7"}{"status":"Status: Downloaded newer image for debian:12"}`
	)
	for name, c := range map[string]struct {
		stream *timed
		want   []string
	}{
		"sums over layers, a line a second, layer noise left out": {
			stream(at{0, pulling},
				at{100, `{"status":"Pulling fs layer","progressDetail":{},"id":"a"}{"status":"Pulling fs layer","progressDetail":{},"id":"b"}{"status":"Waiting","progressDetail":{},"id":"b"}`},
				at{150, `{"status":"Already exists","progressDetail":{},"id":"c"}`},
				at{900, `{"status":"Downloading","progressDetail":{"current":10000000,"total":90000000},"progress":"[==>   ]","id":"a"}`},
				at{1000, `{"status":"Downloading","progressDetail":{"current":20000000,"total":90000000},"id":"a"}`},
				at{1999, `{"status":"Downloading","progressDetail":{"current":30000000,"total":90000000},"id":"a"}`},
				at{2000, `{"status":"Downloading","progressDetail":{"current":4000000,"total":30000000},"id":"b"}`},
				at{3500, `{"status":"Downloading","progressDetail":{"current":4000000,"total":30000000},"id":"b"}`},
				at{3600, `{"status":"Verifying Checksum","progressDetail":{},"id":"a"}{"status":"Download complete","progressDetail":{},"id":"a"}`},
				at{5000, `{"status":"Extracting","progressDetail":{"current":45000000,"total":90000000},"id":"a"}`},
				at{6000, `{"status":"Download complete","progressDetail":{},"id":"b"}`},
				at{7000, `{"status":"Pull complete","progressDetail":{},"id":"a"}`},
				at{8000, `{"status":"Extracting","progressDetail":{"current":15000000,"total":30000000},"id":"b"}`},
				at{8100, `{"status":"Pull complete","progressDetail":{},"id":"b"}`},
				at{12300, newer}),
			[]string{
				"debian:12: pulling",
				"debian:12: 20 of at least 90 MB",
				"debian:12: 34 of 120 MB",
				"debian:12: 94 of 120 MB",
				"debian:12: unpacking, 45 of 120 MB",
				"debian:12: unpacking, 90 of 120 MB",
				"debian:12: unpacking, 105 of 120 MB",
				"debian:12: pulled, 120 MB in 12 s",
			},
		},
		"a small image has decimals": {
			stream(at{0, pulling}, at{1100, `{"status":"Downloading","progressDetail":{"current":340000,"total":1987072},"id":"a"}`},
				at{1200, `{"status":"Pull complete","progressDetail":{},"id":"a"}`}, at{1300, newer}),
			[]string{"debian:12: pulling", "debian:12: 0.3 of 2.0 MB", "debian:12: pulled, 2.0 MB in 1.3 s"},
		},
		"up to date": {
			stream(at{0, pulling}, at{200, `{"status":"Digest: sha256:79e7"}{"status":"Status: Image is up to date for debian:12"}`}),
			[]string{"debian:12: pulling", "debian:12: up to date, nothing to download"},
		},
		"only layers that are there": {
			stream(at{0, pulling}, at{200, `{"status":"Already exists","progressDetail":{},"id":"c"}`}, at{300, newer}),
			[]string{"debian:12: pulling", "debian:12: pulled in 0.3 s"},
		},
		"a download that is tried again": {
			stream(at{0, pulling}, at{900, `{"status":"Downloading","progressDetail":{"current":40000000,"total":90000000},"id":"a"}`},
				at{1500, `{"status":"Retrying in 5 seconds","progressDetail":{},"id":"a"}`},
				at{2500, `{"status":"Retrying in 4 seconds","progressDetail":{},"id":"a"}`},
				at{7000, `{"status":"Downloading","progressDetail":{"current":1000000,"total":90000000},"id":"a"}`},
				at{9000, `{"status":"Pull complete","progressDetail":{},"id":"a"}`}, at{9000, newer}),
			[]string{
				"debian:12: pulling",
				"debian:12: 40 of 90 MB, a download failed and is tried again",
				"debian:12: 1 of 90 MB",
				"debian:12: unpacking, 90 of 90 MB",
				"debian:12: pulled, 90 MB in 9.0 s",
			},
		},
		"the containerd store unpacks in seconds": {
			stream(at{0, pulling}, at{10, `{"status":"Downloading","progressDetail":{"current":10,"total":50000000},"id":"a"}`},
				at{20, `{"status":"Download complete","progressDetail":{"hidecounts":true},"id":"a"}`},
				at{2000, `{"status":"Extracting","progressDetail":{"current":2,"units":"s"},"id":"a"}`}, at{3000, newer}),
			[]string{"debian:12: pulling", "debian:12: unpacking, 0 of 50 MB", "debian:12: pulled, 50 MB in 3.0 s"},
		},
		"sizes that can't be": {
			stream(at{0, pulling}, at{1000, `{"status":"Downloading","progressDetail":{"current":-5,"total":-1},"id":"a"}`},
				at{2000, `{"status":"Downloading","progressDetail":{"current":20000000,"total":-1},"id":"a"}`},
				at{3000, `{"status":"Downloading","progressDetail":{"current":"x","total":1},"id":"b"}`},
				at{4000, `{"status":"Pull complete","id":"a"}{"status":"Pull complete","id":"b"}` + newer}),
			[]string{"debian:12: pulling", "debian:12: 20 of at least 20 MB", "debian:12: 20 of 20 MB", "debian:12: pulled, 20 MB in 4.0 s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := show(c.stream)
			require.NoError(t, err)
			assert.Equal(t, c.want, lines)
		})
	}
}

func TestErrorInStream(t *testing.T) {
	for _, text := range []string{
		`{"errorDetail":{"message":"write /a: no space left on device"},"error":"write /a: no space left on device"}`,
		`{"error":"write /a: no space left on device"}`,
		`{"errorDetail":{"message":"write /a: no space left on device","code":"odd"}}`,
	} {
		lines, err := show(stream(at{0, `{"status":"Pulling from x","id":"1"}`}, at{1, text}, at{2, `{"status":"Status: never shown"}`}))
		assert.Equal(t, []string{"debian:12: pulling"}, lines)
		var failed *Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, DiskFull, failed.Reason)
	}
}

func TestStreamThatBreaksOff(t *testing.T) {
	half := at{0, `{"status":"Pulling fs layer","id":"a"}{"status":"Down`}
	for name, c := range map[string]struct {
		end    error
		reason Reason
		say    string
	}{
		"cut in a message": {io.EOF, Engine, "cannot pull debian:12: the Docker engine broke off the pull: see whether it was restarted (unexpected EOF)"},
		"connection lost":  {errors.New("read unix: connection reset by peer"), Engine, "cannot pull debian:12: the Docker engine broke off the pull: see whether it was restarted (read unix: connection reset by peer)"},
		"stopped":          {context.Canceled, Stopped, "cannot pull debian:12: it was stopped: context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			s := stream(half)
			s.end = c.end
			_, err := show(s)
			var failed *Error
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, c.reason, failed.Reason)
			assert.EqualError(t, err, c.say)
			if !errors.Is(c.end, io.EOF) {
				assert.ErrorIs(t, err, c.end)
			}
		})
	}
	_, err := show(stream(at{0, "<html>"}))
	assert.ErrorContains(t, err, "cannot pull debian:12: the Docker engine's answer isn't understood")
}

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestOutputThatIsRefused(t *testing.T) {
	for left := range 3 {
		s := stream(at{0, `{"status":"Waiting","id":"a"}`}, at{1000, `{"status":"Downloading","progressDetail":{"current":1000000,"total":3000000},"id":"a"}`})
		err := Pull{Image: "a", Now: s.now}.Show(&full{left: left}, s)
		assert.ErrorIs(t, err, io.ErrShortWrite, left)
	}
}

// FuzzShow: whatever the engine says, lines are lines of text about the image, and no more than one a second besides first and last.
func FuzzShow(f *testing.F) {
	f.Add("debian:12", `{"status":"Downloading","progressDetail":{"current":10,"total":90},"id":"a"}{"status":"Pull complete","id":"a"}`, uint16(300))
	f.Add("a", `{"status":"Retrying in 3 seconds","id":"a"}{"status":"Waiting","id":"b"}{"status":"Extracting","progressDetail":{"current":9223372036854775807,"total":9223372036854775807},"id":"b"}`, uint16(1500))
	f.Add("a\x1b[2J\nb", `{"error":"no such\nhost \u001b[31m \u2028"}`, uint16(0))
	f.Add("denied", `{"errorDetail":{"message":"pull access denied for https://a:b@c/?d"}}`, uint16(0))
	f.Add("", `{"status":"Status: Image is up to date"}{"progressDetail":[]}{`, uint16(0))
	f.Fuzz(func(t *testing.T, image, text string, step uint16) {
		var passed time.Duration
		clock := func() time.Time {
			passed += time.Duration(step) * time.Millisecond
			return time.Time{}.Add(passed)
		}
		var out bytes.Buffer
		pull := Pull{Image: image, User: image, Now: clock}
		err := pull.Show(&out, strings.NewReader(text))
		lines := strings.SplitAfter(out.String(), "\n")
		require.Empty(t, lines[len(lines)-1], "the last line ends, too")
		lines = lines[:len(lines)-1]
		require.NotEmpty(t, lines)
		require.LessOrEqual(t, len(lines), 2+int(passed/interval))
		if err != nil {
			lines = append(lines, err.Error()+"\n")
		}
		for _, line := range lines {
			require.True(t, utf8.ValidString(line), "%q", line)
			require.Less(t, len(line), 4000)
			require.Equal(t, -1, strings.IndexFunc(line[:len(line)-1], unicode.IsControl), "%q", line)
		}
	})
}
