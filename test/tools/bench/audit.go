//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// audit reads what the API server's log tells of those who are measured. The log
// is written anyway, so looking at it takes nothing from them, as a watch of ten
// thousand secrets would.
type audit struct {
	path   string
	offset int64
	events []request // of the agents below, in the order of their answers
}

// agents are those whose requests are kept.
var agents = []string{renewerAgent, floorAgent, labelAgent}

// A request is one that was answered. Watches are not kept.
type request struct {
	UserAgent string    `json:"userAgent"`
	Verb      string    `json:"verb"`
	Stage     string    `json:"stage"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	Answered  time.Time `json:"stageTimestamp"`
	Object    struct {
		Resource  string `json:"resource"`
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// read reads what was added.
func (a *audit) read() error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, a.offset, 1<<62))
	if err != nil {
		return err
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return nil
		}
		a.offset += int64(len(line)) + 1
		data = rest
		if !wanted(line) {
			continue
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%s: %w", a.path, err)
		}
		if r.Stage == "ResponseComplete" && r.Verb != "watch" {
			a.events = append(a.events, r)
		}
	}
}

func wanted(line []byte) bool {
	for _, agent := range agents {
		if bytes.Contains(line, []byte(`"userAgent":"`+agent)) {
			return true
		}
	}
	return false
}

// since returns the requests of an agent after a mark, which is a number of events.
func (a *audit) since(mark int, agent string) (requests []request) {
	for _, r := range a.events[mark:] {
		if strings.HasPrefix(r.UserAgent, agent) {
			requests = append(requests, r)
		}
	}
	return requests
}

// mark returns the number of events so far.
func (a *audit) mark() (int, error) {
	err := a.read()
	return len(a.events), err
}

// kind is what a request of the renewer is for.
func (r request) kind() string {
	switch {
	case r.Object.Resource == "leases":
		return "lease"
	case r.Object.Resource == "events":
		return "events"
	case r.Object.Resource == "secrets" && r.Verb == "patch":
		return "writes"
	case r.Verb == "get" || r.Verb == "list":
		return "reads"
	}
	return "other"
}

// writes counts the secrets that an agent applied after a mark.
func (a *audit) writes(mark int, agent string) (n int) {
	for i := range a.events[mark:] {
		if r := &a.events[mark+i]; strings.HasPrefix(r.UserAgent, agent) && r.kind() == "writes" && r.Response.Code < 300 {
			n++
		}
	}
	return n
}

// written are the secrets that were applied.
func written(requests []request) (writes []request) {
	for _, r := range requests {
		if r.kind() == "writes" && r.Response.Code < 300 {
			writes = append(writes, r)
		}
	}
	return writes
}

// span returns how long requests took all together: from when the first came to
// when the last was answered.
func span(requests []request) time.Duration {
	if len(requests) == 0 {
		return 0
	}
	first, last := requests[0].Received, requests[0].Answered
	for _, r := range requests {
		if r.Received.Before(first) {
			first = r.Received
		}
		if r.Answered.After(last) {
			last = r.Answered
		}
	}
	return last.Sub(first)
}
