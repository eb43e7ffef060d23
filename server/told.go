package server

import (
	"fmt"
	"log/slog"

	"github.com/kvorum/kvorum/mvcc"
	"github.com/kvorum/kvorum/server/state"
)

// versionsTold are the versions that the log has named last.
type versionsTold struct{ cluster, storage string }

func versionsOf(m *state.Machine) versionsTold {
	return versionsTold{clusterVersionLabel(m.ClusterVersion()), m.StorageVersion()}
}

// tellVersions logs how the versions have changed, in the words that tools look
// for in the log of etcd.
func (a *applier) tellVersions() {
	was, now := a.told, versionsOf(a.machine)
	a.told = now
	ids := []any{"cluster-id", hexID(a.cluster), "local-member-id", hexID(uint64(a.self))}
	switch {
	case was.cluster == now.cluster:
	case was.cluster == "":
		a.log.Info("set initial cluster version", append(ids, "cluster-version", now.cluster)...)
	default:
		a.log.Info("updated cluster version", append(ids, "from", was.cluster, "to", now.cluster)...)
	}
	if was.storage != now.storage {
		a.log.Info("updated storage version", "new-storage-version", now.storage)
	}
}

// tellRestored logs what the files hold.
func tellRestored(log *slog.Logger, store *mvcc.Store) {
	log.Info("restore consistentIndex", "index", store.Applied().Index)
	log.Info("kvstore restored", "current-rev", int64(store.Revision()))
}

func hexID(id uint64) string { return fmt.Sprintf("%x", id) }
