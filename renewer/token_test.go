package renewer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pullpass/pullpass/internal/credential"
)

func TestRenewBy(t *testing.T) {
	const h = time.Hour
	for name, c := range map[string]struct {
		life, interval, session, want time.Duration // a session of 0 has no end
	}{
		"half of the token's life":        {life: 12 * h, want: 6 * h},
		"the interval":                    {life: 12 * h, interval: 2 * h, want: 2 * h},
		"an interval beyond half":         {life: 12 * h, interval: 7 * h, want: 6 * h},
		"an interval beyond a short life": {life: h, interval: 2 * h, want: 30 * time.Minute},
		"the session's end":               {life: 12 * h, session: h, want: h},
		"a session that outlives half":    {life: 12 * h, session: 7 * h, want: 6 * h},
		"a session within the interval":   {life: 12 * h, interval: 2 * h, session: h, want: h},
		"an interval within the session":  {life: 12 * h, interval: h, session: 2 * h, want: h},
		"a token of moments":              {life: 30 * time.Second, interval: 2 * h, session: h, want: 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var ends time.Time
			if c.session != 0 {
				ends = start.Add(c.session)
			}
			if got := renewBy(start, start.Add(c.life), c.interval, ends).Sub(start); got != c.want {
				t.Errorf("%s after the issue, want %s", got, c.want)
			}
		})
	}
}

func TestRenewalsComeInOrderAndInTime(t *testing.T) {
	for _, period := range []time.Duration{15 * time.Second, time.Minute, time.Hour, 6 * time.Hour} {
		token := Token{Issued: start, RenewBy: start.Add(period)}
		for part, want := range map[float64]float64{0: 0.85, 0.5: 0.875, 1: 0.9} {
			if got := token.renewAt(part).Sub(start); (got - time.Duration(float64(period)*want)).Abs() > time.Microsecond {
				t.Errorf("of %s, renewAt(%v) = %s, want %v of it", period, part, got, want)
			}
		}
		e := Token{Issued: start, Expires: start.Add(2 * period), RenewBy: start.Add(period)}.entry()
		for part, want := range map[float64]float64{0: 0.9, 0.5: 0.95, 1: 1} {
			if got := (turn{spread: part}).due(e).Sub(start); (got - time.Duration(float64(period)*want)).Abs() > time.Microsecond {
				t.Errorf("of %s, due at %v = %s, want %v of it", period, part, got, want)
			}
		}
	}
}

func TestAnEntryIsDueByItsOwnTime(t *testing.T) {
	const h = time.Hour
	e := entry{Issued: start, Expires: start.Add(12 * h)}
	for name, c := range map[string]struct {
		renewBy, interval, want time.Duration
	}{
		"of an annotation that states none": {want: 6 * h},
		"its own":                           {renewBy: h, want: h},
		"an interval that is shorter since": {renewBy: 6 * h, interval: h, want: h},
		"an interval that is longer":        {renewBy: h, interval: 2 * h, want: h},
	} {
		e := e
		if c.renewBy != 0 {
			e.RenewBy = start.Add(c.renewBy)
		}
		if got := (turn{spread: 1, interval: c.interval}).due(e).Sub(start); got != c.want {
			t.Errorf("%s: due after %s, want %s", name, got, c.want)
		}
	}
}

func TestUsable(t *testing.T) {
	token := Token{Auth: "x", Expires: start}
	if !token.usable(start.Add(-1)) || token.usable(start) || token.usable(start.Add(1)) || (Token{Expires: start}).usable(start.Add(-1)) {
		t.Error("usable is until the expiry, and with a token")
	}
}

func TestEntryIsInWholeSecondsUTC(t *testing.T) {
	zone := time.FixedZone("", 3600)
	token := Token{Principal: "alice", Issued: start.In(zone), Expires: start.Add(time.Hour + 999*time.Millisecond).In(zone), RenewBy: start.Add(time.Minute + time.Millisecond).In(zone)}
	if got, want := token.entry(), (entry{Principal: "alice", Issued: start, Expires: start.Add(time.Hour), RenewBy: start.Add(time.Minute)}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSecretTextShowsNowhere(t *testing.T) {
	const secret = "hunter2"
	text := credential.Text(secret)
	token := Token{Auth: text, Principal: "alice"}
	whose := credential.Credential{AccessKeyID: "AKIA", SecretAccessKey: text, SessionToken: text, ExternalID: text}
	request := TokenRequest{Credential: whose}

	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T", "%10.3s", "%z"} {
		for _, value := range []any{text, &text, token, &token, whose, request, []credential.Text{text}, map[credential.Text]credential.Text{text: text}, fmt.Errorf("x: %v", text)} {
			shown[fmt.Sprintf("%s of %T", verb, value)] = fmt.Sprintf(verb, value)
		}
	}
	shown["Sprint"] = fmt.Sprint(text, token, whose, request)
	shown["Sprintln"] = fmt.Sprintln(text, &token, &whose, &request)
	encoded, err := json.Marshal(map[string]any{"text": text, "token": token, "request": &request})
	if err != nil {
		t.Fatal(err)
	}
	shown["JSON"] = string(encoded)
	for format, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog as JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"slog as text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).With("with", text).WithGroup("g").Info("x", "text", text, "token", token, "pointer", &token, "request", request, "list", []credential.Text{text})
		shown[format] = b.String()
	}
	for how, got := range shown {
		if strings.Contains(got, secret) || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", secret)) {
			t.Errorf("%s: %s", how, got)
		}
	}
	for _, how := range []string{"%v of credential.Text", "%q of credential.Text", "%#v of renewer.Token", "Sprint", "JSON", "slog as JSON", "slog as text"} {
		if !strings.Contains(shown[how], credential.Redacted) {
			t.Errorf("%s does not say that it was redacted: %s", how, shown[how])
		}
	}
}

func TestRenewByIsAfterTheIssue(t *testing.T) {
	if by := renewBy(start, start.Add(12*time.Hour), 0, start.Add(-time.Minute)); by.Before(start) {
		t.Errorf("by %s", by.Sub(start))
	}
}
