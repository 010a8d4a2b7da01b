package mask

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// patternsOf are the texts that a masker looks for, worked out without its index.
func patternsOf(secrets []Secret) []string {
	var out []string
	for i, l := range plan(secrets) {
		for _, form := range formsOf(secrets[i], l) {
			out = appendPieces(out, form)
		}
	}
	out = slices.DeleteFunc(out, func(p string) bool { return len(p) < MinLength })
	slices.Sort(out)
	return slices.Compact(out)
}

// naive masks a text in the simplest way there is: it marks each byte of each occurrence.
func naive(patterns []string, text string) string {
	marked := make([]bool, len(text))
	for _, p := range patterns {
		for at := 0; ; at++ {
			i := strings.Index(text[at:], p)
			if i < 0 {
				break
			}
			at += i
			for k := at; k < at+len(p); k++ {
				marked[k] = true
			}
		}
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !marked[i]:
			b.WriteByte(text[i])
		case i == 0 || !marked[i-1]:
			b.WriteString(replacement)
		}
	}
	return b.String()
}

// compose makes a text of what a script says: pieces of the forms of secrets, and characters between.
func compose(script, literal string, forms []string) string {
	var b strings.Builder
	for i := 0; i+3 < len(script); i += 4 {
		if len(forms) == 0 || script[i]%3 == 0 {
			if len(literal) > 0 {
				b.WriteByte(literal[int(script[i+1])%len(literal)])
			}
			continue
		}
		form := forms[(int(script[i])<<8|int(script[i+1]))%len(forms)]
		from := 0
		if script[i+2] >= 128 {
			from = int(script[i+2]) % len(form)
		}
		to := len(form)
		if script[i+3] >= 128 {
			to = from + int(script[i+3])%(len(form)-from+1)
		}
		b.WriteString(form[from:to])
	}
	return b.String()
}

func FuzzStream(f *testing.F) {
	f.Add("hunter2|it's \"me\"\nand & you", "\x01\x02\x03\x04\x00\x01\x00\x00\x02\xff\x90\xff\x01\x10\x00\x91", "some text 🚦é\n", []byte{1, 0, 3, 200}, false)
	f.Add("abcdef|defghi|abcdefabc", "\x01\x00\x00\x00\x01\x01\x00\x00\x01\x02\x00\x00\x01\x03\x80\x80", "abcdefghi", []byte{2}, false)
	f.Add("-----BEGIN KEY-----\nYWJjZGVmZ2hpamts\r\n-----END KEY-----\xff\xfe", "\x01\x00\x00\x00\x01\x03\x80\xf0\x01\x02\x90\x00\x01\x03\x80\x80", "=\xff-", []byte{7, 7, 7}, true)
	f.Add(strings.Repeat("aaaaaaab", 70), "\x01\x00\x00\x00\x01\x03\x00\xf0\x01\x02\x90\x00\x01\x03\x00\x00", "ab", []byte{7, 255, 7}, false)
	f.Fuzz(func(t *testing.T, values, script, literal string, cuts []byte, file bool) {
		if len(values) > 600 || len(script) > 200 {
			return // the naive way takes its time
		}
		var secrets []Secret
		for v := range strings.SplitSeq(values, "|") {
			secrets = append(secrets, Secret{Value: v, File: file})
		}
		patterns := patternsOf(secrets)
		text := compose(script, literal, patterns)
		text = toValid(text[:min(len(text), 4000)])
		want := naive(patterns, text)
		m := New(secrets)
		require.Equal(t, want, m.String(text))

		s := m.NewStream()
		var got []byte
		for rest := text; rest != ""; {
			n := len(rest)
			if len(cuts) > 0 {
				n, cuts = min(int(cuts[0]), n), cuts[1:]
			}
			whole := utf8.ValidString(string(got))
			before := len(got)
			got = s.Append(got, []byte(rest[:n]))
			if whole && utf8.ValidString(rest[:n]) {
				require.True(t, utf8.Valid(got[before:]), "a character was cut")
			}
			require.Less(t, len(s.held), maxPattern)
			rest = rest[n:]
		}
		got = s.Flush(got)
		require.Equal(t, want, string(got))
		require.Empty(t, s.held)

		// No form is left, but for one that the replacement has made or is.
		for i, l := range plan(secrets) {
			for _, form := range formsOf(secrets[i], l) {
				if len(form) < MinLength {
					continue
				}
				for at, rest := 0, string(got); ; {
					k := strings.Index(rest[at:], form)
					if k < 0 {
						break
					}
					require.True(t, touchesReplacement(rest, at+k, len(form)), "%q is left in %q", form, rest)
					at += k + 1
				}
			}
		}
		if !slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains(text, p) }) {
			require.Equal(t, text, string(got))
		}
	})
}

// touchesReplacement tells whether a place in a masked text overlaps a replacement.
func touchesReplacement(text string, from, length int) bool {
	return strings.Contains(text[max(0, from-len(replacement)+1):min(len(text), from+length+len(replacement)-1)], replacement)
}
