package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func variable(value string) Secret { return Secret{Name: "NAME", Value: value} }

func variables(values ...string) []Secret {
	var out []Secret
	for _, v := range values {
		out = append(out, variable(v))
	}
	return out
}

// pem looks like a key, and is none.
const pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nZ2hpamtsbW5vcHFyc3R1dnd4eXo\nAAEC\n-----END OPENSSH PRIVATE KEY-----\n"

func TestString(t *testing.T) {
	for name, test := range map[string]struct {
		secrets  []Secret
		in, want string
	}{
		"nothing to mask":              {variables("hunter2-hunter2"), "all is well\n", "all is well\n"},
		"in the middle":                {variables("hunter2"), "a hunter2 b", "a *** b"},
		"alone":                        {variables("hunter2"), "hunter2", "***"},
		"twice, apart":                 {variables("hunter2"), "hunter2 hunter2", "*** ***"},
		"twice, touching":              {variables("hunter2"), "hunter2hunter2", "***"},
		"overlapping secrets":          {variables("abcdef", "defghi"), "-abcdefghi-", "-***-"},
		"overlapping itself":           {variables("abcabcabc"), "-abcabcabcabcabc-", "-***-"},
		"one inside another":           {variables("abcdefghij", "defghi"), "-abcdefghij-defghi-", "-***-***-"},
		"the longer of two":            {variables("abcdef", "abcdefghijkl"), "-abcdefghijkl-", "-***-"},
		"the longer one is cut off":    {variables("abcdef", "abcdefghijkl"), "-abcdefghijk-", "-***ghijk-"},
		"the beginning of a secret":    {variables("abcdefghijkl"), "-abcdefghijk", "-abcdefghijk"},
		"another in a beginning":       {variables("abcdefghijkl", "cdefgh"), "-abcdefghijk-", "-ab***ijk-"},
		"short":                        {variables("12345", "abcde"), "12345 abcde", "12345 abcde"},
		"short but for white space":    {variables("  12345\n\n"), "  12345\n\n", "  12345\n\n"},
		"white space around it":        {variables(" \n hunter2 \n"), "[ hunter2 ]", "[ *** ]"},
		"whole, many lines":            {variables("abc\ndef\nghi"), "-abc\ndef\nghi-", "-***-"},
		"lines with other ends":        {variables("abc\r\ndef\r\nghi"), "-abc\ndef\nghi-abc\r\ndef\r\nghi-", "-***-***-"},
		"a line of it":                 {variables("short\nlong enough\n"), "short, long enough", "short, ***"},
		"an indented line of it":       {variables("{\n  \"key\": \"hunter2\"\n}"), "\t\"key\": \"hunter2\"\n", "\t***\n"},
		"a short line of a file":       {[]Secret{{Value: "kind: Config\ntoken: hunter2\nname: x", File: true}}, "kind: Config, name: x, token: hunter2", "***, name: x, ***"},
		"a short file":                 {[]Secret{{Value: "hunter2\n", File: true}}, "hunter2\n", "***\n"},
		"the armour of a key":          {[]Secret{{Value: pem, File: true}}, "-----BEGIN OPENSSH PRIVATE KEY-----\nZ2hpamtsbW5vcHFyc3R1dnd4eXo\n-----END OPENSSH PRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY-----\n***\n-----END OPENSSH PRIVATE KEY-----"},
		"a whole key":                  {[]Secret{{Value: pem, File: true}}, "key: " + pem, "key: ***\n"},
		"characters of several bytes":  {variables("pässwörd→🚦"), "é pässwörd→🚦 é", "é *** é"},
		"bytes that aren't UTF-8":      {variables("\xff\xfe\x80abc"), "\xff\xfe\x80abc \ufffd\ufffd\ufffdabc \xff", "*** *** \ufffd"},
		"what looks like what is left": {variables("***", "a***bc"), "*** a***bc", "*** ***"},
		"no secrets":                   {nil, "a\xff", "a\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(test.secrets)
			assert.Equal(t, test.want, m.String(test.in))
			for cut := range len(test.in) + 1 {
				if !utf8.ValidString(test.in) {
					break // a stream's text is valid
				}
				s := m.NewStream()
				got := s.Append(nil, []byte(test.in[:cut]))
				assert.True(t, utf8.Valid(got) || !utf8.ValidString(test.in[:cut]), "no character is cut")
				got = s.Flush(s.Append(got, []byte(test.in[cut:])))
				assert.Equal(t, test.want, string(got), "cut at %d", cut)
			}
		})
	}
}

// odd are values that are quoted, escaped or encoded in some way.
var odd = map[string]string{
	"plain":     "hunter2hunter2",
	"token":     "ghp_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9",
	"quotes":    `it's "so" \ $HOME ` + "`id`" + ` #1 ~x,y;z!`,
	"quote":     `o'neill's`,
	"url":       "p@ss/w:rd?&=+,;%20 ~*()'!$",
	"html":      "a<b>&c<d>\u2028x",
	"unicode":   "pässwörd→🚦½",
	"binary":    "\x01\xff\xfe\x80a\x7fb\x1b[0m\ac",
	"lines":     "first line's text\n\"second\" \\ line: <x>/?\n\n  third line 🚦 here\n",
	"crlf":      "first line's text\r\nsecond line & more\r\n",
	"tab":       "with\ta tab and\vmore",
	"pem":       pem,
	"base64ish": "Pz8/Pz8+Pj4+Pj8/Pw==??>>~~",
	"long":      long(2000) + "'",
}

// long is a text of words that don't repeat.
func long(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d/+ ", i*i)
	}
	return b.String()[:size]
}

// hasNone checks that nothing but rest stands in what was masked: all the rest of the text was the secret.
func hasNone(t *testing.T, m *Masker, text string, rest ...string) {
	t.Helper()
	got := m.String(strings.ReplaceAll(text, "\r\n", "\n"))
	left := strings.NewReplacer(append([]string{replacement, ""}, pairs(rest)...)...).Replace(got)
	assert.Empty(t, strings.TrimSpace(left), "in %q, which was %q", got, text)
}

func pairs(texts []string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, t, "")
	}
	return out
}

func TestEncodedForms(t *testing.T) {
	for name, value := range odd {
		t.Run(name, func(t *testing.T) {
			m := New(variables(value))
			valid := toValid(value)
			hasNone(t, m, value)
			hasNone(t, m, url.QueryEscape(value), "+", "%0A", "%0D")
			hasNone(t, m, regexp.MustCompile("%..").ReplaceAllStringFunc(url.QueryEscape(value), strings.ToLower), "+", "%0a", "%0d")
			hasNone(t, m, url.PathEscape(value), "%0A", "%0D")
			marshalled, err := json.Marshal(valid)
			require.NoError(t, err)
			hasNone(t, m, string(marshalled), `"`, `\n`, `\r`)
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			require.NoError(t, e.Encode(valid))
			hasNone(t, m, b.String(), `"`, `\n`, `\r`)
			for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
				for _, exact := range []string{value, value + "\n", strings.TrimSpace(value), strings.TrimSpace(value) + "\n"} {
					hasNone(t, m, alphabet.EncodeToString([]byte(exact)), "o", "K", "g") // a newline without padding
				}
			}
		})
	}
}

// Whatever stands around a value in what is encoded, of its own characters at most one is left at each end.
func TestBase64Inside(t *testing.T) {
	value := "s3cr3t-v4lue"
	m := New(variables(value))
	for before := range 5 {
		for after := range 5 {
			text := strings.Repeat("<", before) + value + strings.Repeat(">", after)
			for _, alphabet := range alphabets {
				got := m.String(alphabet.EncodeToString([]byte(text)))
				head, tail, ok := strings.Cut(got, replacement)
				require.True(t, ok, got)
				assert.LessOrEqual(t, len(head), (before*8+5)/6)
				assert.LessOrEqual(t, len(strings.TrimRight(tail, "=")), (after*8+5)/6+1)
			}
		}
	}
}

// bash gives what a script prints on both streams.
func bash(t *testing.T, locale, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("bash", append([]string{"-c", script, "bash"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=" + locale}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

func TestRealBash(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	for name, value := range odd {
		t.Run(name, func(t *testing.T) {
			m := New(variables(value))
			for _, locale := range []string{"C.UTF-8", "C"} {
				for script, rest := range map[string][]string{
					`set -x; : "$1"`:                                   {"+ :", "$'", "'", `\n`, `\r`},
					`set -x; X="$1"`:                                   {"+ X=", "$'", "'", `\n`, `\r`},
					`set -x; : "pre $1 post"`:                          {"+ :", "$'", "'pre", "post'", `\n`, `\r`},
					`set -x; : "pre'"$'\n'"$1"`:                        {"+ :", "$'", `'pre'\''`, `pre\'\n`, "'", `\n`, `\r`},
					`set -x; [[ x == "$1" ]] || :`:                     {"+ [[ x ==", "]]", "+ :", "\\\n", "\\\r"},
					`set -x; [[ $1 == x ]] || :`:                       {"+ [[", "== x ]]", "+ :"},
					`X=$1; declare -p X`:                               {"declare --", "X=", "$'", `"`, "'", `\n`, `\r`},
					`X=$1; set | grep -A99 ^X= | grep -B99 -v ^_= ||:`: {"X=", "_=", "$'", "'", `\n`, `\r`},
					`printf %q "$1"`:                                   {"$'", "'", `\n`, `\r`},
					`printf %s "${1@Q}"`:                               {"$'", "'", `\n`, `\r`},
					`printf %s "$1" | base64`:                          nil,
					`printf '%s\n' "$1" | base64`:                      nil,
					`printf %s "$1" | base64 -w0`:                      nil,
					`printf %s "$1" | base64 -w64`:                     nil,
				} {
					out := bash(t, locale, script, value)
					got := m.String(out)
					left := strings.NewReplacer(append([]string{replacement, ""}, pairs(rest)...)...).Replace(got)
					assert.Empty(t, strings.Trim(left, " \n\t\r\\"), "%s (%s): in %q, which was %q", script, locale, got, out)
				}
			}
		})
	}
}

func TestPlan(t *testing.T) {
	line := strings.Repeat("x", 63) + "\n"
	secrets := []Secret{
		{Name: "huge", Value: strings.Repeat(line, largeTotal/64+1)},
		{Name: "large", Value: strings.Repeat("0123456789 "+line, fullLimit/64), File: true},
		{Name: "small", Value: "hunter2"},
		{Name: "short", Value: " a\n12 \n"},
		{Name: "empty"},
	}
	assert.Equal(t, []level{nothing, linesOnly, allForms, nothing, nothing}, plan(secrets))
	assert.Equal(t, []Skipped{{Name: "huge"}, {Name: "short", Short: true}}, Check(secrets))
	assert.Contains(t, TooShort, fmt.Sprint(MinLength))
	assert.Contains(t, TooLarge, fmt.Sprintf("%d MiB", largeTotal>>20))

	m := New(secrets)
	assert.Equal(t, "***\n*** x ***", m.String("0123456789 "+line+"0123456789 "+line[:63]+" x hunter2"))
	assert.Equal(t, "***", m.String(base64.StdEncoding.EncodeToString([]byte(secrets[1].Value))))
	assert.Nil(t, New(secrets[3:]))

	var many []Secret
	for range fullTotal/fullLimit + 1 {
		many = append(many, variable(strings.Repeat("y", fullLimit)))
	}
	levels := plan(many)
	assert.Equal(t, linesOnly, levels[len(levels)-1])
	assert.NotContains(t, levels[:len(levels)-1], linesOnly)
}

// A secret with long lines is held back in part only.
func TestLittleIsHeldBack(t *testing.T) {
	value := long(2000) + "end"
	s := New(variables(value)).NewStream()
	got := s.Append(nil, []byte("before "+value[:len(value)-1]))
	assert.Equal(t, "before ***", string(got))
	assert.Less(t, len(s.held), maxPattern)
	got = s.Append(nil, []byte("?"))
	assert.Equal(t, value[len(value)-1-len(got)+1:len(value)-1]+"?", string(got), "it was another text")
}

// What a build's log is made of stays as it is, though much of it looks like the beginning of a secret.
func TestOtherTextIsUnchanged(t *testing.T) {
	text, err := os.ReadFile("forms.go")
	require.NoError(t, err)
	var secrets []Secret
	for line := range strings.Lines(string(text)) {
		if line = trim(line); len(line) >= MinLength {
			secrets = append(secrets, variable(line+"\x00"))
		}
	}
	require.Greater(t, len(secrets), 100)
	m := New(secrets)
	assert.Equal(t, string(text), m.String(string(text)))
	s := m.NewStream()
	var got []byte
	for _, b := range text {
		got = s.Append(got, []byte{b})
	}
	assert.Equal(t, string(text), string(s.Flush(got)))
}
