// Package jobdir is a job's folder on disk, as the supervisor keeps it: <state-dir>/jobs/<job id>/.
//
//	job.json       slot, worker, outcome: written by the supervisor, whole and for good
//	acked.json     acknowledged index: written by the supervisor with every batch, older after a power loss
//	request.json   the job request without the log's token; goes at the job's end
//	events.jsonl   the event log (package eventlog), written by the worker while it lives
//	log.txt(.gz)   the log as it is pushed to the job's artifacts, while it is: written by the supervisor
//	worker.log     what the worker says on its standard error
//	tmp/           the job's TMPDIR; goes at the job's end
//
// The folder is all a new supervisor needs to go on with a job.
package jobdir

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signalman-ci/signalman/internal/process"
)

// State is the content of job.json.
type State struct {
	JobID string `json:"job_id"`
	// Slot is the number of the slot that holds the job, from 1.
	Slot int `json:"slot"`
	// Name is the job's name at the hub, in one line and cut to what fits; "" while its request isn't there.
	Name  string    `json:"name,omitempty"`
	Taken time.Time `json:"taken"`
	// Worker is nil until a worker was launched. It is written before the worker is given the job: a job without it
	// has not begun.
	Worker *Worker `json:"worker,omitempty"`
	// Timeout is how long the job may take, and Deadline when that is over; 0 is no limit.
	Timeout  time.Duration `json:"timeout,omitempty"`
	Deadline time.Time     `json:"deadline,omitzero"`
	// Acked is how many events the hub has for certain, and AckedOffset where the next one starts in the event log. It grows
	// only, and is what Note is for, with the fields of the next two.
	Acked       int64 `json:"acked"`
	AckedOffset int64 `json:"acked_offset"`
	// LostTo is the index after the last event of a request to the log service that is under way from Acked; 0 if none is.
	LostTo int64 `json:"lost_to,omitempty"`
	// LostUntil is when that request can't be carried out any more; zero while it is under way.
	LostUntil time.Time `json:"lost_until,omitzero"`
	// Ending is why the job ends without its worker, once that is known: the supervisor may die before the log says so.
	Ending *Ending `json:"ending,omitempty"`
	// LogFull is set when the hub wants no more of this log.
	LogFull bool `json:"log_full,omitempty"`
	// LogPushed is when the log was pushed to the job's artifacts, or that has failed for good.
	LogPushed time.Time `json:"log_pushed,omitzero"`
	// StopRequested is set when the hub asked to stop the job.
	StopRequested bool `json:"stop_requested,omitempty"`
	// StopReason is why the job is stopped, if that isn't the hub's wish; in one line, for the job's log.
	StopReason string `json:"stop_reason,omitempty"`
	// Outcome is the job's result ("passed", "failed", "stopped") once its log has ended.
	Outcome string `json:"outcome,omitempty"`
	// Reason is why the job has not passed, in one line without secrets and cut to what fits; "" if it has, or nobody knows.
	Reason string `json:"reason,omitempty"`
	// Ended is when the log has ended, LogEvents and LogBytes what it came to; they are set with Outcome.
	Ended     time.Time `json:"ended,omitzero"`
	LogEvents int64     `json:"log_events,omitempty"`
	LogBytes  int64     `json:"log_bytes,omitempty"`
	// Done is when the hub knew the outcome; until then the job is the slot's.
	Done time.Time `json:"done,omitzero"`
}

// Worker is how to find a job's worker again.
type Worker struct {
	Executor string           `json:"executor"`
	Process  process.Identity `json:"process"`
	// Network and Address are the worker's socket as go-plugin knows it.
	Network string `json:"network"`
	Address string `json:"address"`
	// Protocol is the version of the executor contract that was negotiated.
	Protocol int `json:"protocol"`
}

// Ending is how a log is to be closed whose worker can't.
type Ending struct {
	// Directive is the section's if none is open, Text its output, a line.
	Directive string `json:"directive"`
	Text      string `json:"text"`
	// Result is "failed" or "stopped".
	Result string `json:"result"`
}

// MaxSlots bounds the slots that a folder may name: the start makes as many.
const MaxSlots = 1024

// Folder is one job's folder. It is safe for concurrent use by one process, which holds the state folder's lock.
type Folder struct {
	path string

	mu    sync.Mutex
	state State
}

const (
	requestName = "request.json"
	tempName    = "tmp"
	textName    = "log.txt"
)

var goodID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// CheckID refuses a job id that can't be part of a path.
func CheckID(id string) error {
	if !goodID.MatchString(id) || id == "." || id == ".." {
		return fmt.Errorf("job id %.200q: it may hold letters, digits, '-', '_' and '.' only, up to 128 of them", id)
	}
	return nil
}

// folderName is a job's id, or, where that can't be the name of a folder, one made from its hash: such a job has to end as
// failed, which the agent's log says (its request, and with it the place of its own log, can't be had).
func folderName(jobID string) string {
	if CheckID(jobID) == nil && filepath.Ext(jobID) != asideSuffix {
		return jobID
	}
	return fmt.Sprintf("bad-id-%x", sha256.Sum256([]byte(jobID)))
}

// ErrInProgress says that there is a folder of that job, and it isn't over.
var ErrInProgress = errors.New("the job is in progress here already")

// Path is the folder of a job in the folder of job folders.
func Path(jobs, jobID string) string { return filepath.Join(jobs, folderName(jobID)) }

// IsFolder tells whether a name in the folder of job folders can be that of a job's.
func IsFolder(name string) bool {
	return filepath.Ext(name) != asideSuffix && goodID.MatchString(name)
}

// Create makes the folder of a job that a slot has taken, anew if there is one of a job that is over; else it fails with
// ErrInProgress.
func Create(jobs string, jobID string, slot int) (*Folder, error) {
	f := &Folder{path: Path(jobs, jobID), state: State{JobID: jobID, Slot: slot, Taken: time.Now()}}
	if old, err := Open(f.path); err == nil && old.State().Done.IsZero() {
		return nil, fmt.Errorf("cannot make the folder of job %s: %w", jobID, ErrInProgress)
	}
	if err := f.Remove(); err != nil {
		return nil, fmt.Errorf("cannot make the folder of job %s: %w", jobID, err)
	}
	if err := f.make(); err != nil { // nothing is left that a start would find broken
		return nil, fmt.Errorf("cannot make the folder of job %s: %w", jobID, errors.Join(err, f.Remove()))
	}
	return f, nil
}

func (f *Folder) make() error {
	// Who may pass through to tmp, which belongs to the job's user, is decided by the folder above.
	if err := os.MkdirAll(f.path, 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(f.TempPath(), 0o700); err != nil {
		return err
	}
	if err := f.Update(func(*State) {}); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(f.path)); err != nil {
		return err
	}
	content, err := ackedContent(f.state)
	if err != nil {
		return err
	}
	return os.WriteFile(f.ackedPath(), content, 0o600) // it has its place then, also on a full disk
}

// Open reads a job's folder.
func Open(path string) (*Folder, error) {
	raw, err := os.ReadFile(filepath.Join(path, "job.json"))
	if err != nil {
		return nil, fmt.Errorf("cannot read job folder: %w", err)
	}
	f := &Folder{path: path}
	if err := json.Unmarshal(raw, &f.state); err != nil {
		return nil, fmt.Errorf("cannot read job folder %s: job.json: %w", path, err)
	}
	f.readAcked()
	if folderName(f.state.JobID) != filepath.Base(path) {
		return nil, fmt.Errorf("cannot read job folder %s: job.json is of job %.200q", path, f.state.JobID)
	}
	if f.state.Slot < 1 || f.state.Slot > MaxSlots {
		return nil, fmt.Errorf("cannot read job folder %s: job.json names slot %d", path, f.state.Slot)
	}
	return f, nil
}

// ID is the job's id, as the hub gave it.
func (f *Folder) ID() string { return f.State().JobID }

// State gives a copy of what job.json says.
func (f *Folder) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Update changes job.json, as a whole or not at all, and for good: also if the host loses its power. On a full disk it goes
// on working.
func (f *Folder) Update(change func(*State)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.state
	change(&next)
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("cannot write job.json: %w", err)
	}
	path := filepath.Join(f.path, "job.json")
	raw = padded(raw, stateSize)
	if err := WriteFile(path, raw); err != nil && overwrite(path, raw, (*os.File).Sync) != nil {
		return err
	}
	f.state = next
	return nil
}

// stateSize is what job.json is filled up to, in bytes: more than its content takes, and within one block, so that the file
// can be changed where it is when there is no room for another one.
const stateSize = 4 << 10

// longestText bounds the texts in job.json that others have written, in bytes.
const longestText = 240

// Line makes a text fit into job.json: one line, without control characters, and not long.
func Line(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(text) <= longestText {
		return text
	}
	end := longestText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// padded fills JSON up to a size with what means nothing in it.
func padded(raw []byte, size int) []byte {
	if len(raw) >= size {
		return raw
	}
	return append(raw, append(bytes.Repeat([]byte(" "), size-len(raw)-1), '\n')...)
}

// overwrite changes a file where it is, without taking more space: by one write within a block, which no end of this process
// can cut in two; a loss of power can. Content that is longer than what is there is refused.
func overwrite(path string, content []byte, sync func(*os.File) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < int64(len(content)) {
		return fmt.Errorf("%s is too short to be changed where it is", path)
	}
	if _, err := file.WriteAt(padded(content, int(info.Size())), 0); err != nil {
		return err
	}
	return sync(file)
}

// EventsPath is the event log.
func (f *Folder) EventsPath() string { return EventsPath(f.path) }

// EventsPath is the event log in a job's folder.
func EventsPath(folder string) string { return filepath.Join(folder, "events.jsonl") }

// WorkerLogPath is the file for the worker's standard error.
func (f *Folder) WorkerLogPath() string { return filepath.Join(f.path, "worker.log") }

// TextPath is the file for the log as plain text.
func (f *Folder) TextPath() string { return filepath.Join(f.path, textName) }

// TempPath is the folder for the job's temporary files.
func (f *Folder) TempPath() string { return filepath.Join(f.path, tempName) }

func (f *Folder) requestPath() string { return filepath.Join(f.path, requestName) }

// SaveRequest keeps the job request, which the hub gives out once.
func (f *Folder) SaveRequest(raw []byte) error { return WriteFile(f.requestPath(), raw) }

// Request gives the job request; its error is fs.ErrNotExist if it has not been had yet, or is gone at the job's end.
func (f *Folder) Request() ([]byte, error) {
	raw, err := os.ReadFile(f.requestPath())
	if err != nil {
		return nil, fmt.Errorf("cannot read the job request: %w", err)
	}
	return raw, nil
}

// Finish notes that the job is over and known to the hub, and removes what holds secrets or is of no use any more.
func (f *Folder) Finish() error {
	err := f.Update(func(s *State) { s.Done = time.Now() })
	return errors.Join(err, removeSecrets(f.path))
}

func removeSecrets(path string) error {
	err := errors.Join(os.RemoveAll(filepath.Join(path, tempName)), RemoveTorn(path))
	for _, name := range []string{requestName, textName, textName + ".gz"} {
		err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(path, name))))
	}
	return err
}

// tornPrefix begins the names of files that WriteFile hasn't completed.
const tornPrefix = ".new-"

// RemoveTorn removes from a folder what WriteFile left when its process died. No other process may be writing there.
func RemoveTorn(dir string) error {
	entries, err := os.ReadDir(dir)
	err = ignoreMissing(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tornPrefix) {
			err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(dir, e.Name()))))
		}
	}
	return err
}

// Unended tells whether a folder is that of a job which the hub doesn't know the end of yet, by a look that costs less than to open it.
func Unended(path string) bool {
	_, err := os.Lstat(filepath.Join(path, tempName))
	return err == nil
}

// Unborn tells whether a folder is that of a job which was just being taken: there is nothing of the job in it yet.
func Unborn(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() != tempName && !strings.HasPrefix(e.Name(), tornPrefix)
	})
}

// asideSuffix marks a folder that couldn't be read and was set aside.
const asideSuffix = ".broken"

// SetAside moves a job folder that can't be read out of the way, without what holds secrets, and tells where to.
func SetAside(path string) (string, error) {
	aside := path + asideSuffix
	if err := errors.Join(os.RemoveAll(aside), os.Rename(path, aside)); err != nil {
		return aside, err
	}
	if info, err := os.Lstat(aside); err != nil || !info.IsDir() {
		return aside, err // a stray file
	}
	return aside, removeSecrets(aside)
}

// Unfinished opens the folders of jobs that the hub doesn't know the end of, oldest first. What can't be read is reported by its path and
// reason, and left alone.
func Unfinished(jobs string) (folders []*Folder, broken map[string]error, err error) {
	entries, err := os.ReadDir(jobs)
	if err != nil {
		return nil, nil, ignoreMissing(err)
	}
	broken = map[string]error{}
	for _, e := range entries {
		path := filepath.Join(jobs, e.Name())
		if filepath.Ext(path) == asideSuffix {
			continue
		}
		f, err := Open(path)
		switch {
		case err != nil:
			broken[path] = err
		case f.State().Done.IsZero():
			folders = append(folders, f)
		default: // a supervisor that died in Finish may have left something
			_ = removeSecrets(path) // the folder goes with the next sweeps in any case
		}
	}
	slices.SortFunc(folders, func(a, b *Folder) int { return a.state.Taken.Compare(b.state.Taken) })
	return folders, broken, nil
}

// Sweep removes the folders of jobs that ended longer than keep ago, and those that were set aside so long ago.
func Sweep(jobs string, keep time.Duration) error {
	entries, err := os.ReadDir(jobs)
	if err != nil {
		return ignoreMissing(err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(jobs, e.Name())
		if filepath.Ext(path) == asideSuffix {
			if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > keep {
				errs = append(errs, os.RemoveAll(path))
			}
			continue
		}
		f, err := Open(path)
		if err != nil {
			continue // the start sets such a folder aside
		}
		if done := f.State().Done; !done.IsZero() && time.Since(done) > keep {
			errs = append(errs, f.Remove())
		}
	}
	return errors.Join(errs...)
}

// Remove deletes the folder.
func (f *Folder) Remove() error { return os.RemoveAll(f.path) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// WriteFile writes a file of mode 0600 as a whole or not at all, and for good: a reader sees the old content or the new, also
// after a power loss. The content is on the disk before the name is: a file system may keep them in the other order.
func WriteFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), tornPrefix+"*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(tmp.Name()))))
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder last.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // it has no handles of folders to sync
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	return nil
}
