package jobdir

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// How far the log has been delivered changes with every batch, too often for waiting for the disk, so it has a file of its
// own that is changed where it is. A power loss may take it back, tear it or leave nothing of it: then what job.json says
// holds, which is older. An index that is too low only means that the log service gets events again, which it puts in the same place.

// acked is the part of State that acked.json holds.
type acked struct {
	Acked       int64     `json:"acked"`
	AckedOffset int64     `json:"acked_offset"`
	LostTo      int64     `json:"lost_to,omitempty"`
	LostUntil   time.Time `json:"lost_until,omitzero"`
}

// ackedFile is the content of acked.json. The sum, over the part as it stands there, tells a torn one.
type ackedFile struct {
	Part json.RawMessage `json:"log"`
	Sum  uint32          `json:"crc32"`
}

// ackedSize is what acked.json is filled up to, in bytes: more than its content takes, and what disks write as one.
const ackedSize = 512

func (f *Folder) ackedPath() string { return filepath.Join(f.path, "acked.json") }

// Note changes what may be an older state after a power loss, and changes often: Acked, AckedOffset, LostTo and LostUntil.
// Anything else that it changes lasts from the next Update on. On a full disk it goes on working.
func (f *Folder) Note(change func(*State)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.state
	change(&next)
	content, err := ackedContent(next)
	if err != nil {
		return err
	}
	path := f.ackedPath()
	if overwrite(path, content, func(*os.File) error { return nil }) != nil { // it isn't there, or a power loss has emptied it
		if err := WriteFile(path, content); err != nil {
			return err
		}
	}
	f.state = next
	return nil
}

func ackedContent(s State) ([]byte, error) {
	part, err := json.Marshal(acked{Acked: s.Acked, AckedOffset: s.AckedOffset, LostTo: s.LostTo, LostUntil: s.LostUntil})
	if err != nil {
		return nil, fmt.Errorf("cannot write acked.json: %w", err)
	}
	raw, err := json.Marshal(ackedFile{Part: part, Sum: crc32.ChecksumIEEE(part)})
	if err != nil {
		return nil, fmt.Errorf("cannot write acked.json: %w", err)
	}
	return padded(raw, ackedSize), nil
}

// readAcked adds what acked.json says, unless that isn't whole or job.json knows more.
func (f *Folder) readAcked() {
	raw, err := os.ReadFile(f.ackedPath())
	if err != nil {
		return
	}
	var file ackedFile
	var got acked
	if json.Unmarshal(raw, &file) != nil || crc32.ChecksumIEEE(file.Part) != file.Sum || json.Unmarshal(file.Part, &got) != nil {
		return
	}
	if s := &f.state; got.Acked >= s.Acked {
		s.Acked, s.AckedOffset, s.LostTo, s.LostUntil = got.Acked, got.AckedOffset, got.LostTo, got.LostUntil
	}
}
