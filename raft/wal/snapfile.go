package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kvorum/kvorum/internal/crash"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// SnapFileName is the name of the raft snapshot file of a snapshot.
func SnapFileName(index, term uint64) string { return fmt.Sprintf("%016x-%016x.snap", term, index) }

// WriteSnapFile makes s durable in dir as a .snap file. s.Data should be that of
// [LegacyTree], which etcd 3.6 and 3.5 read after a downgrade; nobody else does.
func WriteSnapFile(fs FS, dir string, s *raftpb.Snapshot) error {
	return writeSnapFile(fs, dir, s, observer{})
}

// WriteSnapFile is the function of this name, with its steps reported. It may be
// called from any goroutine.
func (l *Log) WriteSnapFile(fs FS, dir string, s *raftpb.Snapshot) error {
	return writeSnapFile(fs, dir, s, l.observe)
}

func writeSnapFile(fs FS, dir string, s *raftpb.Snapshot, o observer) error {
	from := o.start()
	name := SnapFileName(s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm())
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	file := encodeSnapFile(data)
	o.end(StepSnapEncode, from)
	if err := writeWhole(fs, dir, name, file, o); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	o.end(StepSnapSave, from)
	return nil
}

func encodeSnapFile(data []byte) []byte {
	b := []byte{tagVarint1}
	b = protowire.AppendVarint(b, uint64(crc32.Checksum(data, castagnoli())))
	b = append(b, 2<<3|byte(protowire.BytesType))
	return protowire.AppendBytes(b, data)
}

// writeWhole makes a file that appears whole or not at all. The name it has
// until then begins with tmp, so [CleanSnapDir] removes what a crash leaves.
func writeWhole(fs FS, dir, name string, b []byte, o observer) error {
	tmp := filepath.Join(dir, "tmp-"+name)
	file, err := fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b, 0)
	if err == nil {
		crash.Here("snap/before-sync")
		from := o.start()
		err = file.Sync()
		o.end(StepSnapSync, from)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	crash.Here("snap/before-rename")
	if err := fs.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	crash.Here("snap/before-dir-sync")
	if err := fs.SyncDir(dir); err != nil {
		return err
	}
	crash.Here("snap/after-write")
	return nil
}

// ReadSnapFile reads one .snap file.
func ReadSnapFile(fs FS, path string) (*raftpb.Snapshot, error) {
	b, err := readWhole(fs, path)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	s, err := decodeSnapFile(b)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", path, err)
	}
	return s, nil
}

func decodeSnapFile(b []byte) (*raftpb.Snapshot, error) {
	var crc uint64
	var data []byte
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.VarintType:
			crc, n = protowire.ConsumeVarint(b)
		case num == 2 && typ == protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	if len(data) == 0 || uint32(crc) == 0 {
		return nil, ErrEmptySnapshot
	}
	if crc32.Checksum(data, castagnoli()) != uint32(crc) {
		return nil, ErrSnapCRCMismatch
	}
	s := new(raftpb.Snapshot)
	if err := proto.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return s, nil
}

// SnapFile is a .snap file by its name.
type SnapFile struct {
	Index uint64
	Term  uint64
}

// Name is the file's name in its directory.
func (f SnapFile) Name() string { return SnapFileName(f.Index, f.Term) }

// ListSnapFiles gives the .snap files of dir, newest first.
func ListSnapFiles(fs FS, dir string) ([]SnapFile, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	slices.Sort(names)
	slices.Reverse(names)
	var files []SnapFile
	for _, name := range names {
		if term, index, ok := parsePair(name, ".snap"); ok {
			files = append(files, SnapFile{Index: index, Term: term})
		}
	}
	return files, nil
}

// NewestSnapFile reads the newest readable .snap file that want accepts; nil
// accepts all. An unreadable one is set aside with the ending .broken. None is
// [ErrNoSnapshot].
func NewestSnapFile(fs FS, dir string, want func(SnapFile) bool) (*raftpb.Snapshot, error) {
	files, err := ListSnapFiles(fs, dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if want != nil && !want(f) {
			continue
		}
		path := filepath.Join(dir, f.Name())
		s, err := ReadSnapFile(fs, path)
		if err == nil {
			return s, nil
		}
		if err := fs.Rename(path, path+".broken"); err != nil {
			return nil, fmt.Errorf("set aside unreadable snapshot: %w", err)
		}
	}
	return nil, ErrNoSnapshot
}

// SnapDBName is the name of a database received from the leader, until it
// replaces the live one. index is that of its snapshot.
func SnapDBName(index uint64) string { return fmt.Sprintf("%016x.snap.db", index) }

// SnapDBPath finds the received database of the snapshot at index in dir, or
// returns [ErrNoSnapDB].
func SnapDBPath(fs FS, dir string, index uint64) (string, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("list received databases: %w", err)
	}
	name := SnapDBName(index)
	if !slices.Contains(names, name) {
		return "", fmt.Errorf("%w: %s", ErrNoSnapDB, name)
	}
	return filepath.Join(dir, name), nil
}

// RemoveSnapDBs deletes the received databases older than the snapshot at
// index, and returns their names.
func RemoveSnapDBs(fs FS, dir string, index uint64) ([]string, error) {
	return removeNames(fs, dir, func(name string) bool {
		base, ok := strings.CutSuffix(name, ".snap.db")
		at, hex := parseHex16(base)
		return ok && hex && at < index
	})
}

// CleanSnapDir deletes what a crash may have left half made in the snapshot
// directory: names that begin with tmp or db.tmp. Call it at start, before
// anything else uses dir.
func CleanSnapDir(fs FS, dir string) ([]string, error) {
	return removeNames(fs, dir, func(name string) bool {
		return strings.HasPrefix(name, "tmp") || strings.HasPrefix(name, "db.tmp")
	})
}

func removeNames(fs FS, dir string, unwanted func(name string) bool) (removed []string, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if !unwanted(name) {
			continue
		}
		if err := fs.Remove(filepath.Join(dir, name)); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}

func readWhole(fs FS, path string) ([]byte, error) {
	file, err := fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if n, err := file.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read %s: %w", path, noEOF(err))
	}
	if len(b) == 0 {
		return nil, ErrEmptySnapshot
	}
	return b, nil
}
