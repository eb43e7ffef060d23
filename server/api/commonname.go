package api

import (
	"context"
	"crypto/tls"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// CommonName is the common name in the verified certificate of the client
// behind a request; "" when it has shown none. It is a user's name only on a
// server that runs with --client-cert-auth.
func CommonName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return PeerName(p)
}

// PeerName is the common name in the verified certificate of a client.
func PeerName(p *peer.Peer) string {
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return ""
	}
	return CertificateName(&info.State)
}

// CertificateName is the common name that the other side of a connection has
// shown; "" if it has shown none or the connection (nil) is in the clear.
func CertificateName(c *tls.ConnectionState) string {
	if c == nil || len(c.VerifiedChains) == 0 {
		return ""
	}
	return c.VerifiedChains[0][0].Subject.CommonName
}
