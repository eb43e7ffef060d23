// Package secure turns certificate files into TLS configurations that follow
// the files.
//
// It promises that every handshake uses the certificate, key, trusted
// authorities and revocation list that are on disk at that moment, without a
// restart and without touching connections that stand; that a file which cannot
// be read or parsed leaves the last good one in force and is logged; and that a
// caller whose certificate is not trusted, is revoked or has a name that is not
// allowed is refused in its handshake, resumed sessions included.
package secure
