package datapath

// Stage is a part of an operation: what one role does before another one goes on.
// The stages of a path say where its time goes, as counts that don't depend on the
// machine; what each costs is fitted from measurements. The copy ledger counts
// what can be seen at a process's boundary, and calibration compares.
type Stage struct {
	// Role is "client", "chunk", "meta" or "gateway".
	Role string
	// Does says in words what the role does.
	Does string
	// Operation is done once an operation, Byte once a byte of payload.
	Operation, Byte Work
	// Replicas says that every replica but the first does the stage again.
	Replicas bool
}

// Work is how often something is done that costs time.
type Work struct {
	Calls    float64 // system calls
	Switches float64 // of context, at low load: the role waited and was woken
	// Bytes that a processor copies, by direction.
	UserToKernel, KernelToUser, InKernel, InUser float64
	TCP                                          float64 // bytes through TCP, without their copies
	Sockmap                                      float64 // bytes from socket to socket past TCP
	Checked                                      float64 // bytes that a checksum is computed over
	Mapped                                       float64 // bytes of pages that are mapped, and looked up in the page tables
	Datagrams                                    float64 // packets that are no part of a TCP stream
	SoftIRQ                                      float64 // packets taken in by a soft interrupt
}

// Copied is all bytes that are copied.
func (w Work) Copied() float64 { return w.UserToKernel + w.KernelToUser + w.InKernel + w.InUser }
