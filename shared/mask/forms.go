package mask

import (
	"encoding/base64"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	// minFileLine is the length below which a line of a file isn't masked on its own, in bytes: short lines of
	// configuration ("kind: Config") are no secrets, and stand in many a log.
	minFileLine = 12

	// space is the white space that is cut off around a value and its lines.
	space = " \t\r\n\v\f"
)

// armour is a line around the secret part of a PEM file.
var armour = regexp.MustCompile(`^-----(BEGIN|END) [^-]*-----$`)

func trim(text string) string { return strings.Trim(text, space) }

// formsOf lists the texts that show a secret, some of them more than once, and some too short to be masked.
func formsOf(s Secret, l level) []string {
	switch l {
	case allForms:
		return allFormsOf(s)
	case linesOnly:
		return largeForms(s)
	default:
		return nil
	}
}

// allFormsOf are the forms of a value and of each of its lines.
func allFormsOf(s Secret) []string {
	whole := trim(s.Value)
	forms := textForms(nil, whole)
	for line := range longLines(s) {
		if line != whole {
			forms = textForms(forms, line)
			forms = base64Inside(forms, line)
		}
	}
	forms = base64Inside(forms, whole)
	for _, exact := range []string{whole, whole + "\n", s.Value, s.Value + "\n"} {
		forms = base64Alone(forms, exact)
	}
	return forms
}

// largeForms are the lines of a value, and what the base64 command makes of it.
func largeForms(s Secret) []string {
	var forms []string
	for line := range longLines(s) {
		forms = append(forms, onScreen(line))
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(s.Value))
	forms = append(forms, encoded)
	return appendLines(forms, encoded, 76)
}

// longLines are the lines of a value that are worth masking where they stand alone, without the white space around them.
func longLines(s Secret) iter.Seq[string] {
	shortest := MinLength
	if s.File {
		shortest = minFileLine
	}
	return func(yield func(string) bool) {
		for line := range strings.Lines(s.Value) {
			line = trim(line)
			if len(line) >= shortest && !armour.MatchString(line) && !yield(line) {
				return
			}
		}
	}
}

// textForms appends a text as it appears on a terminal, and as shells, JSON and URLs write it.
func textForms(forms []string, text string) []string {
	valid := toValid(text)
	forms = append(forms, onScreen(text), valid)
	forms = shellForms(forms, text)
	forms = jsonForms(forms, valid)
	return urlForms(forms, text)
}

// onScreen is a text as the decoder of a command's output makes it.
func onScreen(text string) string { return toValid(strings.ReplaceAll(text, "\r\n", "\n")) }

// toValid replaces each byte that isn't part of valid UTF-8, as the decoder of output does.
func toValid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}

// shellForms appends how shells quote a text: with set -x, in a listing of variables, with printf %q. What stands around the text
// (quotes, other parts of a word) is none of it.
func shellForms(forms []string, text string) []string {
	return append(forms,
		toValid(strings.ReplaceAll(text, "'", `'\''`)),  // 'it'\''s'
		toValid(strings.ReplaceAll(text, "'", `'"'"'`)), // 'it'"'"'s'
		toValid(ansiQuoted(text, false)),                // $'it\'s\n'
		ansiQuoted(text, true),                          // the same without a UTF-8 locale
		toValid(doubleQuoted.Replace(text)),             // declare -x NAME="it's \$5"
		toValid(backslashed(text)),                      // it\'s\ \$5
		toValid(patternQuoted(text, false)),             // [[ $x == \i\t\'\s ]]
		toValid(patternQuoted(text, true)),              // the same without a UTF-8 locale
	)
}

var doubleQuoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`")

// ansiQuoted is what bash puts into $'…'. What isn't valid UTF-8, and all beyond ASCII if asked for, comes in octal.
func ansiQuoted(text string, ascii bool) string {
	var b strings.Builder
	escapes := map[byte]string{
		'\a': `\a`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\v': `\v`, '\f': `\f`, '\r': `\r`, 0x1b: `\E`, '\\': `\\`, '\'': `\'`,
	}
	for i := 0; i < len(text); {
		c := text[i]
		r, size := utf8.DecodeRuneInString(text[i:])
		switch escape, ok := escapes[c]; {
		case ok:
			b.WriteString(escape)
		case c < ' ' || c == 0x7f || c >= utf8.RuneSelf && (ascii || r == utf8.RuneError && size == 1):
			fmt.Fprintf(&b, `\%03o`, c)
			size = 1
		default:
			b.WriteString(text[i : i+size])
		}
		i += size
	}
	return b.String()
}

// backslashed is what printf %q makes of a text without control characters.
func backslashed(text string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if strings.IndexByte(" \t'\"\\|&;()<>!{}*[]?^$`,", c) >= 0 || i == 0 && (c == '#' || c == '~') ||
			i > 0 && c == '~' && (text[i-1] == ':' || text[i-1] == '=') {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// patternQuoted is how set -x shows the quoted right side of == in [[ ]]: with a backslash before each character, or each byte. Bash
// leaves it out before those that mean something to itself.
func patternQuoted(text string, bytes bool) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		size := 1
		if !bytes {
			_, size = utf8.DecodeRuneInString(text[i:])
		}
		if text[i] != 0x01 && text[i] != 0x7f {
			b.WriteByte('\\')
		}
		b.WriteString(text[i : i+size])
		i += size
	}
	return b.String()
}

// jsonForms appends how JSON encoders write a text inside quotes.
func jsonForms(forms []string, text string) []string {
	return append(forms,
		jsonEscaped(text, func(rune) bool { return false }),
		jsonEscaped(text, func(r rune) bool { return r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029' }), // safe in HTML
		jsonEscaped(text, func(r rune) bool { return r >= utf8.RuneSelf }),                                                 // ASCII only
		strings.ReplaceAll(jsonEscaped(text, func(rune) bool { return false }), "/", `\/`),
	)
}

// jsonEscaped escapes what JSON demands, and those characters that are asked for.
func jsonEscaped(text string, also func(rune) bool) string {
	var b strings.Builder
	escapes := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	for _, r := range text {
		escape, ok := escapes[r]
		switch {
		case ok:
			b.WriteString(escape)
		case r >= 0x10000 && also(r):
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		case r < ' ' || also(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// urlForms appends how URLs and forms in the web hold a text; encoders differ in what they leave as it is, and in the case of digits.
func urlForms(forms []string, text string) []string {
	for _, style := range []struct {
		unescaped string // besides letters and digits
		plus      bool   // for a space
	}{
		{"-_.~", true},        // Go's QueryEscape, Python's quote_plus
		{"-_.~", false},       // curl, jq
		{"-_.~/", false},      // Python's quote
		{"-_.~$&+=:@", false}, // Go's PathEscape
		{"-_.~$&+,;=", false}, // Go's passwords in URLs
		{"-_.~!'()*", false},  // JavaScript's encodeURIComponent
		{"-_.*", true},        // Java's URLEncoder, HTML forms
	} {
		upper := urlEscaped(text, style.unescaped, style.plus, "0123456789ABCDEF")
		lower := urlEscaped(text, style.unescaped, style.plus, "0123456789abcdef")
		forms = append(forms, upper, lower)
	}
	return forms
}

func urlEscaped(text, unescaped string, plus bool, digits string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(unescaped, c) >= 0:
			b.WriteByte(c)
		case c == ' ' && plus:
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

var alphabets = []*base64.Encoding{base64.StdEncoding, base64.URLEncoding}

// base64Inside appends the base64 of a value inside a longer one: those characters that depend on it alone. Three bytes are four
// characters, so there are three ways in which it can lie.
func base64Inside(forms []string, value string) []string {
	for _, alphabet := range alphabets {
		for before := range 3 {
			encoded := alphabet.EncodeToString([]byte(strings.Repeat("\x00", before) + value))
			from, to := (before*8+5)/6, (before+len(value))*8/6
			forms = append(forms, encoded[from:to])
		}
	}
	return forms
}

// base64Alone appends the base64 of a value on its own, to its last character, in one line, without padding, and in lines of the
// usual lengths.
func base64Alone(forms []string, value string) []string {
	for _, alphabet := range alphabets {
		encoded := alphabet.EncodeToString([]byte(value))
		forms = append(forms, encoded, strings.TrimRight(encoded, "="))
		for _, columns := range []int{64, 76} {
			forms = appendLines(forms, encoded, columns)
		}
	}
	return forms
}

// appendLines appends the lines that a text is broken into, one by one for where they are indented, and the whole, with the
// line breaks, for the sake of a short last line.
func appendLines(forms []string, text string, columns int) []string {
	if len(text) <= columns {
		return forms
	}
	var whole strings.Builder
	for ; len(text) > columns; text = text[columns:] {
		forms = append(forms, text[:columns])
		whole.WriteString(text[:columns])
		whole.WriteByte('\n')
	}
	return append(forms, text, whole.String()+text)
}
