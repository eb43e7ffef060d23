// Package token is the credentials that a login gives out.
//
// There are two kinds, chosen with --auth-token. A simple token is a random
// text that every member remembers, with the user it stands for, for a while; it
// is assigned by a replicated command, so that all members know it. A signed
// token (JWT) says itself for whom, until when and under which auth revision it
// was made; members remember nothing and only check the signature.
//
// The package promises that a token is never accepted after it has run out, nor
// a simple one after its user's password changed, the user was deleted or auth
// was switched off. It knows nothing of permissions.
package token
