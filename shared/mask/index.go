package mask

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
)

const (
	// maxPattern is the length of the longest pattern, in bytes: more than that is never held back, nor compared at one place.
	maxPattern = 512

	// block is the length of what the filter looks at. Every pattern has at least MinLength bytes, so that of the places
	// in its first MinLength bytes where a block begins, one is hit by looking at every step-th place of the text.
	block = 4
	step  = MinLength - block + 1
)

// index finds patterns in a text. It is an array of sorted texts, with a filter in front that passes over what can't be the
// beginning of any. It needs little more memory than the patterns have bytes (an automaton takes 13 times as much), and the
// length of patterns bounds the work where the filter lets through everything.
type index struct {
	patterns []string // sorted
	longest  int
	// prefixes has for each pattern the longest other one that it begins with, or -1.
	prefixes []int32
	// ranges are the patterns that begin with the same block.
	ranges map[uint32]span
	// first tells which bytes a pattern begins with.
	first [256]bool
	// filter is a set of hashes: those of the blocks in the beginnings of patterns.
	filter []uint64
	shift  uint // what makes a hash of 32 bits an index of filter's bits, below 32
}

// span are the patterns from lo up to hi, without that.
type span struct{ lo, hi int32 }

// newIndex makes an index of patterns, in any order, of which the short ones are left out.
func newIndex(patterns []string) *index {
	patterns = slices.DeleteFunc(patterns, func(p string) bool { return len(p) < MinLength })
	slices.Sort(patterns)
	patterns = pooled(slices.Compact(patterns))
	x := &index{patterns: patterns, prefixes: make([]int32, len(patterns)), ranges: map[uint32]span{}}
	// One of 64 bits is set where there is room for it, from 1 KiB to 512 KiB.
	size := min(max(bits.Len(uint(len(patterns)*step*64)), 13), 22)
	x.filter, x.shift = make([]uint64, 1<<size/64), 32-uint(size)
	for i, p := range patterns {
		x.longest = max(x.longest, len(p))
		x.first[p[0]] = true
		x.prefixes[i] = x.prefixOf(i)
		for at := range step {
			h := hash(word([]byte(p[at:at+block]))) >> x.shift
			x.filter[h/64] |= 1 << (h % 64)
		}
		key := word([]byte(p[:block]))
		s, ok := x.ranges[key]
		if !ok {
			s.lo = int32(i)
		}
		s.hi = int32(i) + 1
		x.ranges[key] = s
	}
	return x
}

// pooled copies texts into one piece of memory, so that what they were parts of can go.
func pooled(texts []string) []string {
	pool := strings.Join(texts, "")
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i], pool = pool[:len(t)], pool[len(t):]
	}
	return out
}

// prefixOf finds the longest other pattern that a pattern begins with: the one before it, or one of that one's prefixes.
func (x *index) prefixOf(i int) int32 {
	p := int32(i) - 1
	for p >= 0 && !startsWith([]byte(x.patterns[i]), x.patterns[p]) {
		p = x.prefixes[p]
	}
	return p
}

// skip returns the next place, from one on, where a pattern may begin: it and the two behind it have to be looked at. Less than
// MinLength bytes from the end the filter knows nothing, and all have to be.
func (x *index) skip(text []byte, from int) int {
	at := from + step - 1
	filter, shift := x.filter, x.shift%32     // which spares the compiler checks
	for ; at+8 <= len(text); at += 2 * step { // two blocks at once
		w := binary.LittleEndian.Uint64(text[at:])
		h, next := hash(uint32(w))>>shift, hash(uint32(w>>(8*step)))>>shift
		if (filter[h/64]>>(h%64)|filter[next/64]>>(next%64))&1 != 0 {
			break
		}
	}
	for ; at+block <= len(text); at += step {
		h := hash(word(text[at:])) >> shift
		if filter[h/64]>>(h%64)&1 != 0 {
			break
		}
	}
	return at - (step - 1)
}

// match returns the length of the longest pattern that a text, which isn't empty, begins with, 0 if there is none; and whether a
// pattern begins with all of the text and is longer.
func (x *index) match(text []byte) (length int, more bool) {
	s := span{hi: int32(len(x.patterns))}
	if len(text) >= block {
		s = x.ranges[word(text)]
	} else if !x.first[text[0]] {
		return 0, false
	}
	text = text[:min(len(text), x.longest)]
	after, end := s.lo, s.hi // after is going to be the first pattern behind text
	for after < end {
		middle := after + (end-after)/2
		if x.patterns[middle] > string(text) {
			end = middle
		} else {
			after = middle + 1
		}
	}
	if after < s.hi {
		p := x.patterns[after]
		more = len(p) > len(text) && p[:len(text)] == string(text)
	}
	if after == s.lo {
		return 0, more
	}
	for p := after - 1; p >= 0; p = x.prefixes[p] {
		if startsWith(text, x.patterns[p]) {
			return len(x.patterns[p]), more
		}
	}
	return 0, more
}

func startsWith(text []byte, p string) bool {
	return len(p) <= len(text) && string(text[:len(p)]) == p
}

// word is the block at the beginning of a text.
func word(text []byte) uint32 { return binary.LittleEndian.Uint32(text) }

func hash(w uint32) uint32 { return w * 0x9E3779B1 }
