package copies

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

type kernelSymbol struct {
	address uint64
	name    string
}

// kernelSymbols are the kernel's functions, by address.
type kernelSymbols []kernelSymbol

func readKernelSymbols() (kernelSymbols, error) {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	defer file.Close()
	symbols, err := parseKernelSymbols(file)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols from %s: %w", file.Name(), err)
	}
	return symbols, nil
}

// parseKernelSymbols reads lines of "ADDRESS TYPE NAME [MODULE]" and keeps the functions.
func parseKernelSymbols(r io.Reader) (kernelSymbols, error) {
	var symbols kernelSymbols
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %q has too few fields", lines.Text())
		}
		if !strings.Contains("tTwW", fields[1]) {
			continue
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		if address == 0 {
			return nil, errors.New("addresses are hidden: set the sysctl kernel.kptr_restrict to 1 or 0 and run as root")
		}
		symbols = append(symbols, kernelSymbol{address, fields[2]})
	}
	slices.SortFunc(symbols, func(a, b kernelSymbol) int { return cmp.Compare(a.address, b.address) })
	return symbols, lines.Err()
}

// nameOf finds the function that an address lies in.
func (s kernelSymbols) nameOf(address uint64) string {
	after, exact := slices.BinarySearchFunc(s, address, func(symbol kernelSymbol, a uint64) int {
		return cmp.Compare(symbol.address, a)
	})
	if exact {
		return s[after].name
	}
	if after == 0 {
		return fmt.Sprintf("%#x", address)
	}
	return s[after-1].name
}
