// Package settings carries the settings of the executors that Signalman comes with from agent.toml to their workers, through
// protocol.Settings.Extra. The supervisor writes them and the worker reads them; neither needs the other's libraries for it.
package settings

import (
	"encoding/json"
	"fmt"
	"regexp"
)

// PullPolicy tells when an image is asked for at its registry.
type PullPolicy string

// The values of PullPolicy.
const (
	PullIfNotPresent PullPolicy = "if-not-present"
	PullAlways       PullPolicy = "always"
	PullNever        PullPolicy = "never"
)

// Compose is what the host's owner has set for jobs in containers.
type Compose struct {
	PullPolicy PullPolicy `json:"pull-policy"`
	// AllowedImages are regular expressions of the images that jobs may use; none: all.
	AllowedImages []*regexp.Regexp `json:"allowed-images"`
	// MountDockerSocket gives main the engine's own socket, and so the host.
	MountDockerSocket bool `json:"mount-docker-socket"`
	// ExposeKVM gives main /dev/kvm, if the host has it.
	ExposeKVM bool `json:"expose-kvm-device"`
	// Files of the host are there in every container, read and write.
	Files              []File `json:"files"`
	FailOnMissingFiles bool   `json:"fail-on-missing-files"`
}

// File is a file or folder of the host, and where containers have it.
type File struct {
	Host      string `json:"host"`
	Container string `json:"container"`
}

// DefaultCompose is what holds where nothing is set.
func DefaultCompose() Compose { return Compose{PullPolicy: PullIfNotPresent, MountDockerSocket: true} }

// composeKey is where Extra has all of it: that map has texts only.
const composeKey = "compose"

// Extra is for protocol.Settings.
func (c Compose) Extra() map[string]string {
	text, _ := json.Marshal(c) // texts, booleans and lists of them can always be marshalled
	return map[string]string{composeKey: string(text)}
}

// ComposeFrom reads what Extra made. What isn't there is as in DefaultCompose.
func ComposeFrom(extra map[string]string) (Compose, error) {
	c := DefaultCompose()
	if text, ok := extra[composeKey]; ok {
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return c, fmt.Errorf("cannot make sense of the settings for jobs in containers: %w", err)
		}
	}
	return c, nil
}
