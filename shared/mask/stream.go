package mask

// Stream masks text that comes in pieces. It isn't for concurrent use.
type Stream struct {
	index *index // nil: nothing is masked
	// held is text that may be the beginning of a secret; the first done bytes of it are masked already.
	held []byte
	done int
	// masked tells that what was appended last is a replacement: a secret that touches it needs no other.
	masked bool
}

// NewStream begins a stream. A nil Masker's passes everything on.
func (m *Masker) NewStream() *Stream {
	if m == nil {
		return &Stream{}
	}
	return &Stream{index: m.index}
}

// Append appends the masked text of src, which is valid UTF-8, to dst: but for the end of it that may be the beginning of a
// secret, which is fewer than 512 bytes and begins with a whole character.
func (s *Stream) Append(dst, src []byte) []byte {
	if s.index == nil {
		return append(dst, src...)
	}
	s.held = append(s.held, src...)
	return s.mask(dst, false)
}

// Flush appends what Append has held back. The stream may go on afterwards, as a new one.
func (s *Stream) Flush(dst []byte) []byte {
	if s.index == nil {
		return dst
	}
	dst = s.mask(dst, true)
	s.masked = false
	return dst
}

// mask appends all that is certain; at the end of a stream, everything.
func (s *Stream) mask(dst []byte, end bool) []byte {
	text := s.held
	at := 0
	for at < len(text) {
		at = s.index.skip(text, at)
		stop := len(text)
		if at+MinLength <= len(text) {
			stop = at + step
		}
		for ; at < stop; at++ {
			length, more := s.index.match(text[at:])
			if length > 0 {
				dst = s.replace(dst, at, at+length)
			}
			if more && !end {
				return s.hold(dst, at)
			}
		}
	}
	return s.hold(dst, len(text))
}

// replace masks a secret from one place in the held text to another.
func (s *Stream) replace(dst []byte, from, to int) []byte {
	if from > s.done {
		dst = append(dst, s.held[s.done:from]...)
		s.masked = false
	}
	if !s.masked {
		dst = append(dst, replacement...)
		s.masked = true
	}
	s.done = max(s.done, to)
	return dst
}

// hold appends what comes before a place and keeps what follows.
func (s *Stream) hold(dst []byte, place int) []byte {
	if place > s.done {
		dst = append(dst, s.held[s.done:place]...)
		s.masked = false
		s.done = place
	}
	s.held = s.held[:copy(s.held, s.held[place:])]
	s.done -= place
	return dst
}
