// Package reference holds what was calibrated from the reference run, for
// simulations that name no other calibration.
package reference

import _ "embed"

// Calibration is the text of calibration.json, made by `waggle calibrate
// results/reference`.
//
//go:embed calibration.json
var Calibration []byte
