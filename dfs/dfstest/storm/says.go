package storm

// saysLost says whether an error tells that writes that were acknowledged before
// may be lost.
func saysLost(err error) bool { return err != nil }
