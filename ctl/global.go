package ctl

import (
	"bufio"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kvorum/kvorum/client"
	"github.com/kvorum/kvorum/internal/srv"
	"github.com/kvorum/kvorum/server/secure"
)

// globalFlags are the flags that every command has.
type globalFlags struct {
	endpoints                     []string
	writeOut                      string
	hex, debug                    bool
	commandTimeout, dialTimeout   time.Duration
	keepaliveTime, keepaliveLimit time.Duration
	cacert, cert, key             string
	insecureTransport, skipVerify bool
	user, password, token         string
	srvDomain, srvName            string
	insecureSRV                   bool
	requestBytesMax, recvBytesMax int
	lockTimeout                   time.Duration // for database files
}

func (g *globalFlags) register(f *pflag.FlagSet) {
	g.lockTimeout = lockTimeout
	f.StringSliceVar(&g.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "where the cluster is: host:port, several with commas; also http://, https://, unix://, unixs://")
	f.StringVarP(&g.writeOut, "write-out", "w", "simple", "how results look: simple, json, fields, protobuf or table")
	f.BoolVar(&g.hex, "hex", false, "show bytes and IDs in hexadecimal")
	f.BoolVar(&g.debug, "debug", false, "tell on standard error which settings apply")
	f.DurationVar(&g.commandTimeout, "command-timeout", 5*time.Second, "give up when a command has taken this long")
	f.DurationVar(&g.dialTimeout, "dial-timeout", 2*time.Second, "give up on a connection that does not come about in this time")
	f.DurationVar(&g.keepaliveTime, "keepalive-time", 2*time.Second, "ping a connection that has been silent this long")
	f.DurationVar(&g.keepaliveLimit, "keepalive-timeout", 6*time.Second, "drop a connection whose ping has no answer after this long")
	f.StringVar(&g.cacert, "cacert", "", "PEM `file` with the authorities that may have signed a server's certificate")
	f.StringVar(&g.cert, "cert", "", "PEM `file` with the certificate to show to servers")
	f.StringVar(&g.key, "key", "", "PEM `file` with the private key of --cert")
	f.BoolVar(&g.insecureTransport, "insecure-transport", true, "speak in the clear while nothing else asks for TLS")
	f.BoolVar(&g.skipVerify, "insecure-skip-tls-verify", false, "take any certificate for the server's; never outside a test")
	f.StringVar(&g.user, "user", "", "log in as `name[:password]`; a missing password is asked for")
	f.StringVar(&g.password, "password", "", "password to log in with; --user is then the name alone")
	f.StringVar(&g.token, "auth-jwt-token", "", "log in with this `token`, not with a name and a password")
	f.StringVarP(&g.srvDomain, "discovery-srv", "d", "", "take the endpoints from the SRV records of this `domain`")
	f.StringVar(&g.srvName, "discovery-srv-name", "", "look for the SRV service etcd-client-`NAME`")
	f.BoolVar(&g.insecureSRV, "insecure-discovery", true, "use SRV records without TLS as well")
	f.IntVar(&g.requestBytesMax, "max-request-bytes", 0, "refuse to send more `bytes` in one request (0 = 2 MiB)")
	f.IntVar(&g.recvBytesMax, "max-recv-bytes", 0, "refuse to take more `bytes` in one answer (0 = 2 GiB)")
}

const envPrefix = "ETCDCTL_"

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// readEnv takes the global flags that are set by environment variables, once.
// A variable beside its flag is an error, an unknown one is told.
func (a *app) readEnv() error {
	if a.envRead {
		return nil
	}
	a.envRead = true
	flags := a.root.PersistentFlags()
	known := map[string]bool{"ETCDCTL_WATCH_KEY": true, "ETCDCTL_WATCH_RANGE_END": true, apiVariable: true}
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		known[name] = true
		value := a.getenv(name)
		switch {
		case value == "" || err != nil:
		case f.Changed:
			a.logLine("fatal", "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))", "environment-variable", name)
			err = &failure{code: exitError}
		default:
			if bad := flags.Set(f.Name, value); bad != nil {
				err = fail(exitArgs, "invalid value %q for %s: %w", value, name, bad)
			}
		}
	})
	for _, pair := range a.Env {
		name, _, _ := strings.Cut(pair, "=")
		if err == nil && strings.HasPrefix(name, envPrefix) && !known[name] {
			a.logLine("warn", "unrecognized environment variable", "environment-variable", name) // its value may be a secret
		}
	}
	if err == nil && a.global.debug {
		flags.VisitAll(func(f *pflag.Flag) {
			a.warnf("%s=%s\n", envName(f.Name), openly(f))
		})
	}
	return err
}

// openly is the value of a flag as --debug shows it: without what opens doors.
func openly(f *pflag.Flag) string {
	text := f.Value.String()
	switch f.Name {
	case "password", "auth-jwt-token":
		if text != "" {
			return "(hidden)"
		}
	case "endpoints":
		return regexp.MustCompile(`[^\[,/]*@`).ReplaceAllString(text, "(hidden)@")
	case "user":
		if name, _, found := strings.Cut(text, ":"); found {
			return name + ":(hidden)"
		}
	}
	return text
}

func (a *app) getenv(name string) string {
	for _, pair := range slices.Backward(a.Env) {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			return v
		}
	}
	return ""
}

// logLine logs with a level that slog does not have.
func (a *app) logLine(level, text, key, value string) {
	a.warnf("{\"level\":%q,\"ts\":%q,\"msg\":%q,%q:%q}\n", level, time.Now().UTC().Format("2006-01-02T15:04:05.999999Z0700"), text, key, value)
}

// connect makes the client that the global flags describe.
func (a *app) connect() (*client.Client, error) {
	if err := a.readEnv(); err != nil {
		return nil, err
	}
	g := &a.global
	fresh, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	endpoints, err := a.endpoints()
	if err != nil {
		return nil, err
	}
	user, password, err := a.credentials()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{
		Endpoints: endpoints, TLSNow: fresh, User: user, Password: password, Token: g.token,
		DialTimeout: g.dialTimeout, KeepAliveTime: g.keepaliveTime, KeepAliveTimeout: g.keepaliveLimit,
		SendBytesMax: g.requestBytesMax, RecvBytesMax: g.recvBytesMax, Log: a.log,
	})
	if err != nil {
		return nil, &failure{exitConnection, err}
	}
	return c, nil
}

// tlsConfig gives what each new connection uses, from the files as they are
// then; nil is no TLS.
func (a *app) tlsConfig() (func() *tls.Config, error) {
	g, flags := &a.global, a.root.PersistentFlags()
	for _, name := range []string{"cacert", "cert", "key"} {
		if f := flags.Lookup(name); f.Changed && f.Value.String() == "" {
			return nil, badArgs("empty string is passed to --%s option", name)
		}
	}
	if (g.cert == "") != (g.key == "") {
		return nil, badArgs("KeyFile and CertFile must both be present[key: %s, cert: %s]", g.key, g.cert)
	}
	if g.cert == "" && g.cacert == "" && !g.skipVerify && g.insecureTransport {
		return nil, nil
	}
	files, err := secure.Open(secure.Options{
		CertFile: g.cert, KeyFile: g.key, TrustedCAFile: g.cacert, TrustAnyServer: g.skipVerify, Log: a.tlsLog(),
	})
	if err != nil {
		return nil, badArgs("%w", err)
	}
	return files.Client, nil
}

// tlsLog keeps files that were replaced to itself unless --debug is given.
func (a *app) tlsLog() *slog.Logger {
	if a.global.debug {
		return a.log
	}
	return slog.New(slog.DiscardHandler)
}

// endpoints are those of the flag, or of the DNS when asked for.
func (a *app) endpoints() ([]string, error) {
	g := &a.global
	if g.srvDomain == "" {
		if len(g.endpoints) == 0 {
			return nil, badArgs("no endpoint given: use --endpoints=host:port")
		}
		return g.endpoints, nil
	}
	targets, err := srv.Lookup(a.ctx, srv.Question{Service: srv.Client, Name: g.srvName, Domain: g.srvDomain, SecureOnly: !g.insecureSRV, Resolver: a.Resolver})
	if err != nil {
		return nil, fail(exitArgs, "look up endpoints of %s: %w", g.srvDomain, err)
	}
	found := make([]string, len(targets))
	for i, t := range targets {
		found[i] = t.URL()
	}
	return found, nil
}

func (a *app) credentials() (user, password string, err error) {
	g := &a.global
	switch {
	case g.token != "" && g.user != "":
		return "", "", badArgs("--auth-jwt-token cannot be used together with --user")
	case g.user == "":
		return "", "", nil
	case g.password != "":
		return g.user, g.password, nil
	}
	user, password, found := strings.Cut(g.user, ":")
	if !found {
		password, err = a.askPassword("Password: ")
	}
	return user, password, err
}

// askPassword reads a password from the terminal without showing it.
func (a *app) askPassword(prompt string) (string, error) {
	f, ok := a.Stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return "", badArgs("no terminal to ask for the password: use --password or --user name:password")
	}
	a.warnf("%s", prompt)
	b, err := term.ReadPassword(int(f.Fd())) //nolint:gosec // a file descriptor
	a.warnf("\n")
	if err != nil {
		return "", fail(exitArgs, "read password: %w", err)
	}
	return string(b), nil
}

// readLine reads one line of standard input, for --interactive=false.
func (a *app) readLine() (string, error) {
	line, err := bufio.NewReader(a.Stdin).ReadString('\n')
	if line == "" && err != nil {
		return "", badArgs("no line on standard input")
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// newOptions is the command that lists the global flags.
func newOptions(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "options", Short: "List the flags that every command takes", Args: cobra.ArbitraryArgs,
		Example: "  " + a.name + " options",
		RunE: func(*cobra.Command, []string) error {
			also := "; each can also be set in the environment, such as ETCDCTL_ENDPOINTS"
			if a.name == nameOffline {
				also = ""
			}
			a.printf("Every command takes these flags%s.\n\n%s", also, a.root.PersistentFlags().FlagUsages())
			return nil
		},
	}
}

var errInterrupted = errors.New("interrupted")
