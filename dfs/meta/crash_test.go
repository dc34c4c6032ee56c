package meta

const crashDirectory = "WAGGLE_TEST_META_DIRECTORY"

func serveUntilKilled(directory string) int { return 0 }
