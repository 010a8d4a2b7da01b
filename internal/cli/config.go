package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/signalman-ci/signalman/internal/config"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check a config file, show the settings, or import the existing agent's file",
		Action: func(*cli.Context) error {
			return errors.New("config takes one of check, show and import; see: supervisor config --help")
		},
		Subcommands: []*cli.Command{
			{
				Name: "check", ArgsUsage: "FILE", Usage: "tell whether `supervisor start` would take a config file",
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return errors.New("config check takes one file: supervisor config check FILE")
					}
					return checkConfig(c, c.Args().First())
				},
			},
			{
				Name: "show", Usage: "show each setting, and where its value comes from; takes what `supervisor start` takes",
				Flags: append(config.Flags(), &cli.BoolFlag{Name: "json", Usage: "print JSON"}),
				Action: func(c *cli.Context) error {
					if err := noArguments(c); err != nil {
						return err
					}
					return showConfig(c)
				},
			},
			{
				Name: "import", ArgsUsage: "OLD.yaml", Usage: "print an agent.toml with the settings of the existing agent's file, secrets too",
				Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to this file, which must not exist"}},
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return errors.New("config import takes one file, after the flags: supervisor config import -o agent.toml OLD.yaml")
					}
					return importConfig(c, c.Args().First(), c.String("output"))
				},
			},
		},
	}
}

func checkConfig(c *cli.Context, path string) error {
	data, err := readConfig(path)
	if err != nil {
		return err
	}
	cfg, warnings, err := config.Parse(config.Sources{
		Flags: map[string][]string{"config-file": {path}}, LookupEnv: os.LookupEnv, Root: os.Geteuid() == 0, Path: path, File: data,
	})
	if err != nil {
		return err
	}
	_, more, err := settingsOf(cfg, hclog.NewNullLogger())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, w := range slices.Concat(warnings, more, exposures(cfg)) {
		fmt.Fprintln(c.App.Writer, "Warning:", w)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: ok\n", path)
	return err
}

func showConfig(c *cli.Context) error {
	cfg, warnings, err := config.Load(c)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(c.App.ErrWriter, "Warning:", w)
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, cfg.Settings())
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, s := range cfg.Settings() {
		from := string(s.Origin.Source)
		if s.Origin.Where != "" {
			from = s.Origin.Where
		}
		fmt.Fprintf(w, "%s = %s\t# %s\n", s.Key, s.Value, from)
	}
	return w.Flush()
}

func importConfig(c *cli.Context, path, output string) error {
	data, err := readConfig(path)
	if err != nil {
		return err
	}
	toml, problems, err := config.Import(path, data)
	for _, p := range problems {
		fmt.Fprintf(c.App.ErrWriter, "Warning: not taken over: %s\n", p)
	}
	if err != nil {
		return err
	}
	if output == "" {
		_, err := fmt.Fprint(c.App.Writer, toml)
		return err
	}
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it holds the token
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	if _, err := f.WriteString(toml); err != nil {
		return errors.Join(fmt.Errorf("cannot write: %w", err), f.Close())
	}
	return f.Close()
}

func readConfig(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return data, nil
}
