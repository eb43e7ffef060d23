// Package plant puts bugs into a server on purpose, so that each check that
// guards the store can be proven able to fail: a check that has never caught
// anything is only a hope.
//
// In a normal build [Here] is the constant false and costs nothing. Built with
// the tag "planted", the bug named by the environment variable KVORUM_PLANTED,
// or by Set, is there. Each constant says what it breaks and who must catch it.
package plant
