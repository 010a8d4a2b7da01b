package imagepull

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Pull is one pull of one image.
type Pull struct {
	// Image is the name as the job gives it.
	Image string
	// User is whom the registry was told to be asking, for the words of an error; empty for a pull without credentials.
	User string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// interval is the least time between two lines about one image.
const interval = time.Second

// message is what we read of one object of the Engine's stream.
type message struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Detail struct {
		Current int64  `json:"current"`
		Total   int64  `json:"total"`
		Units   string `json:"units"` // empty: bytes
	} `json:"progressDetail"`
	Error       string `json:"error"`
	ErrorDetail struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// failure is the Engine's text of an error, or "".
func (m message) failure() string {
	if m.ErrorDetail.Message != "" {
		return m.ErrorDetail.Message
	}
	return m.Error
}

// Show reads the stream of a pull to its end and writes lines to out: one at the start, one at the end, and in between one a second
// at most. Each line is one call of Write, so that pulls which share a locked writer don't mix. A pull that fails has no last line,
// but an *Error; what out refuses is returned as well. The stream stays open: close it, which also ends a pull that is still going on.
func (p Pull) Show(out io.Writer, stream io.Reader) error {
	now := p.Now
	if now == nil {
		now = time.Now
	}
	say := func(text string) error {
		if _, err := io.WriteString(out, p.name()+": "+text+"\n"); err != nil {
			return fmt.Errorf("cannot show the progress of a pull: %w", err)
		}
		return nil
	}
	begin := now()
	if err := say("pulling"); err != nil {
		return err
	}
	last, lastText := begin, ""
	layers := newLayers()
	decoder := json.NewDecoder(stream)
	for {
		var m message
		err := decoder.Decode(&m)
		var unfit *json.UnmarshalTypeError
		switch {
		case errors.As(err, &unfit): // the rest of the object is there
		case errors.Is(err, io.EOF):
			return say(layers.summary(now().Sub(begin)))
		case err != nil:
			return p.broken(err)
		}
		if text := m.failure(); text != "" {
			return p.Explain(errors.New(text))
		}
		if !layers.update(m) || now().Sub(last) < interval {
			continue
		}
		if text := layers.String(); text != "" && text != lastText {
			if err := say(text); err != nil {
				return err
			}
			last, lastText = now(), text
		}
	}
}

// layers is how far the layers of an image are.
type layers struct {
	byID map[string]*layer
	// order of their coming, so that sums are made the same way each time.
	order    []*layer
	retrying bool
	upToDate bool
}

type layer struct {
	size       int64 // 0 while it isn't known
	downloaded int64
	unpacked   int64
	complete   bool // all of it is downloaded
	unpacking  bool
}

func newLayers() *layers { return &layers{byID: map[string]*layer{}} }

// update takes in a message; false if it is about nothing that is shown.
func (l *layers) update(m message) bool {
	switch {
	case strings.HasPrefix(m.Status, "Status: Image is up to date"):
		l.upToDate = true
		return false
	case m.ID == "":
		return false
	}
	current, total := bounded(m.Detail.Current), bounded(m.Detail.Total)
	switch status := m.Status; {
	case status == "Pulling fs layer" || status == "Waiting":
		l.get(m.ID)
	case status == "Downloading":
		l.retrying = false
		this := l.get(m.ID)
		this.size = max(total, this.size)
		this.downloaded = current
	case strings.HasPrefix(status, "Retrying in "):
		l.retrying = true
		l.get(m.ID)
	case status == "Download complete":
		l.get(m.ID).done()
	case status == "Extracting":
		this := l.get(m.ID)
		this.done()
		this.unpacking = true
		if m.Detail.Units == "" {
			this.size = max(total, this.size)
			this.downloaded = this.size
			this.unpacked = min(current, this.size)
		}
	case status == "Pull complete":
		this := l.get(m.ID)
		this.done()
		this.unpacking, this.unpacked = true, this.size
	default:
		return false
	}
	return true
}

func (l *layers) get(id string) *layer {
	if l.byID[id] == nil {
		l.byID[id] = &layer{}
		l.order = append(l.order, l.byID[id])
	}
	return l.byID[id]
}

func (y *layer) done() {
	y.size = max(y.size, y.downloaded)
	y.downloaded, y.complete = y.size, true
}

// bounded keeps sums of what the Engine says within their type.
func bounded(n int64) int64 { return min(max(n, 0), 1<<50) }

// sums are over all layers; exact is false while the size of one isn't known.
func (l *layers) sums() (downloaded, unpacked, size int64, complete, exact bool) {
	complete, exact = true, true
	for _, y := range l.order {
		downloaded += y.downloaded
		unpacked += y.unpacked
		size += max(y.size, y.downloaded)
		complete = complete && y.complete
		exact = exact && (y.complete || y.size > 0)
	}
	return downloaded, unpacked, size, complete, exact
}

// String is what is to be told now; empty before anything is known.
func (l *layers) String() string {
	downloaded, unpacked, size, complete, exact := l.sums()
	var text string
	switch {
	case complete && l.unpacking() && size > 0:
		text = "unpacking, " + megabytes(unpacked, size) + " of " + megabytes(size, size) + " MB"
	case size > 0 && exact:
		text = megabytes(downloaded, size) + " of " + megabytes(size, size) + " MB"
	case size > 0:
		text = megabytes(downloaded, size) + " of at least " + megabytes(size, size) + " MB"
	}
	if l.retrying {
		return strings.TrimPrefix(text+", a download failed and is tried again", ", ")
	}
	return text
}

func (l *layers) unpacking() bool {
	for _, y := range l.order {
		if y.unpacking {
			return true
		}
	}
	return false
}

// summary is told at the end.
func (l *layers) summary(took time.Duration) string {
	_, _, size, _, _ := l.sums()
	switch {
	case l.upToDate:
		return "up to date, nothing to download"
	case size == 0:
		return "pulled in " + seconds(took) + " s"
	default:
		return fmt.Sprintf("pulled, %s MB in %s s", megabytes(size, size), seconds(took))
	}
}

// megabytes gives n bytes in units of a million, as registries count, with a decimal if the whole is small.
func megabytes(n, whole int64) string {
	if whole < 10e6 {
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64)
	}
	return strconv.FormatFloat(float64(n)/1e6, 'f', 0, 64)
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64)
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 0, 64)
}
