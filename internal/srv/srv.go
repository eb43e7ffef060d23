// Package srv finds the members of a cluster by the SRV records of a domain, as
// etcd's --discovery-srv does (RFC 2782).
//
// Each service has two names, the first for TLS:
//
//	_etcd-server-ssl._tcp.example.com    _etcd-server._tcp.example.com
//	_etcd-client-ssl._tcp.example.com    _etcd-client._tcp.example.com
//
// It promises to ask for both, and to fail only if neither has an answer.
package srv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// The services of a cluster.
const (
	Server = "etcd-server" // members among themselves
	Client = "etcd-client"
)

// ErrNoRecords: the names exist but have no records. Add them to the domain.
var ErrNoRecords = errors.New("no SRV records")

// Question is what to look up.
type Question struct {
	Service    string        // Server or Client
	Name       string        // "": the service's own name; else service-ssl-Name and service-Name
	Domain     string        // below which the records are
	SecureOnly bool          // leave out the records without TLS
	Resolver   *net.Resolver // nil is the system's
}

// Target is where a service is.
type Target struct {
	Host   string
	Port   uint16
	Secure bool // under TLS
	// Priority: those with the lowest are to be used while one of them answers.
	Priority uint16
}

// Address is host:port.
func (t Target) Address() string {
	return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
}

// URL is the address with its scheme.
func (t Target) URL() string {
	if t.Secure {
		return "https://" + t.Address()
	}
	return "http://" + t.Address()
}

// Lookup asks for the records, those with TLS first, each group in the order of
// their priorities.
func Lookup(ctx context.Context, q Question) ([]Target, error) {
	var found []Target
	var failures []error
	for _, secure := range []bool{true, false} {
		if !secure && q.SecureOnly {
			continue
		}
		targets, err := q.lookup(ctx, secure)
		if err != nil {
			failures = append(failures, err)
		}
		found = append(found, targets...)
	}
	if len(found) > 0 {
		return found, nil
	}
	if len(failures) == 0 {
		failures = append(failures, fmt.Errorf("%w below %s", ErrNoRecords, q.Domain))
	}
	return nil, errors.Join(failures...)
}

func (q Question) lookup(ctx context.Context, secure bool) ([]Target, error) {
	resolver := q.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	service := q.service(secure)
	_, records, err := resolver.LookupSRV(ctx, service, "tcp", q.Domain)
	if err != nil {
		return nil, fmt.Errorf("error querying DNS SRV records for _%s %w", service, err)
	}
	targets := make([]Target, len(records))
	for i, r := range records {
		targets[i] = Target{Host: strings.TrimSuffix(r.Target, "."), Port: r.Port, Secure: secure, Priority: r.Priority}
	}
	return targets, nil
}

// service is the name without its underscore, as net.Resolver wants it.
func (q Question) service(secure bool) string {
	name := q.Service
	if secure {
		name += "-ssl"
	}
	if q.Name != "" {
		name += "-" + q.Name
	}
	return name
}
