package replica

import (
	"fmt"
	"os"

	"waggle/dfs/datapath/read/shortcircuit"
)

// Share opens the replica's files for a process that reads them by itself. The
// loan that lend gives is told of all that happens to the replica, before it is
// acknowledged.
func (r *Replica) Share(epoch uint64, lend func(last *shortcircuit.Loan, length uint64) *shortcircuit.Loan) (s shortcircuit.Replica, err error) {
	if err := r.lock(); err != nil {
		return s, err
	}
	defer r.unlock()
	if epoch > r.state.Epoch {
		return s, fmt.Errorf("share chunk %d: %w: asked %d, the replica has %d", r.id, ErrStaleEpoch, epoch, r.state.Epoch)
	}
	if r.state.Doubtful {
		return s, fmt.Errorf("share chunk %d: %w", r.id, ErrDoubtful)
	}
	if s.Data, err = os.Open(r.store.path(r.id, dataSuffix)); err != nil {
		return s, fmt.Errorf("share chunk %d: %w", r.id, err)
	}
	if s.Sums, err = os.Open(r.store.path(r.id, sumsSuffix)); err != nil {
		s.Data.Close()
		return s, fmt.Errorf("share chunk %d: %w", r.id, err)
	}
	r.loan = lend(r.loan, r.state.Length)
	s.SumsStart, s.Epoch, s.Loan = sumsStart, r.state.Epoch, r.loan
	return s, nil
}

// takeBack ends what Share began. The replica is locked.
func (r *Replica) takeBack() {
	if r.loan != nil {
		r.loan.TakeBack()
		r.loan = nil
	}
}
