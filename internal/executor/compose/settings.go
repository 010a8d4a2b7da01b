package compose

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// Keys of protocol.Settings.Extra. A list has one element a line.
const (
	ExtraPullPolicy         = "pull-policy"
	ExtraAllowedImages      = "allowed-images"
	ExtraMountSocket        = "mount-docker-socket"
	ExtraExposeKVM          = "expose-kvm-device"
	ExtraFiles              = "files"
	ExtraFailOnMissingFiles = "fail-on-missing-files"
)

// pullPolicy tells when an image is asked for at its registry.
type pullPolicy string

const (
	pullIfNotPresent pullPolicy = "if-not-present"
	pullAlways       pullPolicy = "always"
	pullNever        pullPolicy = "never"
)

// options are what the host's owner has set for jobs with containers.
type options struct {
	pull        pullPolicy
	allowed     []*regexp.Regexp // empty: all
	mountSocket bool
	exposeKVM   bool
	// files are HOST:CONTAINER.
	files              []string
	failOnMissingFiles bool
}

func optionsOf(extra map[string]string) (options, error) {
	o := options{
		pull:        pullPolicy(extra[ExtraPullPolicy]),
		mountSocket: extra[ExtraMountSocket] != "false",
		exposeKVM:   extra[ExtraExposeKVM] == "true",
		files:       lines(extra[ExtraFiles]), failOnMissingFiles: extra[ExtraFailOnMissingFiles] == "true",
	}
	if o.pull == "" {
		o.pull = pullIfNotPresent
	}
	if !slices.Contains([]pullPolicy{pullIfNotPresent, pullAlways, pullNever}, o.pull) {
		return o, fmt.Errorf("compose.pull-policy is %q: it can be %s, %s or %s", o.pull, pullIfNotPresent, pullAlways, pullNever)
	}
	for _, pattern := range lines(extra[ExtraAllowedImages]) {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return o, fmt.Errorf("compose.allowed-images: %w", err)
		}
		o.allowed = append(o.allowed, re)
	}
	return o, nil
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// allow tells of an image that jobs may not use.
func (o options) allow(containers []protocol.Container) error {
	for _, c := range containers {
		matches := func(re *regexp.Regexp) bool { return re.MatchString(c.Image) }
		if len(o.allowed) > 0 && !slices.ContainsFunc(o.allowed, matches) {
			return fmt.Errorf("the image %s of container %s may not be used here: it matches none of compose.allowed-images", c.Image, c.Name)
		}
	}
	return nil
}

// binds are the host's files that all containers get. missing are those that aren't there, if that is no failure.
func (o options) binds() (binds, missing []string, err error) {
	for _, file := range o.files {
		host, _, _ := strings.Cut(file, ":")
		if _, err := os.Stat(host); err == nil {
			binds = append(binds, file)
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("cannot give the host's file to the job's containers (files): %w", err)
		}
		if o.failOnMissingFiles {
			return nil, nil, fmt.Errorf("the host's file %s for the job's containers (files) is not there, and fail-on-missing-files is set", host)
		}
		missing = append(missing, host)
	}
	return binds, missing, nil
}
