package server

import (
	"context"
	"net"
	"net/url"
	"time"
)

// peerDial opens connections to the other members; see peer.Config.
type peerDial func(ctx context.Context, network, address string) (net.Conn, error)

const peerKeepAlive = 15 * time.Second

// dialPeers is how this member calls the others: nil, as the system chooses, or
// with FeatureSetMemberLocalAddr from the address that it advertises, so that
// the others see the address that their certificates and firewalls expect.
func (s *Server) dialPeers() peerDial {
	system := s.cfg.Discovery.dialer()
	if !s.cfg.enabled(FeatureSetMemberLocalAddr) {
		return system
	}
	from := localAddr(s.cfg.AdvertisePeerURLs)
	if from == nil {
		s.log.Warn("feature gate SetMemberLocalAddr=true has no effect: no advertised peer URL has an IP address that is not loopback",
			"initial-advertise-peer-urls", urlStrings(s.cfg.AdvertisePeerURLs))
		return system
	}
	s.log.Info("calling other members from", "local-address", from.String())
	return dialFrom(from)
}

// localAddr is the first address among the URLs that other machines can call.
func localAddr(urls []url.URL) net.IP {
	for _, u := range urls {
		if ip := net.ParseIP(u.Hostname()); ip != nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			return ip
		}
	}
	return nil
}

func dialFrom(ip net.IP) peerDial {
	d := net.Dialer{KeepAlive: peerKeepAlive, LocalAddr: &net.TCPAddr{IP: ip}}
	plain := net.Dialer{KeepAlive: peerKeepAlive}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" {
			return plain.DialContext(ctx, network, address)
		}
		return d.DialContext(ctx, network, address)
	}
}
