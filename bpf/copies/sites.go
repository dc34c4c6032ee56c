package copies

// A Site is one way into a kernel function that copies.
type Site struct {
	Function  string
	Direction Direction
	Callers   string // the functions above it, nearest first, joined by " < "
}

// SiteCount is what a site copied.
type SiteCount struct {
	Calls uint64
	Bytes uint64
}

func (c *SiteCount) add(o SiteCount) {
	c.Calls += o.Calls
	c.Bytes += o.Bytes
}

func (c SiteCount) minus(o SiteCount) SiteCount {
	return SiteCount{c.Calls - o.Calls, c.Bytes - o.Bytes}
}
