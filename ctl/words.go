package ctl

import (
	"fmt"
	"strconv"
	"strings"
)

// words splits a line as a shell would: on blanks, with "..." (and Go's
// escapes in it) and '...' (as it is) around what belongs together.
func words(line string) ([]string, error) {
	var all []string
	for rest := strings.TrimLeft(line, " \t"); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		var word strings.Builder
		for rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			part, tail, err := nextPart(rest)
			if err != nil {
				return nil, err
			}
			word.WriteString(part)
			rest = tail
		}
		all = append(all, word.String())
	}
	return all, nil
}

func nextPart(s string) (part, rest string, err error) {
	switch s[0] {
	case '"':
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("unfinished quote in %s", s)
		}
		part, err = strconv.Unquote(quoted)
		return part, s[len(quoted):], err
	case '\'':
		end := strings.IndexByte(s[1:], '\'')
		if end < 0 {
			return "", "", fmt.Errorf("unfinished quote in %s", s)
		}
		return s[1 : 1+end], s[2+end:], nil
	}
	if end := strings.IndexAny(s, " \t\"'"); end >= 0 {
		return s[:end], s[end:], nil
	}
	return s, "", nil
}
