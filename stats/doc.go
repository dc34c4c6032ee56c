// Package stats decides what a run's records allow to be said.
//
// The way from records to a conclusion:
//
//   - [GroupRecords] gathers the trials of each cell of an experiment; [PairUp]
//     finds the groups that differ in one thing only.
//   - [MeasureNoise] takes from the control twins (A/A) how different two
//     identical cells came out.
//   - [Inquiry.About] makes a [Question] of a pair of cells and a metric.
//   - [Judge] answers "is the treatment better than the baseline?" for many
//     questions at once.
//   - [StillOpen] names the cells that need more repetitions, while a run goes on.
//
// The package lies below both experiments and analysis, because both judge: a run
// that follows a sequential plan stops what is clear, and a report says what is
// clear. One rule for both means that they can't differ.
//
// # Method
//
// A timing is summarised by its median, and two timings by the ratio of their
// medians, treatment over baseline, with a 95 % percentile bootstrap interval.
// Trials of one repetition ran in one interleaved block, so where both sides
// have the same repetitions, blocks are resampled rather than trials: what made
// a whole block slow then cancels. "Is there a difference at all" is the
// two-sided Mann-Whitney U test, its p-values adjusted over everything that is
// asked in one call so that among the differences found at most 5 % are
// expected to be none (Benjamini and Hochberg 1995). A difference is claimed
// only if that test finds it, the interval excludes "equal", and it is larger
// than the A/A noise.
//
// Where repetitions were placed on processors on purpose, everything happens within
// placements: values are ranked, and resampled, among those of the same placement only,
// and the placements' results combined with equal weights. So what a placement does to both
// sides costs nothing, and no interval is made of two heaps. Whether the ratio is the
// same in all placements is tested too (Kruskal and Wallis 1952, by permutation); where
// it isn't, the placements are shown, and one that contradicts another leaves the
// verdict "depends on placement".
//
// A run may follow a group-sequential plan (sequential.go): comparisons are judged after
// numbers of repetitions that were fixed before, each look with its share of the error rate, and
// get no more repetitions once they are decided. Intervals at a look are wrong with
// its share of 5 %, so that all looks of a comparison together are wrong with 5 %.
//
// A metric that counts rather than times, and comes out the same in every
// repetition, is compared exactly.
//
// Everything here is a function of the set of records: their order doesn't
// matter, and the bootstrap's seed comes from the values, so the same records
// give the same bytes.
//
// # Rejected
//
// Wilcoxon's signed-rank test would use the pairing, but can't reach 5 % with
// five repetitions, and quick runs have few. Holm's correction bounds the
// chance of even one wrong claim, but then five repetitions could never decide
// a sweep of more than six cells, however plain the differences. Means and
// t-tests assume what latencies don't keep.
package stats
