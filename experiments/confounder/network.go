package confounder

const sysctl = "/proc/sys/net/"

// network are the settings of the network. Those of TCP are this network namespace's;
// namespaces that are made later begin with the same.
var network = []source{
	{"tcp_congestion_control", file(sysctl + "ipv4/tcp_congestion_control"), judgeCongestion},
	{"default_qdisc", file(sysctl + "core/default_qdisc"), nil},
	{"tcp_rmem", file(sysctl + "ipv4/tcp_rmem"), nil},
	{"tcp_wmem", file(sysctl + "ipv4/tcp_wmem"), nil},
	{"rmem_max", file(sysctl + "core/rmem_max"), nil},
	{"wmem_max", file(sysctl + "core/wmem_max"), nil},
	{"tcp_autocorking", file(sysctl + "ipv4/tcp_autocorking"),
		unless("small messages are not held back, as they usually are: sysctl -w net.ipv4.tcp_autocorking=1", "1")},
	{"tcp_notsent_lowat", file(sysctl + "ipv4/tcp_notsent_lowat"),
		unless("senders are woken for less than usual: sysctl -w net.ipv4.tcp_notsent_lowat=4294967295", "4294967295", "-1")},
	{"busy_poll", file(sysctl + "core/busy_poll"),
		unless("waiting for a socket burns processor time: sysctl -w net.core.busy_poll=0", "0")},
	{"busy_read", file(sysctl + "core/busy_read"),
		unless("reading from a socket burns processor time: sysctl -w net.core.busy_read=0", "0")},
	{"bpf_jit_enable", file(sysctl + "core/bpf_jit_enable"),
		unless("eBPF programs are interpreted, which no distribution does: sysctl -w net.core.bpf_jit_enable=1", "1", "2")},
	{"bpf_jit_harden", file(sysctl + "core/bpf_jit_harden"),
		unless("eBPF programs are slowed: sysctl -w net.core.bpf_jit_harden=0", "0", "1")},
}

func judgeCongestion(value string) string {
	switch value {
	case "cubic", "reno":
		return ""
	case "bbr":
		return "it paces TCP by timers where the scheduler fq is missing, and slows it up to two times; paths around TCP don't pay. " +
			"Experiments set cubic on their own sockets; for other programs: sysctl -w net.ipv4.tcp_congestion_control=cubic"
	}
	return "experiments set cubic on their own sockets; for other programs: sysctl -w net.ipv4.tcp_congestion_control=cubic"
}
