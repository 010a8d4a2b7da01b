package artifact

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/signalman-ci/signalman/shared/eventlog"
)

// compressedSuffix is what the name of a compressed text ends with.
const compressedSuffix = ".gz"

// writeText writes an event log as plain text to a file: under the path, or compressed and under the path with a suffix if the text is
// larger than limit. What was there goes first: the command of a supervisor that was killed may still be reading it.
func writeText(ctx context.Context, events, path string, limit int64) (written string, err error) {
	if err := removeText(path); err != nil {
		return "", err
	}
	log, err := os.Open(events)
	if err != nil {
		return "", err
	}
	defer log.Close()
	out := &textFile{path: path, limit: limit}
	defer func() { err = errors.Join(err, out.close()) }()
	if out.plain, err = create(path); err != nil {
		return "", err
	}
	if err := eventlog.Text(out, untilEnd{ctx, log}); err != nil {
		return "", err
	}
	return out.finish()
}

func removeText(path string) error {
	var errs []error
	for _, p := range []string{path, path + compressedSuffix} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// untilEnd reads until ctx ends.
type untilEnd struct {
	ctx context.Context
	r   io.Reader
}

func (u untilEnd) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// textFile is a file that becomes a compressed one when it is larger than its limit, so that a long text is worked out once and
// takes little space.
type textFile struct {
	path   string
	limit  int64
	size   int64
	plain  *os.File
	packed *os.File
	gzip   *gzip.Writer // nil while the text is plain
}

func (t *textFile) Write(p []byte) (int, error) {
	t.size += int64(len(p))
	if t.gzip == nil && t.size > t.limit {
		if err := t.compress(); err != nil {
			return 0, err
		}
	}
	if t.gzip != nil {
		return t.gzip.Write(p)
	}
	return t.plain.Write(p)
}

// compress goes on in a compressed file, with what there is so far.
func (t *textFile) compress() (err error) {
	if t.packed, err = create(t.path + compressedSuffix); err != nil {
		return err
	}
	if t.gzip, err = gzip.NewWriterLevel(t.packed, gzip.BestSpeed); err != nil {
		return err
	}
	if _, err := t.plain.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(t.gzip, t.plain); err != nil {
		return fmt.Errorf("cannot compress the text: %w", err)
	}
	return os.Truncate(t.path, 0)
}

// finish completes the file and tells its path.
func (t *textFile) finish() (string, error) {
	if t.gzip == nil {
		return t.path, nil
	}
	return t.path + compressedSuffix, t.gzip.Close()
}

func (t *textFile) close() error {
	err := t.plain.Close()
	if t.packed != nil {
		err = errors.Join(err, t.packed.Close())
	}
	return err
}
