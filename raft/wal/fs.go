package wal

import "os"

// FS is every file operation of this package. [OS] is the machine's; a
// simulator brings one that loses unsynced bytes and fails on demand.
//
// A created, renamed or removed name is durable only after SyncDir of its
// directory; the bytes of a file only after a sync of the file.
type FS interface {
	// MkdirAll makes dir and its missing parents, mode 0700.
	MkdirAll(dir string) error
	// ReadDir gives the names in dir, sorted.
	ReadDir(dir string) ([]string, error)
	// OpenFile takes the flags of os.OpenFile.
	OpenFile(path string, flag int, perm os.FileMode) (File, error)
	// Rename replaces to, as rename(2) does.
	Rename(from, to string) error
	Remove(path string) error
	RemoveAll(path string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
}

// File is an open file. WriteAt and ReadAt behave as in package io.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Size() (int64, error)
	Truncate(size int64) error
	// Preallocate reserves space and extends the file with zeros to size; it
	// never shrinks the file.
	Preallocate(size int64) error
	// Sync makes bytes and attributes durable, as fsync(2).
	Sync() error
	// SyncData makes the bytes durable and of the attributes only what is needed
	// to read them back, as fdatasync(2).
	SyncData() error
	// Lock takes the exclusive lock of the whole file or returns [ErrLocked]. It
	// is given up by Close.
	Lock() error
	Close() error
}
