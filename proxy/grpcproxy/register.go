package grpcproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/kvorum/kvorum/client"
)

const (
	registerPause     = time.Second
	unregisterTimeout = 2 * time.Second
)

// registrationPrefix is of the keys of all proxies, as the cluster has them.
func (p *Proxy) registrationPrefix() []byte {
	return p.ns.key([]byte(p.cfg.ResolverPrefix + "/"))
}

// register keeps this proxy in the list of proxies until ctx ends. The key has a
// lease, so a proxy that dies leaves the list by itself.
func (p *Proxy) register(ctx context.Context) error {
	for ctx.Err() == nil {
		lost, lease, err := p.enrol(ctx)
		if err != nil {
			p.log.Warn("failed to register the proxy", "prefix", p.cfg.ResolverPrefix, "error", client.Detail(err).Error())
			wait(ctx, registerPause)
			continue
		}
		p.log.Info("registered the proxy", "prefix", p.cfg.ResolverPrefix, "addr", p.cfg.AdvertiseClientURL)
		for range lost { //nolint:revive // until it is closed
		}
		if ctx.Err() != nil {
			p.unregister(lease) //nolint:contextcheck // its own context is over
			return nil
		}
		p.log.Warn("the registration of the proxy was lost, registering again")
	}
	return nil
}

// enrol writes the key; the channel is closed when its lease is lost.
func (p *Proxy) enrol(ctx context.Context) (lost <-chan struct{}, lease int64, err error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, 0, err
	}
	about, err := json.Marshal(registrationName{name})
	if err != nil {
		return nil, 0, err
	}
	entry, err := json.Marshal(registration{Addr: p.cfg.AdvertiseClientURL, Metadata: string(about)})
	if err != nil {
		return nil, 0, err
	}
	granted, err := p.client.Grant(ctx, int64(p.cfg.ResolverTTLSec))
	if err != nil {
		return nil, 0, fmt.Errorf("grant lease: %w", err)
	}
	if _, err := p.client.Put(ctx, string(p.registrationPrefix())+p.cfg.AdvertiseClientURL, string(entry), client.Lease(granted.ID)); err != nil {
		return nil, 0, fmt.Errorf("write key: %w", err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for range p.client.KeepAlive(ctx, granted.ID) { //nolint:revive // until it is closed
		}
	}()
	return gone, granted.ID, nil
}

// unregister takes a proxy that stops out of the list at once.
func (p *Proxy) unregister(lease int64) {
	ctx, cancel := context.WithTimeout(context.Background(), unregisterTimeout)
	defer cancel()
	if _, err := p.client.Revoke(ctx, lease); err != nil {
		p.log.Warn("the proxy stays in the list until its lease ends", "error", client.Detail(err).Error())
	}
}
