package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/client"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/proto/mvccpb"
)

// Why a member does not become part of a list.
var (
	errRegistryFull   = errors.New("discovery: cluster is full")
	errRegistryNoSize = errors.New("discovery: size key not found")
	errRegistrySize   = errors.New("discovery: size key is bad")
)

// registryRetryMax bounds the pause between attempts to reach the cluster with
// the list.
const registryRetryMax = 30 * time.Second

// registry is a list of the members of a new cluster, kept by another cluster:
//
//	/_etcd/registry/<token>/_config/size          how many there shall be
//	/_etcd/registry/<token>/members/<hex ID>      name=peerURL[,name=url2]
//
// The first members by creation are in; the list may be used once.
type registry struct {
	*client.Client
	log     *slog.Logger
	timeout time.Duration
	root    string // up to the token, with a slash
	key     string // of this member
	info    string
}

// joinRegistry writes this member into the list, waits until the list is
// complete and returns it as the text of --initial-cluster. It tries until it has
// an answer, or ctx ends.
func (c *Config) joinRegistry(ctx context.Context, log *slog.Logger) (string, error) {
	r, err := c.openRegistry(log)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	pause := time.Second
	for {
		members, err := r.join(ctx)
		if err == nil || !isPassing(err) || ctx.Err() != nil {
			return members, err
		}
		log.Warn("retry connecting to discovery service", "discovery-token", c.Discovery.Token,
			"discovery-endpoints", c.Discovery.Endpoints, "error", client.Detail(err).Error(), "backoff", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		pause = min(2*pause, registryRetryMax)
	}
}

// isPassing tells of failures that another attempt may not meet.
func isPassing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

func (c *Config) openRegistry(log *slog.Logger) (*registry, error) {
	d := &c.Discovery
	files, err := d.openTLS(log)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var secured *tls.Config
	if files != nil {
		secured = files.Client()
	}
	conn, err := client.New(client.Config{
		Endpoints: d.Endpoints, TLS: secured, User: d.User, Password: d.Password,
		DialTimeout: d.DialTimeout, KeepAliveTime: d.KeepAliveTime, KeepAliveTimeout: d.KeepAliveTimeout, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	urls := urlStrings(c.AdvertisePeerURLs)
	info := make([]string, len(urls))
	for i, u := range urls {
		info[i] = c.Name + "=" + u
	}
	root := "/_etcd/registry/" + d.Token + "/"
	return &registry{
		Client: conn, log: log, timeout: d.RequestTimeout, root: root,
		key: root + "members/" + strconv.FormatUint(uint64(memberID(urls, d.Token, nil)), 16), info: strings.Join(info, ","),
	}, nil
}

// join looks before it writes, so that a list that is full is not written to,
// and again after it, as others may have been faster.
func (r *registry) join(ctx context.Context) (string, error) {
	size, err := r.size(ctx)
	if err != nil {
		return "", err
	}
	if _, _, err := r.members(ctx, size); err != nil {
		return "", err
	}
	if err := r.register(ctx); err != nil {
		return "", err
	}
	members, rev, err := r.members(ctx, size)
	if err != nil {
		return "", err
	}
	return r.await(ctx, members, rev, size)
}

func (r *registry) size(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	answer, err := r.Get(ctx, r.root+"_config/size")
	if err != nil {
		return 0, err
	}
	if len(answer.Kvs) == 0 {
		return 0, errRegistryNoSize
	}
	size, err := strconv.Atoi(string(answer.Kvs[0].Value))
	if err != nil || size <= 0 {
		return 0, errRegistrySize
	}
	return size, nil
}

// members are those that are in, by creation, and the revision at which they
// are. A full list without this member is an error.
func (r *registry) members(ctx context.Context, size int) (in []*mvccpb.KeyValue, rev int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	answer, err := r.Get(ctx, r.root+"members/", client.Prefix(), client.Sort(pb.RangeRequest_CREATE, pb.RangeRequest_ASCEND))
	if err != nil {
		return nil, 0, err
	}
	in = answer.Kvs[:min(size, len(answer.Kvs))]
	if len(in) == size && !slices.ContainsFunc(in, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == r.key }) {
		return nil, 0, errRegistryFull
	}
	return in, answer.Header.Revision, nil
}

// register writes this member's line, unless a former start has done so.
func (r *registry) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	absent := &pb.Compare{Key: []byte(r.key), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}
	_, err := r.Txn(ctx, client.Txn{
		If: []*pb.Compare{absent}, Then: client.Ops(&pb.PutRequest{Key: []byte(r.key), Value: []byte(r.info)}),
	})
	if err == nil {
		r.log.Info("register member itself successfully", "memberKey", r.key, "memberInfo", r.info)
	}
	return err
}

// await follows the list until it is complete.
func (r *registry) await(ctx context.Context, in []*mvccpb.KeyValue, rev int64, size int) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := r.Watch(ctx, r.root+"members/", client.Prefix(), client.Revision(rev+1), client.NoDelete())
	for len(in) < size {
		r.log.Info("waiting for peers from discovery service", "clusterSize", size, "found-peers", len(in))
		answer, err := events.Next()
		if err != nil {
			return "", fmt.Errorf("discovery: wait for %d more members: %w", size-len(in), err)
		}
		for _, e := range answer.Events {
			if e.Kv.CreateRevision == e.Kv.ModRevision {
				in = append(in, e.Kv)
			}
		}
	}
	lines := make([]string, size)
	for i, kv := range in[:size] {
		lines[i] = string(kv.Value)
	}
	members := strings.Join(lines, ",")
	r.log.Info("discovery joined cluster successfully", "cluster", members)
	return members, nil
}
