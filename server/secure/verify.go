package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Reasons to refuse a certificate that was signed by a trusted authority.
var (
	// ErrNotAllowed: neither the common name nor a host name is on the list.
	ErrNotAllowed = errors.New("client certificate authentication failed")
	// ErrRevoked: the revocation list has it. Issue a new one.
	ErrRevoked = errors.New("certificate is revoked")
)

// lookupTimeout bounds the DNS questions of one handshake.
const lookupTimeout = 5 * time.Second

// caller is the other end of one handshake.
type caller struct {
	ctx    context.Context // of the handshake
	remote net.Addr
}

// admit decides on a caller whose chain, if it has shown one, is verified.
func (f *Files) admit(c caller, s tls.ConnectionState) error {
	if err := f.checkRevoked(s.PeerCertificates); err != nil {
		return err
	}
	if !f.allowed(s) {
		return ErrNotAllowed
	}
	if f.o.CheckRemote && len(s.PeerCertificates) > 0 {
		return checkRemote(c, s.PeerCertificates[0])
	}
	return nil
}

// allowed checks the lists. A caller without a certificate has no name, so it is
// on no list.
func (f *Files) allowed(s tls.ConnectionState) bool {
	if len(f.o.AllowedCNs) == 0 && len(f.o.AllowedHostnames) == 0 {
		return true
	}
	if len(s.VerifiedChains) == 0 {
		return false
	}
	leaf := s.VerifiedChains[0][0]
	return slices.Contains(f.o.AllowedCNs, leaf.Subject.CommonName) ||
		slices.ContainsFunc(f.o.AllowedHostnames, func(h string) bool { return leaf.VerifyHostname(h) == nil })
}

// checkRevoked looks at the whole chain that was shown. The issuer is compared
// too: two authorities may use the same serial number.
func (f *Files) checkRevoked(shown []*x509.Certificate) error {
	if f.revoked == nil {
		return nil
	}
	for _, list := range f.revoked.get() {
		issuer := list.Issuer.String()
		for _, c := range shown {
			if c.Issuer.String() != issuer {
				continue
			}
			for _, r := range list.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return fmt.Errorf("%w: serial number %x", ErrRevoked, c.SerialNumber)
				}
			}
		}
	}
	return nil
}

// checkRemote compares the address of a caller with the names in its
// certificate: first the addresses, then what the DNS says of the names. A
// certificate that names no host says nothing, and callers on a unix socket have
// no address.
func checkRemote(c caller, cert *x509.Certificate) error {
	tcp, ok := c.remote.(*net.TCPAddr)
	if !ok || (len(cert.IPAddresses) == 0 && len(cert.DNSNames) == 0) {
		return nil
	}
	for _, ip := range cert.IPAddresses {
		if ip.Equal(tcp.IP) {
			return nil
		}
	}
	if len(cert.DNSNames) == 0 {
		return fmt.Errorf("%q does not match any of IPAddresses %q", tcp.IP, cert.IPAddresses)
	}
	ctx, cancel := context.WithTimeout(c.ctx, lookupTimeout)
	defer cancel()
	for _, name := range cert.DNSNames {
		if namesAddress(ctx, name, tcp.IP) {
			return nil
		}
	}
	return fmt.Errorf("%q does not match any of DNSNames %q", tcp.IP, cert.DNSNames)
}

// namesAddress asks the DNS whether name, or one of the names below "*.", is ip.
func namesAddress(ctx context.Context, name string, ip net.IP) bool {
	if domain, wild := strings.CutPrefix(name, "*."); wild {
		// An address that cannot be looked up has no name, so it does not match.
		names, _ := net.DefaultResolver.LookupAddr(ctx, ip.String())
		return slices.ContainsFunc(names, func(n string) bool {
			_, below, _ := strings.Cut(strings.TrimSuffix(n, "."), ".")
			return strings.EqualFold(below, domain)
		})
	}
	addresses, _ := net.DefaultResolver.LookupHost(ctx, name) // none: no match
	return slices.ContainsFunc(addresses, func(a string) bool { return ip.Equal(net.ParseIP(a)) })
}
