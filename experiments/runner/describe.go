package runner

import "waggle/results"

// Describe says where a program runs that starts no roles, such as the simulator:
// the machine and the program's commit, without what the machine supports.
func Describe(commandLine []string) results.Environment {
	return captureEnvironment(support{}, Options{CommandLine: commandLine})
}
