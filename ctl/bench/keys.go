package bench

import "math/rand/v2"

// keyDigits is how many digits of a key number it; with 12 a key space can hold 10^12 keys.
const keyDigits = 12

// keys draws the keys of one worker. One goroutine.
type keys struct {
	prefix string
	size   int
	space  int64
	random *rand.Rand // nil: in turn
}

// newKeys gives each worker its own random stream, the same in every run.
func newKeys(o *Options, worker int) *keys {
	k := &keys{prefix: o.Prefix, size: o.KeySize, space: o.KeySpace}
	if !o.Sequential {
		k.random = rand.New(rand.NewPCG(o.Seed, uint64(worker)))
	}
	return k
}

// next writes the key of operation n into buffer.
func (k *keys) next(buffer []byte, n int64) []byte {
	if k.random != nil {
		return k.at(buffer, k.random.Int64N(k.space))
	}
	return k.at(buffer, n%k.space)
}

// at writes key number i: the prefix, padding, the digits. Keys sort by number.
func (k *keys) at(buffer []byte, i int64) []byte {
	buffer = append(buffer[:0], k.prefix...)
	for len(buffer) < k.size {
		buffer = append(buffer, '0')
	}
	for at := k.size - 1; i > 0; at, i = at-1, i/10 {
		buffer[at] = byte('0' + i%10)
	}
	return buffer
}

// fillValue makes bytes that do not compress and differ between workers.
func fillValue(value []byte, random *rand.Rand) {
	for i := range value {
		value[i] = byte(random.Uint32())
	}
}

// keyNumber reads the digits at the end of a key.
func keyNumber(key []byte) int64 {
	n := int64(0)
	for _, digit := range key[len(key)-keyDigits:] {
		n = n*10 + int64(digit-'0')
	}
	return n
}

// prefixEnd is the first key after all that begin with the prefix; "\0" stands for no end.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// newRandom is the random stream of a worker's values, apart from that of its keys.
func newRandom(seed uint64, worker int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, ^uint64(worker)))
}
