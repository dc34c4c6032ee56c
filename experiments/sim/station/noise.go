package station

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Noise is a distribution of factors, by which amounts are multiplied: either
// exponential, or a table of equally likely factors, as residuals were measured.
type Noise struct {
	exponential bool
	factors     []float64
}

// Exponential has factors with mean 1 and variance 1.
var Exponential = &Noise{exponential: true}

// MaxFactors is how many factors a table may have.
const MaxFactors = 1 << 16

// Table makes a distribution of equally likely factors.
func Table(factors []float64) (*Noise, error) {
	if len(factors) == 0 || len(factors) > MaxFactors {
		return nil, fmt.Errorf("a distribution of %d factors: 1 to %d are possible", len(factors), MaxFactors)
	}
	for _, f := range factors {
		if !(f >= 0) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("a distribution with the factor %v: must be a number that is not negative", f)
		}
	}
	return &Noise{factors: slices.Clone(factors)}, nil
}

// Mean is the mean factor.
func (d *Noise) Mean() float64 {
	if d == nil || d.exponential {
		return 1
	}
	sum := 0.0
	for _, f := range d.factors {
		sum += f
	}
	return sum / float64(len(d.factors))
}

// Factor draws a factor.
func (d *Noise) Factor(random *rand.Rand) float64 {
	if d.exponential {
		return random.ExpFloat64()
	}
	return d.factors[random.IntN(len(d.factors))]
}

func (d *Noise) spread(amount int64, random *rand.Rand) int64 {
	return int64(float64(amount)*d.Factor(random) + 0.5)
}
