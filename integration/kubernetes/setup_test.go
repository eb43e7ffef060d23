package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/utils/clock"

	"github.com/kvorum/kvorum/integration/kubernetes/process"
)

// built are the programs and certificates that all tests use.
var built struct{ kvorum, certs string }

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kubernetes")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			err = build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// build makes the programs and, with kvctl, certificates of a member and a client.
func build(dir string) error {
	built.kvorum, built.certs = filepath.Join(dir, "kvorum"), filepath.Join(dir, "certs")
	kvctl := filepath.Join(dir, "kvctl")
	for _, args := range [][]string{
		{"go", "build", "-o", dir, "./cmd/kvorum", "./cmd/kvctl"},
		{kvctl, "certs", "init", "--dir", built.certs},
		{kvctl, "certs", "issue", "--dir", built.certs, "--member", "m1=127.0.0.1"},
		{kvctl, "certs", "issue", "--dir", built.certs, "--client", "kube-apiserver"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

func certFile(name string) string { return filepath.Join(built.certs, name) }

// secured gives a member the flags of mutual TLS.
func secured(m *process.Member, _ string) error {
	url := "https://" + m.Endpoint()
	m.Args = append(m.Args, "--listen-client-urls", url, "--advertise-client-urls", url, "--client-cert-auth",
		"--cert-file", certFile("m1.pem"), "--key-file", certFile("m1-key.pem"), "--trusted-ca-file", certFile("ca.pem"))
	return nil
}

// connect starts a member that ends with the test, and connects to it as
// kube-apiserver does.
func connect(t *testing.T, args ...string) *etcdkubernetes.Client {
	t.Helper()
	cluster, err := process.Start(process.Options{Binary: built.kvorum, Size: 1, Dir: t.TempDir(), Args: args, Prepare: secured})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cluster.Stop()
		if t.Failed() {
			t.Log(cluster.Members[0].LogTail(20))
		}
	})
	pair, err := tls.LoadX509KeyPair(certFile("kube-apiserver.pem"), certFile("kube-apiserver-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(certFile("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	client, err := etcdkubernetes.New(clientv3.Config{
		Endpoints: []string{"https://" + cluster.Members[0].Endpoint()}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: trusted, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	lists := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV = storagetesting.NewKVRecorder(client.KV, lists)
	client.Kubernetes = lists
	return client
}

const valuePrefix = "test!"

// world is a storage over a member of its own.
type world struct {
	store
	t      *testing.T
	client *etcdkubernetes.Client
	codec  runtime.Codec
	values *switched
	prefix *storagetesting.PrefixTransformer
}

// store is what etcd3.New makes.
type store interface {
	storage.Interface
	Close()
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	// What the apiserver has found out about one server is not true of the next.
	known := etcdfeature.DefaultFeatureSupportChecker
	etcdfeature.DefaultFeatureSupportChecker = etcdfeature.NewDefaultFeatureSupportChecker()
	t.Cleanup(func() { etcdfeature.DefaultFeatureSupportChecker = known })

	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{
		t: t, client: connect(t, args...),
		codec:  apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion),
		prefix: storagetesting.NewPrefixTransformer([]byte(valuePrefix), false),
	}
	w.values = &switched{}
	w.values.use(w.prefix)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1 // so that a lease ends within a test
	compactor := etcd3.NewCompactor(w.client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	versioner := storage.APIObjectVersioner{}
	s, err := etcd3.New(w.client, compactor, w.codec, func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, w.values, leases, etcd3.NewDefaultDecoder(w.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w.store = s
	return w
}

// switched is a transformer in whose place a test may put another.
type switched struct {
	now atomic.Pointer[value.Transformer]
}

func (s *switched) use(v value.Transformer) { s.now.Store(&v) }

func (s *switched) TransformFromStorage(ctx context.Context, data []byte, at value.Context) ([]byte, bool, error) {
	return (*s.now.Load()).TransformFromStorage(ctx, data, at)
}

func (s *switched) TransformToStorage(ctx context.Context, data []byte, at value.Context) ([]byte, error) {
	return (*s.now.Load()).TransformToStorage(ctx, data, at)
}

// UpdatePrefixTransformer is how Kubernetes' tests change what is stored.
func (w *world) UpdatePrefixTransformer(change storagetesting.PrefixTransformerModifier) func() {
	changed := *w.prefix
	w.values.use(change(&changed))
	return func() { w.values.use(w.prefix) }
}

// stored checks what lies under a key.
func (w *world) stored(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	r, err := w.client.KV.Get(ctx, key)
	if err != nil || len(r.Kvs) == 0 {
		t.Fatalf("get %s: %v, %v", key, r, err)
	}
	object, err := runtime.Decode(w.codec, r.Kvs[0].Value[len(valuePrefix):])
	if err != nil {
		t.Fatalf("decode %q: %v", r.Kvs[0].Value, err)
	}
	if pod, ok := object.(*example.Pod); !ok || pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored under %s: %+v", key, object)
	}
}

// compact compacts as the apiserver's compactor does, and waits until the
// storage has seen it.
func (w *world) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	rev, err := w.Versioner().ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, w.client.Client, 0, int64(rev))
	if err != nil {
		_, _, _, err = etcd3.Compact(ctx, w.client.Client, version, int64(rev))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); w.CompactRevision() != int64(rev); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("the storage did not notice the compaction at %d", rev)
		}
	}
}

// write makes a revision behind the storage's back.
func (w *world) write(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	r, err := w.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

// reads are the requests that the storage has made.
func (w *world) recorder() *storagetesting.KVRecorder {
	r, ok := w.client.KV.(*storagetesting.KVRecorder)
	if !ok {
		w.t.Fatal("the client does not count its reads")
	}
	return r
}

// enable switches a feature of the apiserver for one test.
func enable(t *testing.T, f featuregate.Feature, on bool) {
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, f, on)
}
