package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoCertificate: the file holds no certificate in PEM. Give the path of one.
var ErrNoCertificate = errors.New("no certificate in PEM")

// Pair is a certificate and its private key, both in PEM.
type Pair struct{ Cert, Key []byte }

// Paths are where a Pair is kept.
type Paths struct{ Cert, Key string }

// ReadPair reads both files.
func ReadPair(at Paths) (p Pair, err error) {
	if p.Cert, err = os.ReadFile(at.Cert); err != nil {
		return p, err
	}
	p.Key, err = os.ReadFile(at.Key)
	return p, err
}

// Write writes both files, the key first and for its owner alone: whoever sees
// the new certificate finds its key.
func (p Pair) Write(at Paths) error {
	if err := write(at.Key, p.Key, 0o600); err != nil {
		return err
	}
	return write(at.Cert, p.Cert, 0o644)
}

// Certificates decodes all certificates of a PEM file, in order.
func Certificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, ErrNoCertificate
	}
	return all, nil
}

// RevocationLists decodes a file that holds one list in DER, or any number in
// PEM.
func RevocationLists(text []byte) ([]*x509.RevocationList, error) {
	if !bytes.Contains(text, []byte("-----BEGIN")) {
		list, err := x509.ParseRevocationList(text)
		if err != nil {
			return nil, fmt.Errorf("revocation list: %w", err)
		}
		return []*x509.RevocationList{list}, nil
	}
	var all []*x509.RevocationList
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("revocation list %d: %w", len(all)+1, err)
		}
		all = append(all, list)
	}
	if len(all) == 0 {
		return nil, errors.New("no revocation list in PEM")
	}
	return all, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// write replaces the file as a whole.
func write(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // readable by its owner alone
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
