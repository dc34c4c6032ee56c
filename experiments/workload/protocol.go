package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The runner and the load generator speak JSON, a line each way in turn. A trial
// takes three steps, so that the runner can look at counters while the clients
// are connected, warm and idle, before and after the measured part.
const (
	stepPrepare = "prepare" // write a job's data set
	stepBegin   = "begin"   // connect the clients, warm up
	stepMeasure = "measure" // the timed part
	stepFinish  = "finish"  // verify what was written, clean up, give the result
)

type request struct {
	Step string `json:"step"`
	Job  *Job   `json:"job,omitempty"` // of prepare and begin
}

type reply struct {
	Error  string  `json:"error,omitempty"`
	Result *Result `json:"result,omitempty"` // of finish
}

// maxLine bounds a line of the protocol in bytes.
const maxLine = 4 << 20

// Serve is the load generator's process: it does what is asked for on in, and
// answers on out, until in ends.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	g := generator{pattern: newPattern()}
	defer g.drop()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		var answer reply
		result, err := g.do(ctx, q)
		if err != nil {
			answer.Error = err.Error()
		}
		answer.Result = result
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return fmt.Errorf("answer a request: %w", err)
		}
	}
	return lines.Err()
}

// generator holds the trial that is under way, if any.
type generator struct {
	pattern *pattern
	trial   *trial
}

func (g *generator) do(ctx context.Context, q request) (*Result, error) {
	switch {
	case (q.Step == stepPrepare || q.Step == stepBegin) && q.Job == nil:
		return nil, fmt.Errorf("step %s needs a job", q.Step)
	case (q.Step == stepMeasure || q.Step == stepFinish) && g.trial == nil:
		return nil, fmt.Errorf("step %s needs a trial that was begun", q.Step)
	}
	switch q.Step {
	case stepPrepare:
		return nil, prepare(ctx, q.Job, g.pattern)
	case stepBegin:
		g.drop()
		t, err := begin(ctx, q.Job, g.pattern)
		g.trial = t
		return nil, err
	case stepMeasure:
		err := g.trial.measure(ctx)
		if err != nil {
			g.drop()
		}
		return nil, err
	case stepFinish:
		result, err := g.trial.finish(ctx)
		g.trial = nil
		return &result, err
	default:
		return nil, fmt.Errorf("there is no step %q", q.Step)
	}
}

// drop gives up a trial that did not end well; that it did not is known.
func (g *generator) drop() {
	if g.trial != nil {
		_ = g.trial.close()
		g.trial = nil
	}
}

// Generator is the runner's end: a load generator in another process.
type Generator struct {
	in  io.Writer
	out *bufio.Scanner
	// wake ends a call that waits for an answer.
	wake func()
}

// NewGenerator speaks with a process over its input and output. If output is a
// pipe, calls end with their context; a Generator whose call was ended so is of
// no more use.
func NewGenerator(input io.Writer, output io.Reader) *Generator {
	g := &Generator{in: input, out: bufio.NewScanner(output), wake: func() {}}
	g.out.Buffer(nil, maxLine)
	if pipe, ok := output.(interface{ SetReadDeadline(time.Time) error }); ok {
		g.wake = func() { _ = pipe.SetReadDeadline(time.Unix(1, 0)) }
	}
	return g
}

// ErrGone is wrapped by an error that is not the trial's but the load
// generator's: it does not answer any more.
var ErrGone = errors.New("the load generator is gone")

func (g *Generator) call(ctx context.Context, q request) (*Result, error) {
	line, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("ask the load generator to %s: %w", q.Step, err)
	}
	if _, err := g.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("%w: ask it to %s: %w", ErrGone, q.Step, err)
	}
	defer context.AfterFunc(ctx, g.wake)()
	if !g.out.Scan() {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: no answer to %s: %v", ErrGone, q.Step, g.out.Err())
	}
	var answer reply
	if err := json.Unmarshal(g.out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("%w: its answer to %s: %w", ErrGone, q.Step, err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Result, nil
}

// Prepare writes a job's data set.
func (g *Generator) Prepare(ctx context.Context, j *Job) error {
	_, err := g.call(ctx, request{stepPrepare, j})
	return err
}

// Begin connects a job's clients and warms up.
func (g *Generator) Begin(ctx context.Context, j *Job) error {
	_, err := g.call(ctx, request{stepBegin, j})
	return err
}

// Measure carries out the timed part.
func (g *Generator) Measure(ctx context.Context) error {
	_, err := g.call(ctx, request{Step: stepMeasure})
	return err
}

// Finish verifies what was written, cleans up, and returns the result.
func (g *Generator) Finish(ctx context.Context) (Result, error) {
	result, err := g.call(ctx, request{Step: stepFinish})
	if err != nil {
		return Result{}, err
	}
	if result == nil {
		return Result{}, fmt.Errorf("%w: it gave no result", ErrGone)
	}
	return *result, nil
}
