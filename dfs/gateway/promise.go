package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"

	"github.com/dunglas/httpsfv"
)

// errBroken: an upload's body is not what its header says.
var errBroken = errors.New("the body is not the one that was sent")

// promise is a digest of an upload's body that its header has.
type promise struct {
	algorithm string
	value     []byte
}

// crc32c is the name of the checksum that chunk servers store (RFC 9530).
const crc32c = "crc32c"

// algorithms are those that an upload is checked by; others are ignored, as RFC
// 9530 has it.
var algorithms = map[string]func() hash.Hash{
	crc32c:    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	"sha-256": sha256.New,
	"sha-512": sha512.New,
}

// promisesOf reads the fields Content-Digest and Repr-Digest. What is put is
// stored as it comes, so both are about the same bytes.
func promisesOf(h http.Header) (all []promise, err error) {
	for _, name := range []string{"Content-Digest", "Repr-Digest"} {
		if len(h[name]) == 0 {
			continue
		}
		fields, err := httpsfv.UnmarshalDictionary(h[name])
		if err != nil {
			return nil, fmt.Errorf("read the field %s: %w", name, err)
		}
		for _, algorithm := range fields.Names() {
			newHash := algorithms[algorithm]
			if newHash == nil {
				continue
			}
			member, _ := fields.Get(algorithm)
			item, _ := member.(httpsfv.Item)
			value, ok := item.Value.([]byte)
			if size := newHash().Size(); !ok || len(value) != size {
				return nil, fmt.Errorf("read the field %s: %s must be %d bytes in base64 between colons", name, algorithm, size)
			}
			all = append(all, promise{algorithm, value})
		}
	}
	return all, nil
}

// kept says whether the promise is about a body with this digest.
func (p *promise) kept(digest []byte) error {
	if bytes.Equal(p.value, digest) {
		return nil
	}
	encode := base64.StdEncoding.EncodeToString
	return fmt.Errorf("%w: its %s is %s, the header says %s: nothing was stored", errBroken, p.algorithm, encode(digest), encode(p.value))
}

// checkedBody is a body that must be what was promised.
type checkedBody struct {
	io.ReadCloser
	promised []promise
	hashes   map[string]hash.Hash // by algorithm; crc32c always
}

func newCheckedBody(body io.ReadCloser, promised []promise) *checkedBody {
	b := &checkedBody{ReadCloser: body, promised: promised, hashes: map[string]hash.Hash{crc32c: algorithms[crc32c]()}}
	for _, p := range promised {
		if b.hashes[p.algorithm] == nil {
			b.hashes[p.algorithm] = algorithms[p.algorithm]()
		}
	}
	return b
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	for _, h := range b.hashes {
		h.Write(p[:n])
	}
	if err != io.EOF {
		return n, err
	}
	for _, p := range b.promised {
		if broken := p.kept(b.hashes[p.algorithm].Sum(nil)); broken != nil {
			return n, broken
		}
	}
	return n, err
}

func (b *checkedBody) digest() string { return digestField(b.hashes[crc32c].Sum(nil)) }

// digestField is a CRC32C as a value of Content-Digest or Repr-Digest.
func digestField(sum []byte) string {
	return crc32c + "=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}
