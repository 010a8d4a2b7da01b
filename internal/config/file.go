package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/xrash/smetrics"
)

// largestFile keeps a mistaken path (a disk image, say) from being parsed.
const largestFile = 256 << 10

// mostProblems is how many of them one error lists.
const mostProblems = 10

// fileContent is what the file says: for each option by its key, and for each plugin by its name and the keys of its table.
type fileContent struct {
	options map[string]fileValue
	plugins map[string]map[string]fileValue
}

// fileValue is what the file says for one option.
type fileValue struct {
	input  input
	origin Origin
}

// readFile reads a TOML file. Its errors name the line.
func readFile(path string, data []byte) (*fileContent, []string, error) {
	if len(data) > largestFile {
		return nil, nil, fmt.Errorf("%s: it is larger than a config file can be (%s)", path, Size(largestFile))
	}
	ext := strings.ToLower(filepath.Ext(path))
	if ext == ".yml" || ext == ".yaml" {
		return nil, nil, yamlError(path, data)
	}
	r := fileReader{path: path, content: fileContent{map[string]fileValue{}, map[string]map[string]fileValue{}}}
	var top map[string]toml.Primitive
	var err error
	if r.md, err = toml.Decode(string(data), &top); err != nil {
		if looksLikeYAML(data) {
			return nil, nil, yamlError(path, data)
		}
		return nil, nil, syntaxError(path, err)
	}
	r.table("", top)
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, p := range r.problems {
		if i == mostProblems {
			errs = append(errs, fmt.Errorf("%s: and %d more", path, len(r.problems)-i))
			break
		}
		errs = append(errs, p.err)
	}
	return &r.content, r.warnings, errors.Join(errs...)
}

type problem struct {
	line int
	err  error
}

// fileReader walks a decoded file.
type fileReader struct {
	path     string
	md       toml.MetaData
	content  fileContent
	warnings []string
	problems []problem
}

// table reads the keys of one table; prefix is its name with a dot.
func (r *fileReader) table(prefix string, keys map[string]toml.Primitive) {
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		r.key(prefix+name, strings.Contains(name, "."), keys[name])
	}
}

// key reads one key. A quoted key with a dot in it is never an option.
func (r *fileReader) key(key string, dotted bool, content toml.Primitive) {
	line := lineOf(r.md, content)
	o, known := optionOf(key)
	switch {
	case dotted:
		r.refuse(line, unknownKey(key))
	case key == "config-file":
		r.warnings = append(r.warnings, fmt.Sprintf("%s: config-file has no effect in the file itself", r.at(line)))
	case known && o.in&inFile == 0:
		r.refuse(line, fmt.Sprintf("%s can't be set in the file; set the environment variable %s", key, o.env()))
	case known:
		var v any
		if err := r.md.PrimitiveDecode(content, &v); err != nil {
			r.refuse(line, fmt.Sprintf("%s: it can't be read", key))
			return
		}
		in, err := fileInput(o, v)
		if err != nil {
			r.refuse(line, fmt.Sprintf("%s: %s", key, err))
			return
		}
		r.content.options[key] = fileValue{in, Origin{FromFile, r.at(line)}}
	default:
		r.unknown(key, line, content)
	}
}

// unknown reads what isn't an option: a table that has options in it, or a mistake.
func (r *fileReader) unknown(key string, line int, content toml.Primitive) {
	var v any
	_ = r.md.PrimitiveDecode(content, &v) // anything goes into an any
	_, mapping := v.(map[string]any)
	var inner map[string]toml.Primitive
	if mapping {
		_ = r.md.PrimitiveDecode(content, &inner) // it is known to be a table
	}
	plugin, ofPlugin := strings.CutPrefix(key, pluginTables)
	switch {
	case ofPlugin && mapping:
		r.plugin(plugin, line, inner)
	case len(inner) > 0 && !strings.Contains(key, "."): // no option is deeper
		r.table(key+".", inner)
	case !isTable(key):
		r.refuse(line, unknownKey(key))
	case !mapping:
		r.refuse(line, fmt.Sprintf("%s: it must be a table, [%s]", key, key))
	}
}

func (r *fileReader) at(line int) string {
	if line == 0 {
		return r.path
	}
	return r.path + ":" + strconv.Itoa(line)
}

func (r *fileReader) refuse(line int, what string) {
	r.problems = append(r.problems, problem{line, fmt.Errorf("%s: %s", r.at(line), what)})
}

// isTable tells whether options are in a table of this name.
func isTable(name string) bool {
	return slices.ContainsFunc(options, func(o option) bool { return strings.HasPrefix(o.key, name+".") })
}

// fileInput makes an option's input of a TOML value, if it has a type that the option takes.
func fileInput(o option, v any) (input, error) {
	switch v := v.(type) {
	case string:
		return textInput(v), nil
	case bool:
		if o.value.boolean {
			return textInput(strconv.FormatBool(v)), nil
		}
	case int64:
		if o.value.number {
			return textInput(strconv.FormatInt(v, 10)), nil
		}
	case float64:
		if o.value.fraction {
			return textInput(strconv.FormatFloat(v, 'f', -1, 64)), nil
		}
	case []any:
		if o.value.list {
			in := input{exact: true}
			for i, item := range v {
				s, ok := item.(string)
				if !ok {
					return input{}, fmt.Errorf("item %d: it must be text in quotes, not %s", i+1, typeName(item))
				}
				in.texts = append(in.texts, s)
			}
			return in, nil
		}
	case map[string]any:
		if o.value.table {
			return tableInput(v)
		}
	}
	return input{}, fmt.Errorf("it must be %s, not %s", o.value.wants, typeName(v))
}

func tableInput(table map[string]any) (input, error) {
	in := input{exact: true}
	for _, k := range slices.Sorted(maps.Keys(table)) {
		var s string
		switch v := table[k].(type) {
		case string:
			s = v
		case bool, int64:
			s = fmt.Sprint(v)
		default:
			return input{}, fmt.Errorf("%q: it must be text in quotes, not %s", k, typeName(v))
		}
		if strings.Contains(k, "=") {
			return input{}, fmt.Errorf("%q: a name can't hold \"=\"", k)
		}
		in.texts = append(in.texts, k+"="+s)
	}
	return in, nil
}

// typeName is a TOML type in words; the value may be a secret and isn't shown.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case bool:
		return "true or false"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case []any:
		return "an array"
	case map[string]any, []map[string]any:
		return "a table"
	case nil:
		return "nothing"
	}
	return "a date or time"
}

// atPosition fails, so that the decoder says where it stands: it gives positions away in errors only.
type atPosition struct{}

func (*atPosition) UnmarshalTOML(any) error { return errors.New("here") }

func lineOf(md toml.MetaData, content toml.Primitive) int {
	var pe toml.ParseError
	if errors.As(md.PrimitiveDecode(content, &atPosition{}), &pe) {
		return pe.Position.Line
	}
	return 0
}

// quoted is a piece of the file in the decoder's messages.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)+'`)

// syntaxError says where TOML is broken. The decoder's messages can hold a piece of the file, which may be a secret: only a
// single character of it is shown.
func syntaxError(path string, err error) error {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return fmt.Errorf("%s: it is not valid TOML", path)
	}
	message := quoted.ReplaceAllStringFunc(pe.Message, func(s string) string {
		inner := s[1 : len(s)-1]
		_, known := optionOf(inner)
		if known || len([]rune(strings.TrimPrefix(inner, `\`))) == 1 || strings.Trim(inner, `"'`) == "" {
			return s
		}
		return "[something]"
	})
	if strings.HasPrefix(message, "expected value but found") {
		message = "a value must stand here; text needs quotes"
	}
	where := path
	if pe.Position.Line > 0 {
		where = fmt.Sprintf("%s:%d", path, pe.Position.Line)
	}
	return fmt.Errorf("%s: it is not valid TOML: %s", where, strings.TrimSuffix(message, "."))
}

// unknownKey refuses a key, and guesses what was meant.
func unknownKey(key string) string {
	message := fmt.Sprintf("unknown key %q", key)
	if like := closest(key); like != "" {
		message += fmt.Sprintf("; did you mean %q?", like)
		if strings.Contains(key, ".") && !strings.Contains(like, ".") {
			message += " It belongs above the first [table]"
		}
	}
	return message
}

// closest finds the option that a wrong key is most likely meant to be, or "".
func closest(key string) string {
	if len(key) > 100 {
		return ""
	}
	plain := strings.NewReplacer("_", "-", ".", "-")
	wrong := plain.Replace(strings.ToLower(key))
	last := plain.Replace(key[strings.LastIndex(key, ".")+1:])
	best, bestDistance := "", 4
	for _, o := range options {
		if o.in&inFile == 0 {
			continue
		}
		right := plain.Replace(o.key)
		distance := smetrics.WagnerFischer(wrong, right, 1, 1, 1)
		_, inner, inTable := strings.Cut(o.key, ".")
		switch {
		case right == last, inTable && inner == last: // right, but in the wrong table
			distance = 0
		case distance*3 > len(right):
			continue
		}
		if distance < bestDistance {
			best, bestDistance = o.key, distance
		}
	}
	return best
}
