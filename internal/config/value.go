package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// input is what a user gave for one option, from wherever it came.
type input struct {
	// texts are the flag's occurrences, or the variable's text, or the TOML value as text, or an array's elements.
	texts []string
	// exact is set for arrays: their elements aren't split at commas.
	exact bool
}

func textInput(texts ...string) input { return input{texts: texts} }

// last is the text of an option that holds one value: the last flag wins.
func (in input) last() string {
	if len(in.texts) == 0 {
		return ""
	}
	return in.texts[len(in.texts)-1]
}

// list is the items of an option that holds many.
func (in input) list() []string {
	if in.exact {
		return in.texts
	}
	var items []string
	for _, text := range in.texts {
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

// value is how an option's text becomes a field of Config, and back.
type value struct {
	// wants is what is allowed, in words.
	wants string
	// The TOML types that are taken besides strings.
	boolean, number, fraction, list, table bool
	set                                    func(*Config, input) error
	// show gives the value as TOML, without secrets.
	show func(*Config) string
	// get gives the field's value, for comparison.
	get func(*Config) any
}

// single is an option with one value.
func single[T any](field func(*Config) *T, parse func(string) (T, error), show func(T) string) value {
	return value{
		wants: "text in quotes",
		set: func(c *Config, in input) error {
			v, err := parse(in.last())
			if err != nil {
				return err
			}
			*field(c) = v
			return nil
		},
		show: func(c *Config) string { return show(*field(c)) },
		get:  func(c *Config) any { return *field(c) },
	}
}

// many is an option with a list of values. What one of them may look like is parse's affair.
func many[T any](field func(*Config) *[]T, parse func(string) (T, error), show func(T) string) value {
	return value{
		wants: "a list: an array of texts, or one text with commas",
		list:  true,
		set: func(c *Config, in input) error {
			var all []T
			for i, item := range in.list() {
				v, err := parse(item)
				if err != nil {
					return fmt.Errorf("item %d: %w", i+1, err)
				}
				all = append(all, v)
			}
			*field(c) = all
			return nil
		},
		show: func(c *Config) string {
			items := []string{}
			for _, v := range *field(c) {
				items = append(items, tomlQuote(show(v)))
			}
			return "[" + strings.Join(items, ", ") + "]"
		},
		get: func(c *Config) any { return *field(c) },
	}
}

// text is a plain text; an empty one means that nothing is set and needs no check.
func text(field func(*Config) *string, checks ...func(string) error) value {
	return single(field, checked(checks...), tomlQuote)
}

// texts is a list of plain texts.
func texts(field func(*Config) *[]string, check func(string) error) value {
	parse := func(s string) (string, error) {
		if s == "" {
			return "", errors.New("it is empty")
		}
		return s, check(s)
	}
	return many(field, parse, func(s string) string { return s })
}

func checked(checks ...func(string) error) func(string) (string, error) {
	return func(s string) (string, error) {
		if strings.ContainsRune(s, 0) {
			return "", errors.New("it holds a NUL byte")
		}
		for _, check := range checks {
			if s == "" {
				break
			}
			if err := check(s); err != nil {
				return "", err
			}
		}
		return s, nil
	}
}

func secret(field func(*Config) *Secret, check func(string) error) value {
	parse := func(s string) (Secret, error) {
		s, err := checked(check)(s)
		return Secret(s), err
	}
	return single(field, parse, func(s Secret) string { return tomlQuote(s.String()) })
}

func boolean(field func(*Config) *bool) value {
	parse := func(s string) (bool, error) {
		b, err := strconv.ParseBool(strings.ToLower(s))
		if err != nil {
			return false, fmt.Errorf("%q is neither true nor false", s)
		}
		return b, nil
	}
	v := single(field, parse, strconv.FormatBool)
	v.boolean = true
	v.wants = "true or false"
	return v
}

func number(field func(*Config) *int, low, high int) value {
	parse := func(s string) (int, error) {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < low || n > high {
			return 0, fmt.Errorf("%q is not allowed; it must be a whole number from %d to %d", s, low, high)
		}
		return n, nil
	}
	v := single(field, parse, strconv.Itoa)
	v.number = true
	v.wants = fmt.Sprintf("a whole number from %d to %d", low, high)
	return v
}

// cpus is a number of CPUs, kept in thousandths.
func cpus(field func(*Config) *int) value {
	v := single(field, func(s string) (int, error) {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || n < 0 || n > 4096 || n > 0 && n < 0.01 {
			return 0, fmt.Errorf("%q is not a number of CPUs; write a number such as 2 or 0.5", s)
		}
		return int(n*1000 + 0.5), nil
	}, func(milli int) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) })
	v.wants, v.number, v.fraction = "a number of CPUs", true, true
	return v
}

// oneOf is a choice of words.
func oneOf[T ~string](field func(*Config) *T, words ...T) value {
	allowed := make([]string, len(words))
	for i, w := range words {
		allowed[i] = string(w)
	}
	wants := "one of " + strings.Join(allowed, ", ")
	parse := func(s string) (T, error) {
		if !slices.Contains(words, T(s)) {
			return "", fmt.Errorf("%q is not allowed; it must be %s", s, wants)
		}
		return T(s), nil
	}
	v := single(field, parse, func(t T) string { return tomlQuote(string(t)) })
	v.wants = wants
	return v
}

// seconds is a duration that is given in whole seconds; "5m" is understood too.
func seconds(field func(*Config) *time.Duration, low, high time.Duration) value {
	wants := fmt.Sprintf("whole seconds from %d to %d", int64(low.Seconds()), int64(high.Seconds()))
	parse := func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err != nil || d < low || d > high || d%time.Second != 0 {
			return 0, fmt.Errorf("%q is not allowed; it must be %s", s, wants)
		}
		return d, nil
	}
	v := single(field, parse, func(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) })
	v.number = true
	v.wants = wants
	return v
}

// duration is a duration with a unit; a bare number is seconds.
func duration(field func(*Config) *time.Duration, low, high time.Duration) value {
	wants := fmt.Sprintf("a duration from %s to %s, such as \"90s\", \"5m\" or \"48h\"", showDuration(low), showDuration(high))
	parse := func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err != nil || d < low || d > high {
			return 0, fmt.Errorf("%q is not allowed; it must be %s", s, wants)
		}
		return d, nil
	}
	v := single(field, parse, func(d time.Duration) string { return tomlQuote(showDuration(d)) })
	v.number = true
	v.wants = wants
	return v
}

func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if _, err := strconv.Atoi(s); err == nil {
		s += "s"
	}
	return time.ParseDuration(s)
}

func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func size(field func(*Config) *Size, low, high Size) value {
	parse := func(s string) (Size, error) {
		n, err := ParseSize(s)
		if err == nil && (n < low || n > high) {
			err = fmt.Errorf("%q is not allowed; it must be from %s to %s", s, low, high)
		}
		return n, err
	}
	v := single(field, parse, func(s Size) string { return tomlQuote(s.String()) })
	v.number = true
	v.wants = fmt.Sprintf("a size from %s to %s, such as \"500MB\" or \"1GiB\"", low, high)
	return v
}

// tomlQuote writes a TOML string; what JSON escapes is valid there too.
func tomlQuote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\x7f", `\u007f`)
}
