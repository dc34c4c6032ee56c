package results

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxReason is the longest reason a record may give, in bytes.
const maxReason = 4096

// Check reports the first thing that makes a record unfit for analysis: a
// wrong schema, an empty name, a number that is negative or not finite,
// percentiles out of order, a histogram that can't be decoded, or a validity
// that contradicts itself.
func (r *Record) Check() error {
	if r.Schema != Schema {
		return fmt.Errorf("schema is %d, this program reads %d", r.Schema, Schema)
	}
	if err := r.checkIdentity(); err != nil {
		return err
	}
	if err := r.checkValidity(); err != nil {
		return err
	}
	if err := r.checkSimulation(); err != nil {
		return err
	}
	if err := checkNumbers(reflect.ValueOf(*r), ""); err != nil {
		return err
	}
	if err := r.Latency.check(); err != nil {
		return err
	}
	if err := r.checkCPU(); err != nil {
		return err
	}
	if r.LatencyHistogram != "" {
		if _, err := DecodeHistogram(r.LatencyHistogram); err != nil {
			return err
		}
	}
	return nil
}

func (r *Record) checkIdentity() error {
	if err := checkName("run", r.Run); err != nil {
		return err
	}
	if err := checkName("experiment", r.Experiment); err != nil {
		return err
	}
	if r.Source != SourceMeasured && r.Source != SourceSimulated {
		return fmt.Errorf("source is %q, not %q or %q", r.Source, SourceMeasured, SourceSimulated)
	}
	if r.Control != "" && r.Control != ControlAA {
		return fmt.Errorf("control is %q, not %q or absent", r.Control, ControlAA)
	}
	if r.Placement != "" && !slices.Contains(Placements(), r.Placement) {
		return fmt.Errorf("placement is %q, not one of %s, or absent", r.Placement, strings.Join(Placements(), ", "))
	}
	if err := r.Timeline.check(); err != nil {
		return fmt.Errorf("timeline: %w", err)
	}
	return r.Cell.check()
}

func (r *Record) checkValidity() error {
	switch {
	case len(r.Reason) > maxReason:
		return fmt.Errorf("reason has %d bytes, more than %d", len(r.Reason), maxReason)
	case r.Valid && r.Unsupported:
		return fmt.Errorf("record is both valid and unsupported")
	case !r.Valid && r.Reason == "":
		return fmt.Errorf("record is not valid and gives no reason")
	case r.Valid && !r.measuresAnything():
		return fmt.Errorf("record is valid but measures nothing")
	}
	return nil
}

func (r *Record) measuresAnything() bool {
	for _, m := range Metrics() {
		if _, ok := m.Of(r); ok {
			return true
		}
	}
	return false
}

// The processors' clocks are read a moment before a trial's first operation and a
// moment after its last: by that much more than its seconds it may be looked at.
const (
	clockShare = 0.02
	clockSlack = 0.001 // seconds
)

// WithinClockSlack reports whether a time that was looked at the processors, in seconds,
// is that of the timed part and nothing else.
func WithinClockSlack(looked, timed float64) bool {
	return looked <= timed*(1+clockShare)+clockSlack
}

// checkCPU refuses more processor time than the processors could give.
func (r *Record) checkCPU() error {
	if r.CPU == nil || r.CPU.Processors == 0 || r.Seconds == nil {
		return nil
	}
	if perProcessor := r.CPU.Total / float64(r.CPU.Processors); !WithinClockSlack(perProcessor, *r.Seconds) {
		return fmt.Errorf("cpu_seconds: %d processors can't have worked for %v s in %v s", r.CPU.Processors, r.CPU.Total, *r.Seconds)
	}
	return nil
}

func (l *Latency) check() error {
	if l == nil {
		return nil
	}
	ordered := []float64{l.P50, l.P90, l.P99, l.P999, l.Max}
	for i := 1; i < len(ordered); i++ {
		if ordered[i] < ordered[i-1] {
			return fmt.Errorf("latency_seconds: percentiles are not in order: p50, p90, p99, p999, max are %v", ordered)
		}
	}
	if l.Mean > l.Max {
		return fmt.Errorf("latency_seconds: mean %v is above max %v", l.Mean, l.Max)
	}
	return nil
}

// checkNumbers refuses negative and non-finite numbers in any field of a
// record. Levels of a cell are exempt: a factor may well be negative.
func checkNumbers(v reflect.Value, name string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return checkNumbers(v.Elem(), name)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if err := checkNumbers(v.Field(i), join(name, fieldName(v.Type().Field(i)))); err != nil {
				return err
			}
		}
	case reflect.Map:
		if v.Type() == reflect.TypeFor[Cell]() {
			return nil
		}
		for it := v.MapRange(); it.Next(); {
			if err := checkNumbers(it.Value(), join(name, it.Key().String())); err != nil {
				return err
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := checkNumbers(v.Index(i), fmt.Sprintf("%s[%d]", name, i)); err != nil {
				return err
			}
		}
	case reflect.Int, reflect.Int64:
		if v.Int() < 0 {
			return fmt.Errorf("%s is negative: %d", name, v.Int())
		}
	case reflect.Float64:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%s is %v, not a finite number", name, f)
		}
		if f < 0 {
			return fmt.Errorf("%s is negative: %v", name, f)
		}
	}
	return nil
}

// decodeStrict decodes one JSON value and refuses what a lenient decoder would
// let through: unknown, duplicated and missing fields, and null.
func decodeStrict(data []byte, into any) error {
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return tidyJSONError(err)
	}
	return checkPresent(data, reflect.TypeOf(into).Elem(), "")
}

// tidyJSONError leaves out the decoder's own name and Go's types where it can.
func tidyJSONError(err error) error {
	return fmt.Errorf("%s", strings.TrimPrefix(strings.TrimPrefix(err.Error(), "json: "), "jsontext: "))
}

// checkPresent walks a JSON value along the Go type it was decoded into and
// reports the first field that is missing or null. A field may be missing only
// if its tag says omitempty or omitzero.
func checkPresent(value jsontext.Value, t reflect.Type, name string) error {
	if value.Kind() == 'n' {
		return fmt.Errorf("%s is null: leave out what was not measured", name)
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case value.Kind() == '{' && t.Kind() == reflect.Struct:
		return checkFieldsPresent(value, t, name)
	case value.Kind() == '{' && t.Kind() == reflect.Map:
		var members map[string]jsontext.Value
		if err := json.Unmarshal(value, &members); err != nil {
			return tidyJSONError(err)
		}
		for key, member := range members {
			if err := checkPresent(member, t.Elem(), join(name, key)); err != nil {
				return err
			}
		}
	case value.Kind() == '[' && t.Kind() == reflect.Slice:
		var elements []jsontext.Value
		if err := json.Unmarshal(value, &elements); err != nil {
			return tidyJSONError(err)
		}
		for i, element := range elements {
			if err := checkPresent(element, t.Elem(), fmt.Sprintf("%s[%d]", name, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkFieldsPresent(value jsontext.Value, t reflect.Type, name string) error {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(value, &members); err != nil {
		return tidyJSONError(err)
	}
	for i := range t.NumField() {
		field := t.Field(i)
		full := join(name, fieldName(field))
		member, ok := members[fieldName(field)]
		if !ok && strings.Contains(field.Tag.Get("json"), ",omit") {
			continue
		}
		if !ok {
			return fmt.Errorf("field %s is missing", full)
		}
		if err := checkPresent(member, field.Type, full); err != nil {
			return err
		}
	}
	return nil
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func join(outer, inner string) string {
	if outer == "" {
		return inner
	}
	return outer + "." + inner
}
