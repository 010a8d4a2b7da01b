package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/connection"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/regtoken"
	"github.com/signalman-ci/signalman/internal/version"
)

// hubOptions are those of a client of the hub, which reads the files that are named here when it is made.
func hubOptions(cfg *config.Config) hub.Options {
	return hub.Options{
		Endpoint: cfg.Endpoint, NoHTTPS: cfg.NoHTTPS, UserAgent: "signalman/" + version.Version,
		Connection: connection.Settings{
			CAFile: cfg.Connection.CAFile, ClientCert: cfg.Connection.ClientCert, ClientKey: cfg.Connection.ClientKey,
			Proxy: cfg.Connection.Proxy.Reveal(),
		},
	}
}

// tokenSource is where the registration token comes from.
func tokenSource(cfg *config.Config) regtoken.Source {
	switch {
	case cfg.TokenFile != "":
		return regtoken.File(cfg.TokenFile)
	case cfg.TokenCommand != "":
		return regtoken.Command(cfg.TokenCommand, os.Environ())
	}
	return regtoken.Text(cfg.Token.Reveal())
}

// exposures says in a line each where others than the agent can come by its secrets.
func exposures(cfg *config.Config) []string {
	var all, files []string
	proxy := cfg.Connection.Proxy.Reveal()
	for _, secret := range []struct {
		key, instead string
		isSet        bool
	}{
		{"token", "token-file, token-command or SEMAPHORE_AGENT_TOKEN", cfg.Token != ""},
		{"proxy", "SEMAPHORE_AGENT_PROXY or the config file", connection.ShowProxy(proxy) != proxy},
	} {
		switch source := cfg.Origin(secret.key).Source; {
		case secret.isSet && source == config.FromFlag:
			all = append(all, fmt.Sprintf("--%s on the command line is a secret that every user of this host can read; use %s",
				secret.key, secret.instead))
		case secret.isSet && source == config.FromFile:
			files = append(files, cfg.ConfigFile)
		}
	}
	for _, path := range slices.Compact(append(files, cfg.TokenFile, cfg.Connection.ClientKey)) {
		if path == "" {
			continue
		}
		if exposed := regtoken.Exposed(path); exposed != "" {
			all = append(all, exposed)
		}
	}
	return all
}
