package helper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// frameType is the first byte of a frame. A length of four bytes, big-endian, and so many bytes of payload follow.
type frameType byte

// From the client. All but the first two carry a request.
const (
	frameHello  frameType = 'h' // begins a connection that gets the journal: a hello
	frameSignal frameType = 's' // begins a connection of its own, answered by one frameDone: a signalRequest
	frameOpen   frameType = 'o'
	frameRun    frameType = 'r'
	frameClose  frameType = 'c'
	frameQuit   frameType = 'q'
)

// From the server, in the journal.
const (
	frameOutput frameType = 'O' // raw bytes of the running command's output
	frameDone   frameType = 'D' // the end of a request: a done
)

const (
	headerSize  = 5
	maxPayload  = 64 << 20 // a script may be large
	outputChunk = 64 << 10
)

type hello struct {
	Offset int64 // where in the journal the client goes on
}

type signalRequest struct {
	Signal int
}

type request struct {
	Seq  int64        // 1, 2, …; one that isn't greater than the last is a repetition
	Read int64        // the journal's offset up to which the client has read everything
	Open ShellOptions // of frameOpen
	// Script of frameRun. Bytes, as JSON's strings don't hold all of them.
	Script []byte
}

type done struct {
	Seq    int64
	Code   int    // the script's or shell's status; how many processes got a signal
	Ended  bool   // the shell is gone
	NotRun bool   // the shell had ended before
	Error  string // empty where all went well
}

type frame struct {
	kind    frameType
	payload []byte
}

func (f frame) size() int64 { return headerSize + int64(len(f.payload)) }

func (f frame) writeTo(w io.Writer) error {
	buf := make([]byte, headerSize, headerSize+len(f.payload))
	buf[0] = byte(f.kind)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(f.payload)))
	_, err := w.Write(append(buf, f.payload...))
	return err
}

// readFrame reads one whole frame. At the end of r it returns io.EOF, within a frame io.ErrUnexpectedEOF.
func readFrame(r io.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxPayload {
		return frame{}, fmt.Errorf("a frame of %d bytes, at most %d are allowed: this is no stream of the helper's", size, maxPayload)
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
