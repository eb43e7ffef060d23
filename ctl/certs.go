package ctl

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvorum/kvorum/pki"
)

// certsDir is a folder with an authority (ca.pem, ca-key.pem) and what it has
// issued (NAME.pem, NAME-key.pem).
type certsDir struct {
	path  string
	days  int
	force bool
}

func newCerts(a *app) *cobra.Command {
	return group("certs", "Make certificates for a private cluster", newCertsInit(a), newCertsIssue(a), newCertsShow(a))
}

func newCertsInit(a *app) *cobra.Command {
	d, name := certsDir{}, ""
	c := &cobra.Command{
		Use: "init", Short: "Make a certificate authority", Args: cobra.NoArgs,
		Example: "  " + a.name + " certs init",
		RunE:    func(*cobra.Command, []string) error { return d.init(a, name) },
	}
	d.register(c, 3650)
	c.Flags().StringVar(&name, "name", "kvorum-ca", "common name of the authority")
	return c
}

func newCertsIssue(a *app) *cobra.Command {
	d := certsDir{}
	member, client, hosts := false, false, []string(nil)
	c := &cobra.Command{
		Use: "issue --member|--client NAME[=HOST,HOST...]...", Short: "Issue certificates for members or for clients", Args: cobra.MinimumNArgs(1),
		Example: "  " + a.name + " certs issue --member m1=10.0.0.1 m2=10.0.0.2 m3=10.0.0.3,m3.example.com\n  " + a.name + " certs issue --client root",
		RunE: func(_ *cobra.Command, args []string) error {
			if member == client {
				return badArgs("say whom the certificates are for: --member or --client")
			}
			return d.issue(a, args, func(name string, own []string) pki.Subject {
				if client {
					return pki.Subject{CommonName: name, Client: true, Hosts: slices.Concat(own, hosts)}
				}
				return pki.Subject{CommonName: name, Server: true, Client: true, Hosts: slices.Concat(own, hosts, []string{"localhost", "127.0.0.1", "::1"})}
			})
		},
	}
	d.register(c, 365)
	c.Flags().BoolVar(&member, "member", false, "members, which answer clients and call each other; good for localhost too")
	c.Flags().BoolVar(&client, "client", false, "clients; NAME is the user under --client-cert-auth")
	c.Flags().StringSliceVar(&hosts, "hosts", nil, "IP addresses and names that every one of them has")
	return c
}

func newCertsShow(a *app) *cobra.Command {
	d := certsDir{}
	c := &cobra.Command{
		Use: "show [FILE...]", Short: "Show what certificates say", Args: cobra.ArbitraryArgs,
		Example: "  " + a.name + " certs show\n  " + a.name + " certs show certs/m1.pem -w json",
		RunE:    func(_ *cobra.Command, files []string) error { return d.show(a, files) },
	}
	c.Flags().StringVar(&d.path, "dir", "certs", "folder whose certificates are shown when no FILE is given")
	return c
}

func (d *certsDir) register(c *cobra.Command, days int) {
	c.Flags().StringVar(&d.path, "dir", "certs", "folder of the authority and its certificates")
	c.Flags().IntVar(&d.days, "days", days, "days until they expire")
	c.Flags().BoolVar(&d.force, "force", false, "replace files that exist")
}

func (d *certsDir) at(name string) pki.Paths {
	return pki.Paths{Cert: filepath.Join(d.path, name+".pem"), Key: filepath.Join(d.path, name+"-key.pem")}
}

// validity begins a little in the past: the clocks of machines differ.
func (d *certsDir) validity() (pki.Validity, error) {
	if d.days <= 0 {
		return pki.Validity{}, badArgs("--days must be more than 0, not %d", d.days)
	}
	now := time.Now()
	return pki.Validity{From: now.Add(-5 * time.Minute), To: now.AddDate(0, 0, d.days)}, nil
}

func (d *certsDir) init(a *app, name string) error {
	v, err := d.validity()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fail(exitError, "make folder: %w", err)
	}
	authority, err := pki.NewAuthority(name, v)
	if err != nil {
		return fail(exitError, "%w", err)
	}
	if err := d.write(a, "ca", authority.Pair()); err != nil {
		return err
	}
	a.warnf("Keep %s secret: whoever has it can make members and users.\nNext: %s certs issue --member NAME=HOST...\n", d.at("ca").Key, a.name)
	return nil
}

// issue makes a certificate for each argument, NAME or NAME=HOST,HOST.
func (d *certsDir) issue(a *app, args []string, subject func(name string, hosts []string) pki.Subject) error {
	v, err := d.validity()
	if err != nil {
		return err
	}
	pair, err := pki.ReadPair(d.at("ca"))
	if errors.Is(err, os.ErrNotExist) {
		return badArgs("%w; make an authority first: %s certs init --dir %s", err, a.name, d.path)
	}
	if err != nil {
		return fail(exitError, "%w", err)
	}
	authority, err := pki.ParseAuthority(pair)
	if err != nil {
		return fail(exitError, "%s: %w", d.at("ca").Cert, err)
	}
	for _, arg := range args {
		name, list, _ := strings.Cut(arg, "=")
		if name == "" || name == "ca" || name != filepath.Base(name) {
			return badArgs("%q is not a name for a certificate file", name)
		}
		hosts := strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
		issued, err := authority.Issue(subject(name, hosts), v)
		if err != nil {
			return fail(exitError, "issue %s: %w", name, err)
		}
		if err := d.write(a, name, issued); err != nil {
			return err
		}
	}
	return nil
}

// write stores a pair and says so.
func (d *certsDir) write(a *app, name string, p pki.Pair) error {
	at := d.at(name)
	if _, err := os.Stat(at.Cert); err == nil && !d.force {
		return badArgs("%s exists; replace it with --force, or give another --dir", at.Cert)
	}
	if err := p.Write(at); err != nil {
		return fail(exitError, "%w", err)
	}
	a.printf("%s %s\n", at.Cert, at.Key)
	return nil
}

// shownCert is a certificate as certs show prints it; the JSON is stable.
type shownCert struct {
	File      string    `json:"file"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Hosts     []string  `json:"hosts"`
	Uses      []string  `json:"uses"`
}

func (d *certsDir) show(a *app, files []string) error {
	if err := a.readEnv(); err != nil {
		return err
	}
	if w := a.global.writeOut; w != "simple" && w != "json" {
		return fail(exitFeature, "certs show has the output formats simple and json, not %q", w)
	}
	if len(files) == 0 {
		found, err := filepath.Glob(filepath.Join(d.path, "*.pem"))
		if err != nil {
			return badArgs("%w", err)
		}
		files = slices.DeleteFunc(found, func(f string) bool { return strings.HasSuffix(f, "-key.pem") })
		if len(files) == 0 {
			return badArgs("no certificates in %s; make some: %s certs init --dir %s", d.path, a.name, d.path)
		}
	}
	var all []shownCert
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return badArgs("%w", err)
		}
		certs, err := pki.Certificates(text)
		if err != nil {
			return badArgs("%s: %w", f, err)
		}
		for _, c := range certs {
			all = append(all, describeCert(f, c))
		}
	}
	if a.global.writeOut == "json" {
		return json.NewEncoder(a.Stdout).Encode(all)
	}
	for _, c := range all {
		c.print(a, time.Now())
	}
	return nil
}

func describeCert(file string, c *x509.Certificate) shownCert {
	s := shownCert{
		File: file, Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%x", c.SerialNumber),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Hosts: append([]string{}, c.DNSNames...), Uses: []string{},
	}
	for _, ip := range c.IPAddresses {
		s.Hosts = append(s.Hosts, ip.String())
	}
	if c.IsCA {
		s.Uses = append(s.Uses, "authority")
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			s.Uses = append(s.Uses, "server")
		case x509.ExtKeyUsageClientAuth:
			s.Uses = append(s.Uses, "client")
		default:
			s.Uses = append(s.Uses, fmt.Sprintf("usage %d", u))
		}
	}
	return s
}

func (c shownCert) print(a *app, now time.Time) {
	left := fmt.Sprintf("%d days left", int(c.NotAfter.Sub(now).Hours()/24))
	switch {
	case now.After(c.NotAfter):
		left = "EXPIRED"
	case now.Before(c.NotBefore):
		left = "NOT YET VALID"
	}
	a.printf("%s\n  subject  %s\n  issuer   %s\n  serial   %s\n  valid    %s to %s (%s)\n  uses     %s\n", c.File, c.Subject, c.Issuer, c.Serial,
		c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), left, strings.Join(c.Uses, ", "))
	if len(c.Hosts) > 0 {
		a.printf("  hosts    %s\n", strings.Join(c.Hosts, ", "))
	}
}
