package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
)

// Thing is something that carries labels.
type Thing struct {
	Kind   Kind
	ID     string
	Labels map[string]string
}

// Kind of a Thing.
type Kind string

// The kinds, in the order in which they can be removed.
const (
	KindContainer Kind = "container"
	KindNetwork   Kind = "network"
	KindVolume    Kind = "volume"
)

// CreateNetwork makes a bridge network and returns its id.
func (e *Engine) CreateNetwork(ctx context.Context, name string, labels map[string]string) (string, error) {
	made, err := e.api.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: labels})
	if err != nil {
		return "", e.wrap(ctx, err)
	}
	return made.ID, nil
}

// RemoveNetwork removes a network, and takes out of it what others have put there. One that is gone already is no error.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	if n, err := e.api.NetworkInspect(ctx, id, network.InspectOptions{}); err == nil {
		for container := range n.Containers {
			_ = e.api.NetworkDisconnect(ctx, id, container, true) // the removal tells
		}
	}
	return ignoreNotFound(e.wrap(ctx, e.api.NetworkRemove(ctx, id)))
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func labelFilter(labels map[string]string) filters.Args {
	f := filters.NewArgs()
	for name, value := range labels {
		f.Add("label", name+"="+value)
	}
	return f
}

// List finds all that carries the given labels, in an order in which it can be removed.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]Thing, error) {
	f := labelFilter(labels)
	var things []Thing
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: f})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	for _, c := range containers {
		things = append(things, Thing{KindContainer, c.ID, c.Labels})
	}
	networks, err := e.api.NetworkList(ctx, network.ListOptions{Filters: f})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	for _, n := range networks {
		things = append(things, Thing{KindNetwork, n.ID, n.Labels})
	}
	volumes, err := e.api.VolumeList(ctx, volume.ListOptions{Filters: f})
	if err != nil {
		return nil, e.wrap(ctx, err)
	}
	for _, v := range volumes.Volumes {
		things = append(things, Thing{KindVolume, v.Name, v.Labels})
	}
	return things, nil
}

// RemoveThing kills and removes something. What is gone already is no error.
func (e *Engine) RemoveThing(ctx context.Context, t Thing) error {
	var err error
	switch t.Kind {
	case KindContainer:
		err = e.Remove(ctx, t.ID)
	case KindNetwork:
		err = e.RemoveNetwork(ctx, t.ID)
	case KindVolume:
		err = ignoreNotFound(e.wrap(ctx, e.api.VolumeRemove(ctx, t.ID, true)))
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s %.12s: %w", t.Kind, t.ID, err)
	}
	return nil
}

// EventKind is what has happened to a container.
type EventKind string

// The kinds of events.
const (
	EventDied   EventKind = "die"
	EventHealth EventKind = "health_status"
)

// Event tells that a container died or that its health has changed.
type Event struct {
	Kind        EventKind
	ContainerID string
}

// Events tells what happens to the containers that carry the given labels, until ctx ends or the connection breaks; then it returns
// why. started, if set, is called when nothing that happens from then on is missed.
func (e *Engine) Events(ctx context.Context, labels map[string]string, started func(), handle func(Event)) error {
	f := labelFilter(labels)
	f.Add("type", string(events.ContainerEventType))
	f.Add("event", string(EventDied))
	f.Add("event", string(EventHealth))
	messages, failed := e.api.Events(ctx, events.ListOptions{Filters: f})
	if started != nil { // the client has the engine's answer by now
		started()
	}
	for {
		select {
		case m := <-messages:
			kind := EventHealth
			if m.Action == events.ActionDie {
				kind = EventDied
			}
			handle(Event{Kind: kind, ContainerID: m.Actor.ID})
		case err := <-failed:
			return e.wrap(ctx, err)
		}
	}
}
