package v2

import (
	"context"
	"crypto/tls"
	"flag"
)

// BackupOptions say what to copy of a stopped member, and where to.
type BackupOptions struct {
	DataDir, WALDir         string // WALDir "" = inside DataDir
	BackupDir, BackupWALDir string // BackupWALDir "" = inside BackupDir
}

// ServerBackup says which running member to back up, and where to.
type ServerBackup struct {
	Endpoints               []string
	TLS                     *tls.Config // nil: in the clear
	User, Password          string
	BackupDir, BackupWALDir string // BackupWALDir "" = inside BackupDir
}

func newBackup() *command {
	var o BackupOptions
	var withV3 bool
	return &command{
		name: "backup", short: "Copy the data of a stopped member, or of a running one", group: groupCluster,
		example: "backup --data-dir default.etcd --backup-dir /backup/default.etcd",
		long: "With --data-dir the member must be stopped. Without it the data comes from the running\n" +
			"member at --endpoints. Start a server on the backup with --force-new-cluster.\n\n" +
			"The v2 keys are in the same store as the v3 keys, so the backup has both;\n" +
			"--with-v3 says that this is wanted, and saves the note about it.",
		flags: func(f *flag.FlagSet) {
			f.StringVar(&o.DataDir, "data-dir", "", "the data `folder` of the stopped member")
			f.StringVar(&o.WALDir, "wal-dir", "", "the `folder` of its log, if that is elsewhere")
			f.StringVar(&o.BackupDir, "backup-dir", "", "the data `folder` to make")
			f.StringVar(&o.BackupWALDir, "backup-wal-dir", "", "the log `folder` to make, if it is to be elsewhere")
			f.BoolVar(&withV3, "with-v3", false, "the v3 keys are wanted too")
		},
		run: func(t *tool, args []string) error {
			if len(args) > 0 {
				return badArgs("No arguments accepted")
			}
			if o.BackupDir == "" {
				return badArgs("--backup-dir is missing")
			}
			if err := t.backup(o); err != nil {
				return bare(err)
			}
			if !withV3 {
				t.warnf("the backup has the v3 keys too: they are in one store with the v2 keys\n")
			}
			return nil
		},
	}
}

func (t *tool) backup(o BackupOptions) error {
	if o.DataDir != "" {
		return t.BackupDir(t.ctx, o)
	}
	if o.WALDir != "" {
		return badArgs("--wal-dir needs --data-dir")
	}
	return t.backupServer(o)
}

func (t *tool) backupServer(o BackupOptions) error {
	endpoints, err := t.global.addresses(t.ctx, t)
	if err != nil {
		return err
	}
	b := ServerBackup{Endpoints: endpoints, BackupDir: o.BackupDir, BackupWALDir: o.BackupWALDir}
	if b.TLS, err = t.global.tls(); err != nil {
		return err
	}
	if b.User, b.Password, err = t.credentials(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	return t.BackupServer(ctx, b)
}
