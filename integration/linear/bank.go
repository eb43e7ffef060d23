package linear

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The bank: accounts between which transactions move money, so that their sum is constant at every revision. A value is
// the balance and, as each write of a run has a value of its own, a number.
const (
	accounts    = 4
	bankTotal   = 400
	bankLive    = 2 * keysLive // then a new bank opens
	bankPrefix  = "bank"
	listPrefix  = "list"
	listsAtOnce = 2
)

func accountAt(now int64, n int) string {
	return fmt.Sprintf("%s%03d/%d", bankPrefix, now/int64(bankLive), n)
}

func (c *client) allAccounts(now int64) []string {
	all := make([]string, accounts)
	for i := range all {
		all[i] = accountAt(now, i)
	}
	return all
}

func (c *client) balance(n int) string { return fmt.Sprintf("%d#%d", n, c.values.Add(1)) }

func balanceOf(kv KV) int {
	text, _, _ := strings.Cut(kv.Value, "#")
	n, _ := strconv.Atoi(text)
	return n
}

// audit reads all accounts at once, of now or of the past.
func (c *client) audit(now int64) Request {
	r := Request{Reads: c.allAccounts(now), Serializable: c.random.IntN(4) == 0}
	if _, newest := c.last(""); c.random.IntN(4) == 0 {
		r.Revision = max(1, newest-c.random.Int64N(150))
	}
	return r
}

// transfer moves money between two accounts if nobody else has meanwhile; the first one opens the bank.
func (c *client) transfer(now int64) Request {
	keys := c.allAccounts(now)
	if first, _ := c.last(keys[0]); first.Version == 0 {
		open := Request{Compares: []Compare{{Key: keys[0], Target: OnVersion}}, Reads: keys}
		for _, key := range keys {
			open.Writes = append(open.Writes, Write{Key: key, Value: c.balance(bankTotal / accounts)})
		}
		return open
	}
	i := c.random.IntN(accounts)
	j := (i + 1 + c.random.IntN(accounts-1)) % accounts
	from, _ := c.last(keys[i])
	to, _ := c.last(keys[j])
	amount := 1 + c.random.IntN(20)
	return Request{
		Compares: []Compare{{Key: keys[i], Target: OnMod, Number: from.Mod}, {Key: keys[j], Target: OnMod, Number: to.Mod}},
		Writes: []Write{
			{Key: keys[i], Value: c.balance(balanceOf(from) - amount)},
			{Key: keys[j], Value: c.balance(balanceOf(to) + amount)},
		},
		Reads: []string{keys[i], keys[j]},
	}
}

// extend appends an element to a list, if it is still what was seen last.
func (c *client) extend(now int64) Request {
	key := fmt.Sprintf("%s%03d/%d", listPrefix, now/int64(keysLive), c.random.IntN(listsAtOnce))
	seen, _ := c.last(key)
	compare := Compare{Key: key, Target: OnMod, Number: seen.Mod}
	if seen.Version == 0 {
		compare = Compare{Key: key, Target: OnVersion}
	}
	return Request{
		Compares: []Compare{compare},
		Writes:   []Write{{Key: key, Value: fmt.Sprintf("%s%d,", seen.Value, c.values.Add(1))}},
		Reads:    []string{key},
	}
}

// CheckBank: whoever reads all accounts at once, from whatever member and of whatever time, sees the whole money or,
// before the bank was opened, none. So does who follows the timeline.
func CheckBank(h History, t *Timeline) []string {
	var bad []string
	for _, o := range h.Operations {
		if o.Outcome == Done && len(o.Answer.Reads) == accounts && strings.HasPrefix(o.Request.Reads[0], bankPrefix) && !wholeMoney(o.Answer.Reads) {
			bad = append(bad, fmt.Sprintf("bank: the accounts do not add up to %d: %s", bankTotal, o))
		}
	}
	for r := int64(firstRevision); r <= t.final; r++ {
		for _, e := range t.events[r] {
			bank, _, _ := strings.Cut(e.Key, "/")
			var all []KV
			for i := 0; strings.HasPrefix(e.Key, bankPrefix) && i < accounts; i++ {
				all = append(all, t.At(fmt.Sprintf("%s/%d", bank, i), r))
			}
			if !wholeMoney(all) {
				bad = append(bad, fmt.Sprintf("bank: the accounts do not add up to %d at revision %d: %+v", bankTotal, r, all))
				break
			}
		}
	}
	return bad
}

func wholeMoney(all []KV) bool {
	sum, open := 0, 0
	for _, kv := range all {
		sum += balanceOf(kv)
		if kv.Version > 0 {
			open++
		}
	}
	return open == 0 || open == accounts && sum == bankTotal
}

// CheckLists: a list only grows, at its end, by one element for each append that was answered, and by at most one for
// each that was not.
func CheckLists(h History) []string {
	versions := map[string][]string{} // of each list, all that anybody saw
	appended := map[string][]string{} // to each list, the values that were acknowledged
	for _, o := range h.Operations {
		for i, kv := range o.Answer.Reads {
			if key := o.Request.Reads[i]; strings.HasPrefix(key, listPrefix) && kv.Version > 0 {
				versions[key] = append(versions[key], kv.Value)
			}
		}
		if o.writes() && len(o.Request.Writes) == 1 && strings.HasPrefix(o.Request.Writes[0].Key, listPrefix) {
			w := o.Request.Writes[0]
			versions[w.Key] = append(versions[w.Key], w.Value)
			appended[w.Key] = append(appended[w.Key], w.Value)
		}
	}
	var bad []string
	for key, all := range versions {
		slices.SortFunc(all, func(a, b string) int { return len(a) - len(b) })
		for i := 1; i < len(all); i++ {
			if !strings.HasPrefix(all[i], all[i-1]) {
				bad = append(bad, fmt.Sprintf("lists: %s was %q, and then %q", key, all[i-1], all[i]))
				break
			}
		}
		acked := appended[key]
		slices.Sort(acked)
		if n := len(slices.Compact(acked)); n != len(appended[key]) {
			bad = append(bad, fmt.Sprintf("lists: of %d appends to %s that were acknowledged only %d differ", len(appended[key]), key, n))
		}
	}
	slices.Sort(bad)
	return bad
}
