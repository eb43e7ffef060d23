package kubernetes

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// If this fails, controllers miss events, see them twice or out of order, or
// start from the wrong revision.
func TestWatches(t *testing.T) {
	for name, test := range map[string]func(context.Context, *testing.T, *world){
		"Watch":           with(storagetesting.RunTestWatch),
		"ClusterScoped":   with(storagetesting.RunTestClusterScopedWatch),
		"NamespaceScoped": with(storagetesting.RunTestNamespaceScopedWatch),
		"DeleteTrigger":   with(storagetesting.RunTestDeleteTriggerWatch),
		"FromZero": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestWatchFromZero(ctx, t, w, w.compact)
		},
		"FromNonZero":                  with(storagetesting.RunTestWatchFromNonZero),
		"DelayedDelivery":              with(storagetesting.RunTestDelayedWatchDelivery),
		"Error":                        func(ctx context.Context, t *testing.T, w *world) { storagetesting.RunTestWatchError(ctx, t, w) },
		"ContextCancel":                with(storagetesting.RunTestWatchContextCancel),
		"Timeout":                      with(storagetesting.RunTestWatcherTimeout),
		"DeleteEventHasLatestRevision": with(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
		"InitializationSignal":         with(storagetesting.RunTestWatchInitializationSignal),
		"SendInitialEventsAsBefore":    with(storagetesting.RunSendInitialEventsBackwardCompatibility),
		"ErrorBlocksFurtherEvents": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, w)
		},
	} {
		t.Run(name, func(t *testing.T) { test(t.Context(), t, newWorld(t)) })
	}
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("RangeStream=%t", stream), func(t *testing.T) {
			enable(t, features.EtcdRangeStream, stream)
			t.Run("Semantics", func(t *testing.T) { storagetesting.RunWatchSemantics(t.Context(), t, newWorld(t)) })
			t.Run("InitialEvents", func(t *testing.T) {
				storagetesting.RunWatchSemanticInitialEventsExtended(t.Context(), t, newWorld(t))
			})
			t.Run("ListMatchSingle", func(t *testing.T) { storagetesting.RunWatchListMatchSingle(t.Context(), t, newWorld(t)) })
		})
	}
}

// If this fails, a watch of kube-apiserver on keys that nobody writes gets no
// bookmark, and its cache is forever old.
func TestProgress(t *testing.T) {
	const everySecond = "--watch-progress-notify-interval=1s"
	t.Run("Notify", func(t *testing.T) {
		w := newWorld(t, everySecond)
		storagetesting.RunOptionalTestProgressNotify(t.Context(), t, w, w.write)
	})
	t.Run("Bookmarks", func(t *testing.T) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(t.Context(), t, newWorld(t, everySecond), false)
	})
	t.Run("OnRequest", askedProgress)
}

// askedProgress: the apiserver's cache asks where its watch is before it answers
// a consistent list.
func askedProgress(t *testing.T) {
	w := newWorld(t)
	at, err := w.GetCurrentResourceVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := w.Watch(t.Context(), "/pods/", storage.ListOptions{
		ResourceVersion: strconv.FormatUint(at, 10), Predicate: storage.Everything, Recursive: true, ProgressNotify: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	want := uint64(w.write(t.Context(), t)) // not under /pods/: only progress can tell of it
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e := <-watcher.ResultChan():
			got, err := w.Versioner().ObjectResourceVersion(e.Object)
			if e.Type != watch.Bookmark || err != nil {
				t.Fatalf("%s %v, want a bookmark", e.Type, e.Object)
			}
			if got >= want {
				return
			}
		case <-tick.C:
			if err := w.RequestWatchProgress(t.Context()); err != nil {
				t.Fatal(err)
			}
		case <-deadline:
			t.Fatalf("no bookmark at revision %d", want)
		}
	}
}
