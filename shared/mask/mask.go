// Package mask takes secrets out of a job's log: each occurrence of a secret, in any of the forms in which commands happen to
// print it, becomes "***". It does no I/O.
//
// New works out the forms (forms.go) and sorts them into an index (index.go). A Stream (stream.go) goes through text that comes
// in pieces, however it is cut, and holds back only what may be the beginning of a secret. Where occurrences overlap or touch, no
// byte of any of them is shown: they become one "***" together.
package mask

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

const (
	// MinLength is the length below which a value isn't masked, in bytes without the white space around it: it would
	// mangle the log where nobody has written the secret.
	MinLength = 6

	// replacement stands in the log for a secret.
	replacement = "***"

	// fullLimit is the size up to which a value is masked in all its forms, and fullTotal that of all such values together.
	// Of larger values the lines are masked, and their base64; and largeTotal is the size of all those. In bytes.
	fullLimit  = 32 << 10
	fullTotal  = 256 << 10
	largeTotal = 4 << 20
)

// Secret is something that must not be shown.
type Secret struct {
	// Name of the variable or path of the file, for people.
	Name  string
	Value string
	// File tells that the value is a file's content. Its short lines are taken for configuration that is no secret.
	File bool
}

// Why a secret isn't masked, for people.
const (
	TooShort = "its value has fewer than 6 characters"
	TooLarge = "it is too large; all large secrets of a job may have 4 MiB together"
)

// Skipped is a secret that New leaves alone.
type Skipped struct {
	Name string
	// Short tells that the value is too short, rather than too large.
	Short bool
}

// level is how much of a secret is masked.
type level int

const (
	nothing level = iota
	linesOnly
	allForms
)

// plan decides what is masked of each secret. Small ones come first, so that a huge one takes nothing from them.
func plan(secrets []Secret) []level {
	order := make([]int, len(secrets))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(secrets[a].Value), len(secrets[b].Value)) })
	levels := make([]level, len(secrets))
	full, large := 0, 0
	for _, i := range order {
		size := len(secrets[i].Value)
		switch {
		case isShort(secrets[i].Value):
		case size <= fullLimit && full+size <= fullTotal:
			levels[i] = allForms
			full += size
		case large+size <= largeTotal:
			levels[i] = linesOnly
			large += size
		}
	}
	return levels
}

func isShort(value string) bool { return len(trim(value)) < MinLength }

// Check tells which of the secrets New would leave alone. A value of white space is none.
func Check(secrets []Secret) []Skipped {
	var skipped []Skipped
	for i, l := range plan(secrets) {
		if value := secrets[i].Value; l == nothing && trim(value) != "" {
			skipped = append(skipped, Skipped{Name: secrets[i].Name, Short: isShort(value)})
		}
	}
	return skipped
}

// Masker knows the secrets of one job. It may be used concurrently. A nil one masks nothing.
type Masker struct {
	index *index
}

// New makes a masker of secrets. It is nil if there is nothing to mask.
func New(secrets []Secret) *Masker {
	var patterns []string
	for i, l := range plan(secrets) {
		for _, form := range formsOf(secrets[i], l) {
			patterns = appendPieces(patterns, form)
		}
	}
	if len(patterns) == 0 {
		return nil
	}
	return &Masker{index: newIndex(patterns)}
}

// appendPieces appends a form, or the pieces of one that is too long for a pattern. Where the form stands in a text its pieces
// touch, so that they mask all of it.
func appendPieces(patterns []string, form string) []string {
	for n := len(form)/(maxPattern-utf8.UTFMax) + 1; n > 1; n-- {
		cut := len(form) / n
		for !utf8.RuneStart(form[cut]) {
			cut--
		}
		patterns = append(patterns, form[:cut])
		form = form[cut:]
	}
	return append(patterns, form)
}

// String masks a text that is complete. Bytes that are not UTF-8 become U+FFFD.
func (m *Masker) String(text string) string {
	if m == nil {
		return text
	}
	s := m.NewStream()
	return string(s.Flush(s.Append(nil, []byte(toValid(text)))))
}
