package workload

import (
	"context"
	"fmt"
	"math/rand/v2"

	"waggle/experiments/spec"
)

// blockReader reads blocks of one size from the files of a data set.
type blockReader struct {
	pattern *pattern
	files   []file
	buf     []byte
	blocks  int64 // in a file
	choose  func() (file int, block int64)

	lastFile   int
	lastOffset int64
	verified   int64
}

// newBlockReader makes the client of a job that has this number.
func newBlockReader(ctx context.Context, j *Job, p *pattern, s session, number int) (*blockReader, error) {
	size := j.Parameters.RequestBytes()
	r := &blockReader{pattern: p, buf: make([]byte, size), blocks: j.Parameters.FileBytes / size}
	for n := range j.Parameters.Files {
		f, err := s.open(ctx, largeFile{j.dataSet(), uint32(n)})
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, f)
	}
	if j.Parameters.Workload != spec.SequentialRead {
		random := j.random(number)
		r.choose = func() (int, int64) { return random.IntN(len(r.files)), random.Int64N(r.blocks) }
		return r, nil
	}
	// Clients of the same file start at different places of it.
	own, block := number%len(r.files), r.blocks*int64(number/len(r.files))/int64(j.Parameters.Clients)
	r.choose = func() (int, int64) {
		now := block % r.blocks
		block++
		return own, now
	}
	return r, nil
}

// random is the source of a client's random choices.
func (j *Job) random(number int) *rand.Rand { return rand.New(rand.NewPCG(j.Seed, uint64(number))) }

func (r *blockReader) do(ctx context.Context) (int, error) {
	n, block := r.choose()
	r.lastFile, r.lastOffset = n, block*int64(len(r.buf))
	if err := r.files[n].readAt(ctx, r.buf, r.lastOffset); err != nil {
		return 0, fmt.Errorf("read %d bytes at %d of file %d: %w", len(r.buf), r.lastOffset, n, err)
	}
	return len(r.buf), nil
}

// passBytes is the size of a request when a file is gone through.
const passBytes = 1 << 20

// goThrough reads a file once, in large requests. A path may keep something of
// it, such as a mapping, of which making it is no part of reading: a virtual
// machine can take longer to map a page than to copy it.
func (r *blockReader) goThrough(ctx context.Context, number int, size int64) error {
	buf := make([]byte, passBytes)
	for offset := int64(0); offset < size; offset += passBytes {
		part := buf[:min(passBytes, size-offset)]
		if err := r.files[number].readAt(ctx, part, offset); err != nil {
			return fmt.Errorf("read %d bytes at %d of file %d: %w", len(part), offset, number, err)
		}
	}
	return nil
}

func (r *blockReader) check() error {
	r.verified += int64(len(r.buf))
	return r.pattern.check(source{file: uint64(r.lastFile)}, r.lastOffset, r.buf)
}

func (r *blockReader) finish(ctx context.Context) (int64, error) {
	for _, f := range r.files {
		if err := f.close(ctx); err != nil {
			return 0, fmt.Errorf("close a file that was read: %w", err)
		}
	}
	return r.verified, nil
}

// blockWriter writes blocks of one size to a file of its own. Each time it
// writes a block its content is of a new generation, so that a block that was
// not overwritten is found.
type blockWriter struct {
	pattern     *pattern
	session     session
	name        largeFile
	file        file
	size        int
	generations []uint64 // of each block; 0 was never written
	choose      func() int64
}

func newBlockWriter(ctx context.Context, j *Job, p *pattern, s session, number int) (*blockWriter, error) {
	name := largeFile{j.written(), uint32(number)}
	f, err := s.create(ctx, name)
	if err != nil {
		return nil, err
	}
	blocks := j.Parameters.FileBytes / j.Parameters.SizeBytes
	w := &blockWriter{pattern: p, session: s, name: name, file: f, size: int(j.Parameters.SizeBytes), generations: make([]uint64, blocks)}
	if j.Parameters.Workload == spec.RandomWrite {
		random := j.random(number)
		w.choose = func() int64 { return random.Int64N(blocks) }
		// Overwriting is measured, not growing: the file is whole from the start.
		return w, w.fill(ctx)
	}
	block := int64(-1)
	w.choose = func() int64 { block = (block + 1) % blocks; return block }
	return w, nil
}

func (w *blockWriter) fill(ctx context.Context) error {
	for block := range w.generations {
		if err := w.write(ctx, int64(block)); err != nil {
			return err
		}
	}
	return nil
}

// source is the content of a block. No data set has a file of that number.
func (w *blockWriter) source(block int64) source {
	return source{1<<40 | uint64(w.name.number), w.generations[block]}
}

func (w *blockWriter) write(ctx context.Context, block int64) error {
	w.generations[block]++
	offset := block * int64(w.size)
	if err := w.file.writeAt(ctx, w.pattern.piece(w.source(block), offset, w.size), offset); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", w.size, offset, err)
	}
	return nil
}

func (w *blockWriter) do(ctx context.Context) (int, error) { return w.size, w.write(ctx, w.choose()) }

func (w *blockWriter) check() error { return nil } // finish reads everything back

// finish makes the file durable, reads it back, compares every byte that was
// written, and removes it.
func (w *blockWriter) finish(ctx context.Context) (verified int64, err error) {
	buf := make([]byte, w.size)
	for block, generation := range w.generations {
		if generation == 0 {
			continue
		}
		offset := int64(block) * int64(w.size)
		if err := w.file.readAt(ctx, buf, offset); err != nil {
			return verified, fmt.Errorf("read back %d bytes at %d: %w", w.size, offset, err)
		}
		if err := w.pattern.check(w.source(int64(block)), offset, buf); err != nil {
			return verified, fmt.Errorf("read back: %w", err)
		}
		verified += int64(w.size)
	}
	if err := w.file.close(ctx); err != nil {
		return verified, fmt.Errorf("close a file that was written: %w", err)
	}
	return verified, w.session.remove(ctx, w.name)
}
