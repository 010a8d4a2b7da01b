package kube

import (
	"cmp"
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// The pause before a watch is begun anew grows from the first to the last of these, while the API server can't be reached.
const firstPause, lastPause = 50 * time.Millisecond, 2 * time.Second

// fromNow is a version from which a watch begins with what there is.
const fromNow = "0"

// FollowPod calls changed with each state of a pod from the given one on, the last time with nil: it is gone. The watch is of that pod
// alone. A pod with nothing but a name may not be there yet. It returns when the watch has begun; wait then returns when ctx has ended or the pod is gone. A watch that ends is begun anew as long
// as it takes, and nothing is missed but states in between.
func (c *Cluster) FollowPod(ctx context.Context, pod *corev1.Pod, changed func(*corev1.Pod)) (wait func(), err error) {
	f := follower{
		cluster: c, resource: "pods", selector: fields.OneTermEqualSelector("metadata.name", pod.Name).String(),
		version: cmp.Or(pod.ResourceVersion, fromNow), list: func() listObject { return &corev1.PodList{} },
		happened: func(obj runtime.Object, deleted bool) bool {
			now, ok := obj.(*corev1.Pod)
			if !ok {
				return true
			}
			if deleted || pod.UID != "" && now.UID != pod.UID {
				changed(nil)
				return false
			}
			changed(now)
			return true
		},
	}
	f.listed = func(list runtime.Object) bool {
		for _, now := range list.(*corev1.PodList).Items {
			return f.happened(&now, false)
		}
		changed(nil)
		return false
	}
	return f.follow(ctx)
}

// FollowEvents calls happened with the events of a pod, as FollowPod does with its states.
func (c *Cluster) FollowEvents(ctx context.Context, pod *corev1.Pod, happened func(*corev1.Event)) (wait func(), err error) {
	f := follower{
		cluster: c, resource: "events", selector: fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String(),
		version: fromNow, list: func() listObject { return &corev1.EventList{} }, // events may be in a store of their own, with other versions

		happened: func(obj runtime.Object, deleted bool) bool {
			if event, ok := obj.(*corev1.Event); ok && !deleted {
				happened(event)
			}
			return true
		},
		listed: func(list runtime.Object) bool {
			for _, event := range list.(*corev1.EventList).Items {
				happened(&event)
			}
			return true
		},
	}
	return f.follow(ctx)
}

type listObject interface {
	runtime.Object
	metav1.ListInterface
}

// follower watches what a field selector selects, and lists it where a watch can't go on from the last.
type follower struct {
	cluster  *Cluster
	resource string
	selector string
	version  string // where the next watch begins; "": list first
	list     func() listObject
	// happened and listed are given what there is, and tell whether to go on.
	happened func(obj runtime.Object, deleted bool) bool
	listed   func(runtime.Object) bool
}

func (f *follower) follow(ctx context.Context) (wait func(), err error) {
	first, err := f.watch(ctx)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(ctx, first)
	}()
	return func() { <-done }, nil
}

func (f *follower) run(ctx context.Context, w watch.Interface) {
	pause := firstPause
	for {
		if w != nil {
			progress, more := f.drain(ctx, w)
			w.Stop()
			if !more {
				return
			}
			if progress {
				pause = firstPause
			}
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
			return
		}
		if f.version == "" {
			more, err := f.look(ctx)
			if !more {
				return
			}
			if err != nil {
				w = nil
				continue
			}
		}
		var err error
		if w, err = f.watch(ctx); err != nil {
			w = nil
			if !errors.Is(err, ErrUnreachable) { // such as a version that is too old by now
				f.version = ""
			}
		}
	}
}

func (f *follower) watch(ctx context.Context) (watch.Interface, error) {
	w, err := f.request(true).Watch(ctx)
	if err != nil {
		return nil, f.cluster.explain(Right{Verb: "watch", Resource: f.resource}, err)
	}
	return w, nil
}

// look lists what there is.
func (f *follower) look(ctx context.Context) (more bool, err error) {
	limited, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	list := f.list()
	if err := f.request(false).Do(limited).Into(list); err != nil {
		return ctx.Err() == nil, err
	}
	f.version = list.GetResourceVersion()
	return f.listed(list), nil
}

func (f *follower) request(watching bool) *rest.Request {
	o := &metav1.ListOptions{FieldSelector: f.selector, Watch: watching}
	if watching {
		o.ResourceVersion = f.version // without bookmarks: API servers with an etcd before 3.5 refuse some such watches
	}
	return f.cluster.core.Get().Namespace(f.cluster.namespace).Resource(f.resource).VersionedParams(o, parameters)
}

// drain hands on what a watch tells until it ends.
func (f *follower) drain(ctx context.Context, w watch.Interface) (progress, more bool) {
	for {
		select {
		case <-ctx.Done():
			return progress, false
		case event, ok := <-w.ResultChan():
			if !ok {
				return progress, true
			}
			if event.Type == watch.Error {
				f.version = ""
				return progress, true
			}
			obj, err := meta.Accessor(event.Object)
			if err != nil {
				f.version = ""
				return progress, true
			}
			progress, f.version = true, obj.GetResourceVersion()
			if !f.happened(event.Object, event.Type == watch.Deleted) {
				return progress, false
			}
		}
	}
}
