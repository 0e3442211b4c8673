// Front is the program aws of this suite: it asks the server at $AWSCLI_SOCKET,
// which runs the installed AWS CLI, and adds a line to the file $AWSCLI_RUNS.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "front:", err)
		code = 99
	}
	os.Exit(code)
}

func run() (int, error) {
	runs, err := os.OpenFile(os.Getenv("AWSCLI_RUNS"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer runs.Close()
	if _, err := fmt.Fprintln(runs); err != nil {
		return 0, err
	}
	connection, err := net.Dial("unix", os.Getenv("AWSCLI_SOCKET"))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	if err := json.NewEncoder(connection).Encode(map[string]any{"args": os.Args[1:], "env": os.Environ(), "dir": dir}); err != nil {
		return 0, err
	}
	var answer struct {
		Code           int
		Stdout, Stderr string
	}
	if err := json.NewDecoder(connection).Decode(&answer); err != nil {
		return 0, err
	}
	fmt.Fprint(os.Stderr, answer.Stderr)
	fmt.Print(answer.Stdout)
	return answer.Code, nil
}
