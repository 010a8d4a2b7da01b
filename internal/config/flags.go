package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Flags are the flags of `supervisor start`. They hold what the command line gave, so each app needs its own.
func Flags() []cli.Flag { return flags(func(option) bool { return true }) }

// PluginFlags are those of them that say where plugins are.
func PluginFlags() []cli.Flag {
	return flags(func(o option) bool { return o.key == "config-file" || o.key == "plugin-dirs" })
}

func flags(which func(option) bool) []cli.Flag {
	var flags []cli.Flag
	for _, o := range options {
		if o.in&inFlag == 0 || !which(o) {
			continue
		}
		flags = append(flags, &optionFlag{
			option: o,
			GenericFlag: &cli.GenericFlag{
				Name:        o.key,
				Category:    o.group,
				Usage:       o.doc,
				DefaultText: o.def,
				Value:       &flagTexts{boolean: o.value.boolean},
			},
		})
	}
	return flags
}

// optionFlag shows an option's variable in the help, but leaves reading it to Parse.
type optionFlag struct {
	*cli.GenericFlag
	option option
}

func (f *optionFlag) TakesValue() bool     { return !f.option.value.boolean }
func (f *optionFlag) GetEnvVars() []string { return []string{f.option.env()} }

// String is the flag's line in the help. cli knows a placeholder only as a word of the usage text, so it is put in here.
func (f *optionFlag) String() string {
	return strings.Replace(cli.FlagStringer(f), " value\t", " "+f.option.arg+"\t", 1)
}

// flagTexts keeps the texts of a flag's occurrences.
type flagTexts struct {
	boolean bool
	texts   []string
}

func (t *flagTexts) Set(text string) error {
	t.texts = append(t.texts, text)
	return nil
}

func (t *flagTexts) String() string { return "" }

// IsBoolFlag lets a flag stand without a value.
func (t *flagTexts) IsBoolFlag() bool { return t.boolean }

// Load makes the Config of `supervisor start` from the command line, the environment and the config file. It can be called
// again to read the file anew.
func Load(c *cli.Context) (*Config, []string, error) {
	s, err := Gather(c)
	if err != nil {
		return nil, nil, err
	}
	return Parse(s)
}

// LoadWithoutHub is Load for commands that have nothing to do with the hub: endpoint and token may be missing.
func LoadWithoutHub(c *cli.Context) (*Config, []string, error) {
	s, err := Gather(c)
	if err != nil {
		return nil, nil, err
	}
	s.WithoutHub = true
	return Parse(s)
}

// Path is the path of the config file that Load reads; "" if there is none.
func Path(c *cli.Context) string {
	in, _ := configFile(given(c))
	return in.last()
}

// configFile finds what names the config file.
func configFile(s Sources) (in input, origin Origin) {
	o, _ := optionOf("config-file")
	in, origin, _ = s.find(o)
	return in, origin
}

// given is what the command line and the environment give.
func given(c *cli.Context) Sources {
	s := Sources{Flags: map[string][]string{}, LookupEnv: os.LookupEnv, Root: os.Geteuid() == 0}
	for _, o := range options {
		if t, ok := c.Generic(o.key).(*flagTexts); ok && len(t.texts) > 0 {
			s.Flags[o.key] = slices.Clone(t.texts)
		}
	}
	return s
}

// Gather collects what Load parses.
func Gather(c *cli.Context) (Sources, error) {
	s := given(c)
	in, origin := configFile(s)
	if in.last() == "" {
		return s, nil
	}
	s.Path = in.last()
	data, err := os.ReadFile(s.Path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return Sources{}, fmt.Errorf("%s: cannot read the config file %s: %w", origin.Where, s.Path, err)
	}
	s.File = data
	return s, nil
}
