// Package audit writes who asked a member for what, and at what cost: one line
// of JSON for each request.
//
//	{"time":"2026-11-21T23:00:38.408151Z","user":"alice","remote":"10.0.0.1:57098","op":"KV/Put",
//	 "key":"foo","lease":7,"revision":42,"code":"OK","duration_us":812,"bytes_in":16,"bytes_out":26}
//
// Values, passwords and tokens are never in it. A line is handed over before the
// answer leaves and is in the file about ten milliseconds later: a crash of the
// process can lose the lines of the last moment, a clean stop loses none.
//
// Lines wait in a bounded queue for the one goroutine that writes. When it is
// full the request waits, or, if so configured, its line is dropped and counted.
// A file that cannot be written to loses lines, which are counted and told in
// the log; it does not stop requests.
package audit
