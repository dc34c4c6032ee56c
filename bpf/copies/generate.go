package copies

// Needs clang, libbpf-dev and linux-libc-dev; the results are committed.
//
//go:generate sh generate-names.sh
//go:generate go tool bpf2go -target bpfel -cflags "-Wall -Werror -mcpu=v3 -I../headers -I/usr/include/x86_64-linux-gnu" boundary boundary.bpf.c
//go:generate go tool bpf2go -target bpfel -cflags "-Wall -Werror -mcpu=v3 -I../headers -I/usr/include/x86_64-linux-gnu" sites sites.bpf.c
