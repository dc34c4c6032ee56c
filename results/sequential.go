package results

import (
	"fmt"
	"math"
)

// MaxLooks is the most looks that a plan may have.
const MaxLooks = 32

// Sequential is a group-sequential plan: how often an experiment's comparisons
// are looked at while it runs, what has to be decided, and how the chance of a
// wrong claim is shared out between the looks. All of it is fixed before the
// first trial. Package stats says how a look is judged.
type Sequential struct {
	// Looks are the numbers of repetitions after which is looked, ascending. A
	// comparison that is decided gets no more repetitions; the last look ends all.
	Looks []int `json:"looks"`
	// Spent is the share of the error rate that each look may spend; their sum is 1.
	Spent []float64 `json:"spent"`
	// Questions are what has to be decided.
	Questions []SequentialQuestion `json:"questions"`
	// BudgetSeconds is the longest that the run was meant to take, absent if it had
	// no such limit. When it is spent, what is undecided stays so.
	BudgetSeconds float64 `json:"budget_seconds,omitzero"`
}

// SequentialQuestion asks how each level of a factor compares with its baseline, by
// a metric, in every setting of the other factors.
type SequentialQuestion struct {
	Metric   string `json:"metric"`
	Factor   string `json:"factor"`
	Baseline string `json:"baseline"`
}

func (s *Sequential) check(repetitions int) error {
	if s == nil {
		return nil
	}
	if n := len(s.Looks); n == 0 || n > MaxLooks || len(s.Spent) != n {
		return fmt.Errorf("%d looks with %d shares: from 1 to %d are possible, with a share each", n, len(s.Spent), MaxLooks)
	}
	sum, before := 0.0, 0
	for i, look := range s.Looks {
		if look <= before {
			return fmt.Errorf("looks %v are not ascending numbers of repetitions", s.Looks)
		}
		if !(s.Spent[i] > 0 && s.Spent[i] <= 1) {
			return fmt.Errorf("the share of look %d is %v, not above 0 and at most 1", i+1, s.Spent[i])
		}
		before = look
		sum += s.Spent[i]
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("the shares of the looks add up to %v, not to 1", sum)
	}
	if before != repetitions {
		return fmt.Errorf("the last look is after %d repetitions, the experiment has up to %d", before, repetitions)
	}
	if !(s.BudgetSeconds >= 0) {
		return fmt.Errorf("the budget is %v s", s.BudgetSeconds)
	}
	return s.checkQuestions()
}

func (s *Sequential) checkQuestions() error {
	for _, q := range s.Questions {
		if _, err := MetricNamed(q.Metric); err != nil {
			return err
		}
		if err := checkName("factor", q.Factor); err != nil {
			return err
		}
		if err := checkName("baseline", q.Baseline); err != nil {
			return err
		}
	}
	return nil
}
