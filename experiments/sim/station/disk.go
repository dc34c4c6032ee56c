package station

import (
	"fmt"
	"math"

	"waggle/experiments/sim/engine"
)

// Drive describes a disk.
type Drive struct {
	// Channels is how many requests it serves at once.
	Channels int
	// AccessNS is a request's time beside its bytes, BytesPerSecond the rate of
	// all channels together.
	AccessNS       int64
	BytesPerSecond float64
	// Degradation makes each request so much slower, as a share, for each other
	// one that is inside.
	Degradation float64
	Noise       *Noise
}

// Disk serves requests in the order they come. A job's amount is bytes.
type Disk struct {
	basis
	drive Drive
	free  int
	queue line
}

// NewDisk returns a disk.
func NewDisk(d Drive) (*Disk, error) {
	if d.Channels < 1 || d.AccessNS < 0 || !(d.BytesPerSecond > 0) || !(d.Degradation >= 0) || math.IsInf(d.BytesPerSecond+d.Degradation, 0) {
		return nil, fmt.Errorf("a disk with %d channels, %d ns an access, %v B/s and a degradation of %v can't be", d.Channels, d.AccessNS, d.BytesPerSecond, d.Degradation)
	}
	return &Disk{drive: d, free: d.Channels}, nil
}

func (d *Disk) arrive(job int32, bytes int64, _ *Step) {
	if d.free == 0 {
		d.queue.push(waiter{job: job, amount: bytes})
		return
	}
	d.free--
	d.serve(job, bytes)
}

func (d *Disk) serve(job int32, bytes int64) {
	takes := float64(d.drive.AccessNS) + float64(bytes)/d.drive.BytesPerSecond*1e9*float64(d.drive.Channels)
	takes *= 1 + d.drive.Degradation*float64(d.Inside()-1)
	lasts := int64(takes + 0.5)
	if d.drive.Noise != nil {
		lasts = d.drive.Noise.spread(lasts, d.n.Random)
	}
	d.Busy += lasts
	d.schedule(lasts, job)
}

// Handle ends a request.
func (d *Disk) Handle(_ *engine.Engine, event engine.Event) {
	if d.queue.count > 0 {
		next := d.queue.pop()
		d.serve(next.job, next.amount)
	} else {
		d.free++
	}
	d.n.leave(event.Job, 0)
}
