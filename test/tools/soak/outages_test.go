package main

import (
	"testing"
	"time"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
)

func TestOutages(t *testing.T) {
	start := time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	o := &outages{all: []*period{
		{what: webhookDown, begin: at(10), end: at(20)}, // and recovers for 4 s
		{what: awsDown, begin: at(30), end: at(40)},
		{what: webhookDown, begin: at(35), end: at(45)},
		{what: storeDown, begin: at(100)},
	}}
	for name, c := range map[string]struct {
		from, to int
		kinds    []outage
		want     bool
	}{
		"before it":                   {0, 9, []outage{webhookDown}, false},
		"it begins meanwhile":         {0, 10, []outage{webhookDown}, true},
		"within it":                   {12, 13, []outage{webhookDown}, true},
		"within the recovery":         {23, 24, []outage{webhookDown}, true},
		"after the recovery":          {25, 29, []outage{webhookDown}, false},
		"another kind":                {12, 13, []outage{awsDown, storeDown}, false},
		"one of several kinds":        {12, 13, []outage{awsDown, webhookDown}, true},
		"one that has not ended":      {5000, 5001, []outage{storeDown}, true},
		"all of it":                   {0, 5000, []outage{awsDown}, true},
		"of none that is asked about": {0, 5000, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := o.during(at(c.from), at(c.to), c.kinds...); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
	if from, ok := o.first(at(0), at(60), webhookDown); !ok || !from.Equal(at(10)) {
		t.Errorf("the first begins at %s (%t)", from, ok)
	}
	for name, c := range map[string]struct {
		kinds []outage
		want  time.Duration
	}{
		"one kind":              {[]outage{webhookDown}, 20 * time.Second},
		"overlaps count once":   {[]outage{awsDown, webhookDown}, 25 * time.Second},
		"until now if it lasts": {[]outage{storeDown}, 20 * time.Second},
		"none":                  {[]outage{renewerDown}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := o.total(at(120), c.kinds...); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	end := o.begin(renewerDown)
	if now := time.Now(); !o.during(now, now, renewerDown) {
		t.Error("an outage that has just begun is not felt")
	}
	end()
	if late := time.Now().Add(time.Hour); o.during(late, late, renewerDown) {
		t.Error("an outage that ended an hour ago is felt")
	}
}

func TestPercentile(t *testing.T) {
	all := []time.Duration{5, 1, 4, 2, 3}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := percentile(all, share); got != want {
			t.Errorf("%v: %d, want %d", share, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of none: %d", got)
	}
}

func TestBriefTokens(t *testing.T) {
	start := time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)
	o := &outages{all: []*period{
		{what: webhookDown, begin: start, end: start.Add(time.Hour)},
		{what: renewerDown, begin: start.Add(time.Hour), end: start.Add(time.Hour + time.Second)}, // and recovers for a minute
	}}
	for name, c := range map[string]struct {
		issued time.Duration
		life   time.Duration
		want   bool
	}{
		"moments, and an outage of the renewer":      {time.Hour - 10*time.Second, 30 * time.Second, true},
		"the usual life, and an outage":              {time.Hour - 10*time.Second, tokenLifetime, false},
		"moments, and an outage of the webhook only": {30 * time.Minute, 30 * time.Second, false},
		"moments after the recovery":                 {time.Hour + 2*time.Minute, 30 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			issued := start.Add(c.issued)
			token := fakeaws.Token{IssuedAt: issued, ExpiresAt: issued.Add(c.life)}
			if got := o.brief(token, token.ExpiresAt); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}
