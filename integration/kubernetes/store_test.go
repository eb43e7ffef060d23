package kubernetes

import (
	"context"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// If this fails, kube-apiserver cannot create, read, change or delete an object
// as it should, and controllers lose or overwrite each other's updates.
func TestObjects(t *testing.T) {
	for name, test := range map[string]func(context.Context, *testing.T, *world){
		"Create":                                     func(ctx context.Context, t *testing.T, w *world) { storagetesting.RunTestCreate(ctx, t, w, w.stored) },
		"CreateWithTTL":                              with(storagetesting.RunTestCreateWithTTL),
		"CreateWithKeyExist":                         with(storagetesting.RunTestCreateWithKeyExist),
		"Get":                                        with(storagetesting.RunTestGet),
		"UnconditionalDelete":                        with(storagetesting.RunTestUnconditionalDelete),
		"ConditionalDelete":                          with(storagetesting.RunTestConditionalDelete),
		"DeleteWithSuggestion":                       with(storagetesting.RunTestDeleteWithSuggestion),
		"DeleteWithSuggestionAndConflict":            with(storagetesting.RunTestDeleteWithSuggestionAndConflict),
		"DeleteWithConflict":                         with(storagetesting.RunTestDeleteWithConflict),
		"DeleteWithSuggestionOfDeletedObject":        with(storagetesting.RunTestDeleteWithSuggestionOfDeletedObject),
		"ValidateDeletionWithSuggestion":             with(storagetesting.RunTestValidateDeletionWithSuggestion),
		"ValidateDeletionWithOnlySuggestionValid":    with(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid),
		"PreconditionalDeleteWithSuggestion":         with(storagetesting.RunTestPreconditionalDeleteWithSuggestion),
		"PreconditionalDeleteWithOnlySuggestionPass": with(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass),
		"GuaranteedUpdate": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, w, w.stored)
		},
		"GuaranteedUpdateWithTTL": with(storagetesting.RunTestGuaranteedUpdateWithTTL),
		"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, w)
		},
		"GuaranteedUpdateWithConflict":              with(storagetesting.RunTestGuaranteedUpdateWithConflict),
		"GuaranteedUpdateWithSuggestionAndConflict": with(storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict),
		"TransformationFailure": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestTransformationFailure(ctx, t, w)
		},
		"KeySchema": with(storagetesting.RunTestKeySchema),
		"Count": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestStats(ctx, t, w, w.codec, w.values, false)
		},
	} {
		t.Run(name, func(t *testing.T) { test(t.Context(), t, newWorld(t)) })
	}
}

// with fits a test of Kubernetes that needs the storage alone.
func with(test func(context.Context, *testing.T, storage.Interface)) func(context.Context, *testing.T, *world) {
	return func(ctx context.Context, t *testing.T, w *world) { test(ctx, t, w) }
}

// If this fails, lists of kube-apiserver miss objects, mix revisions, cannot be
// continued, or do not tell that they are too old.
func TestLists(t *testing.T) {
	for name, test := range map[string]func(context.Context, *testing.T, *world){
		"Paging": with(storagetesting.RunTestListPaging),
		"NonRecursive": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, w.write, w)
		},
		"RecursivePrefix": with(storagetesting.RunTestGetListRecursivePrefix),
		"NamespaceScoped": with(storagetesting.RunTestNamespaceScopedList),
		"Continuation": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListContinuation(ctx, t, w, w.counted)
		},
		"ContinuationWithFilter": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, w, w.counted)
		},
		"InconsistentContinuation": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, w, w.compact)
		},
		"ResourceVersionMatch": func(ctx context.Context, t *testing.T, w *world) {
			storagetesting.RunTestListResourceVersionMatch(ctx, t, w)
		},
	} {
		t.Run(name, func(t *testing.T) { test(t.Context(), t, newWorld(t)) })
	}
	t.Run("PaginationRareObject", func(t *testing.T) {
		enable(t, features.ListFromCacheSnapshot, false) // it makes requests of its own
		w := newWorld(t)
		storagetesting.RunTestListPaginationRareObject(t.Context(), t, w, w.counted)
	})
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprintf("RangeStream=%t", stream), func(t *testing.T) {
			enable(t, features.EtcdRangeStream, stream)
			t.Run("List", func(t *testing.T) {
				w := newWorld(t)
				lists, _ := w.client.Kubernetes.(*storagetesting.KubernetesRecorder)
				storagetesting.RunTestList(t.Context(), t, w, w.compact, false, lists)
				if streams := w.recorder().GetStreamReadsAndReset(); (streams > 0) != stream {
					t.Errorf("%d lists came as a stream", streams)
				}
			})
			t.Run("Consistent", func(t *testing.T) {
				w := newWorld(t)
				storagetesting.RunTestConsistentList(t.Context(), t, w, w.write, false, true, false)
			})
		})
	}
}

// pageMax is the largest page that the apiserver asks for.
const pageMax = 10000

// counted checks how many objects were read and how many requests that took: the
// pages double while they do not fill up.
func (w *world) counted(t *testing.T, page, objects uint64) {
	t.Helper()
	if got := w.prefix.GetReadsAndReset(); got != objects {
		t.Errorf("%d objects were read, want %d", got, objects)
	}
	requests := uint64(1)
	if page != 0 {
		for sum := uint64(1); sum < objects; requests++ {
			page = min(2*page, pageMax)
			sum += page
		}
	}
	if got := w.recorder().GetReadsAndReset() + w.recorder().GetStreamReadsAndReset(); got != requests {
		t.Errorf("%d requests, want %d", got, requests)
	}
}

// If this fails, a list of kube-apiserver that comes as a stream of several
// pieces misses objects or mixes revisions.
func TestStreamedListOfManyPieces(t *testing.T) {
	enable(t, features.EtcdRangeStream, true)
	w := newWorld(t)
	const pods = 250
	for i := range pods {
		name := fmt.Sprintf("pod-%03d", i)
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
		if err := w.Create(t.Context(), "/pods/ns/"+name, pod, &example.Pod{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	list := func(at string, match metav1.ResourceVersionMatch) *example.PodList {
		t.Helper()
		out := &example.PodList{}
		o := storage.ListOptions{ResourceVersion: at, ResourceVersionMatch: match, Predicate: storage.Everything, Recursive: true}
		if err := w.GetList(t.Context(), "/pods/", o, out); err != nil {
			t.Fatal(err)
		}
		if w.recorder().GetStreamReadsAndReset() == 0 {
			t.Error("the list did not come as a stream")
		}
		return out
	}
	first := list("", "")
	if err := w.Create(t.Context(), "/pods/ns/zz", &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "zz"}}, &example.Pod{}, 0); err != nil {
		t.Fatal(err)
	}
	same, newer := list(first.ResourceVersion, metav1.ResourceVersionMatchExact), list(first.ResourceVersion, "")
	if len(first.Items) != pods || len(same.Items) != pods || same.ResourceVersion != first.ResourceVersion || len(newer.Items) != pods+1 {
		t.Errorf("%d, then %d at the same revision, then %d, want %d, %d, %d", len(first.Items), len(same.Items), len(newer.Items), pods, pods, pods+1)
	}
}

// If this fails, kube-apiserver does not notice that somebody else has compacted.
func TestCompaction(t *testing.T) {
	enable(t, features.ListFromCacheSnapshot, true)
	w := newWorld(t)
	storagetesting.RunTestCompactRevision(t.Context(), t, w, w.write, w.compact)
}
