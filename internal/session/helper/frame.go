package helper

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// The two commands of the helper's binary; each is followed by a folder.
const (
	ServeMode = "serve"
	RelayMode = "relay"
)

// EndSignal makes a server end all that its shells have started, as Client.End does, but in haste. It is for a container in which no
// relay can be started, since its limit of processes is reached.
const EndSignal = "USR1"

// frameType is the first byte of a frame. A length of four bytes, big-endian, and so many bytes of payload follow.
type frameType byte

// From the client. All but the first three carry a request.
const (
	frameHello frameType = 'h' // begins a connection that gets the journal: a hello
	frameEnd   frameType = 'e' // begins a connection of its own, answered by one frameDone: an endRequest
	frameRead  frameType = 'a' // how far the journal has been read: a hello
	frameOpen  frameType = 'o'
	frameRun   frameType = 'r'
	framePut   frameType = 'p'
	frameClose frameType = 'c'
	frameQuit  frameType = 'q'
)

// From the server, in the journal.
const (
	frameOutput frameType = 'O' // raw bytes of the running command's output
	frameDone   frameType = 'D' // the end of a request: a done
)

const (
	headerSize  = 5
	maxPayload  = 96 << 20 // a script or file may be large, and base64 adds a third
	outputChunk = 64 << 10
	mostWords   = 300 // of what isn't a frame, to be shown
)

type hello struct {
	Offset int64 // where in the journal the client goes on
}

type endRequest struct {
	Grace time.Duration
}

type request struct {
	Seq  int64        // 1, 2, …; one that isn't greater than the last is a repetition
	Read int64        // the journal's offset up to which the client has read everything
	Open ShellOptions // of frameOpen
	// Script of frameRun. Bytes, as JSON's strings don't hold all of them.
	Script []byte
	Put    File // of framePut
}

// File is a file to be put into the container.
type File struct {
	// Path is absolute, begins with "~/" or is relative to the home of the container's user.
	Path    string
	Mode    fs.FileMode
	Content []byte
}

type done struct {
	Seq    int64
	Code   int    // the script's or shell's status
	Ended  bool   // the shell is gone
	NotRun bool   // the shell had ended before
	Kernel Kernel // what happened while a script ran
	Error  string // empty where all went well
}

type frame struct {
	kind    frameType
	payload []byte
}

func (f frame) size() int64 { return headerSize + int64(len(f.payload)) }

func (f frame) writeTo(w io.Writer) error {
	_, err := w.Write(f.appendTo(make([]byte, 0, f.size())))
	return err
}

func (f frame) appendTo(buf []byte) []byte {
	buf = append(buf, byte(f.kind))
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(f.payload)))
	return append(buf, f.payload...)
}

// readFrame reads one whole frame. At the end of r it returns io.EOF, within a frame io.ErrUnexpectedEOF.
func readFrame(r io.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxPayload { // such as an engine's words in place of the relay's output
		text := header[:]
		if b, ok := r.(*bufio.Reader); ok {
			rest, _ := b.Peek(min(b.Buffered(), mostWords))
			text = append(text, rest...)
		}
		return frame{}, fmt.Errorf("this is no stream of the helper's: %q", bytes.TrimSpace(text))
	}
	f := frame{kind: frameType(header[0]), payload: make([]byte, size)}
	if _, err := io.ReadFull(r, f.payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return f, nil
}

func encode(kind frameType, message any) frame {
	payload, _ := json.Marshal(message) // the structs above always can be
	return frame{kind: kind, payload: payload}
}

func (f frame) decode(message any) error {
	if err := json.Unmarshal(f.payload, message); err != nil {
		return fmt.Errorf("cannot read a frame of type %q: %w", f.kind, err)
	}
	return nil
}

// Kernel counts what the kernel did to the processes of a container.
type Kernel struct {
	// OOMKills are processes killed for want of memory, PidsRefused the processes and threads refused at the limit.
	OOMKills, PidsRefused int
}
