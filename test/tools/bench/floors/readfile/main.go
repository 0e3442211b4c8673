// Readfile is the least that a Go program can do in a cache's place: it reads one
// file and prints it.
package main

import "os"

func main() {
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		os.Exit(1)
	}
	if _, err := os.Stdout.Write(content); err != nil {
		os.Exit(1)
	}
}
