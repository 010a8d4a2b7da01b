package plugins

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/signalman-ci/signalman/internal/filewatch"
)

// Watch tells the log which plugins there are, and when one comes, changes or goes, until ctx ends. current gives the settings, which
// are others after renewed has sent.
func Watch(ctx context.Context, current func() Finder, renewed <-chan struct{}, logger hclog.Logger) {
	known := map[string]Plugin{}
	for ctx.Err() == nil {
		known = current().watch(ctx, renewed, known, logger)
	}
}

// watch does it for as long as the settings hold. It is told what is known and tells what is then.
func (f Finder) watch(ctx context.Context, renewed <-chan struct{}, known map[string]Plugin, logger hclog.Logger) map[string]Plugin {
	opts := filewatch.Options{Logger: logger}
	for _, dir := range f.Dirs {
		opts.Folders = append(opts.Folders, filewatch.Folder{Path: dir, Pattern: fileName("*")}, filewatch.Folder{Path: dir, Pattern: LockFile})
	}
	w := filewatch.New(opts)
	look := func() { known = f.tell(known, logger) }
	look()
	if len(f.Dirs) == 0 {
		select {
		case <-ctx.Done():
		case <-renewed:
		}
		return known
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	waiting.Go(func() {
		select {
		case <-ctx.Done():
		case <-renewed:
			cancel()
		}
	})
	w.Run(ctx, look)
	return known
}

// tell logs what differs from what is known, and returns what is there now.
func (f Finder) tell(known map[string]Plugin, logger hclog.Logger) map[string]Plugin {
	now := map[string]Plugin{}
	for _, p := range f.List() {
		if p.BuiltIn {
			continue
		}
		now[p.Path] = p
		was, old := known[p.Path]
		if p == was {
			continue
		}
		about := []any{"executor", p.Name, "file", p.Path, "sha256", p.SHA256, "pin", p.Pin}
		switch {
		case p.Problem != "":
			logger.Warn("a plugin can't be used", append(about, "reason", p.Problem)...)
		case !old:
			logger.Info("found a plugin", about...)
		case was.Problem != "":
			logger.Info("a plugin can be used now", about...)
		case was.SHA256 != p.SHA256:
			logger.Info("a plugin was replaced; the next job gets the new one", about...)
		default:
			logger.Info("a plugin's pin has changed", about...)
		}
	}
	for path, p := range known {
		if _, there := now[path]; !there {
			logger.Info("a plugin is gone", "executor", p.Name, "file", path)
		}
	}
	return now
}
