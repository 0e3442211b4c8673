// Client sends a review again and again, as API servers do, over as many
// connections as are asked for, and measures how long each answer takes. It stays
// connected: each line on stdin, a duration such as 250ms, makes it send for that
// long, and each line on stdout is JSON, an [Answer]. The first line comes when all
// connections have served a review.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Answer is what it measured in one turn.
type Answer struct {
	Latencies []time.Duration // of each review that was served
	Shed      int             // those that the webhook had no room for
}

// errShed is a review that the webhook had no room for.
var errShed = errors.New("503")

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run() error {
	address := flag.String("address", "", "`HOST:PORT` of the webhook")
	file := flag.String("body", "", "`FILE` with the review")
	clients := flag.Int("clients", 1, "`NUMBER` of connections")
	want := flag.String("want", "", "`TEXT` that every answer has")
	flag.Parse()
	body, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	request := append(fmt.Appendf(nil, "POST /mutate?timeout=2s HTTP/1.1\r\nHost: %s\r\nUser-Agent: kube-apiserver-admission\r\n"+
		"Content-Length: %d\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n", *address, len(body)), body...)
	connections := make([]*connection, *clients)
	for i := range connections {
		c, err := tls.Dial("tcp", *address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		defer c.Close()
		connections[i] = &connection{Conn: c, answers: bufio.NewReader(c), request: request, want: *want}
	}
	out := json.NewEncoder(os.Stdout)
	answer, err := turn(connections, 0)
	if err != nil {
		return err
	}
	if err := out.Encode(answer); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		length, err := time.ParseDuration(strings.TrimSpace(lines.Text()))
		if err != nil {
			return err
		}
		if answer, err = turn(connections, length); err != nil {
			return err
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// turn has all connections send for a while, one review at least.
func turn(connections []*connection, length time.Duration) (Answer, error) {
	var group errgroup.Group
	all, shed := make([][]time.Duration, len(connections)), make([]int, len(connections))
	end := time.Now().Add(length)
	for i, c := range connections {
		group.Go(func() error {
			for {
				took, err := c.review()
				switch {
				case errors.Is(err, errShed):
					shed[i]++
				case err != nil:
					return err
				default:
					all[i] = append(all[i], took)
				}
				if !time.Now().Before(end) {
					return nil
				}
			}
		})
	}
	err := group.Wait()
	answer := Answer{Latencies: slices.Concat(all...)}
	for _, n := range shed {
		answer.Shed += n
	}
	return answer, err
}

type connection struct {
	*tls.Conn
	answers *bufio.Reader
	request []byte
	want    string
}

// review sends the review and waits for the whole answer.
func (c *connection) review() (time.Duration, error) {
	begin := time.Now()
	if _, err := c.Write(c.request); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	took := time.Since(begin)
	switch {
	case err != nil:
		return 0, err
	case res.StatusCode == http.StatusServiceUnavailable && !res.Close:
		return 0, errShed
	case res.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("%s: %s", res.Status, answer)
	case !strings.Contains(string(answer), c.want):
		return 0, errors.New("unexpected answer: " + string(answer))
	}
	return took, nil
}
