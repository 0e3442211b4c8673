package fakeaws

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// What the SDK makes of each failure of GetAuthorizationToken.
func TestFailuresAsTheSDKReportsThem(t *testing.T) {
	type check func(t *testing.T, out *ecr.GetAuthorizationTokenOutput, err error)

	apiError := func(wantCode string, wantStatus int) check {
		return func(t *testing.T, _ *ecr.GetAuthorizationTokenOutput, err error) {
			response := (*smithyhttp.ResponseError)(nil)
			if code(err) != wantCode || !errors.As(err, &response) || response.HTTPStatusCode() != wantStatus {
				t.Errorf("error %v, want %d %s", err, wantStatus, wantCode)
			}
		}
	}
	errorWith := func(text string) check {
		return func(t *testing.T, _ *ecr.GetAuthorizationTokenOutput, err error) {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("error %v, want it to contain %q", err, text)
			}
		}
	}
	// data is for answers that the SDK takes for good.
	data := func(good func(token string, expires *time.Time, endpoint string) bool) check {
		return func(t *testing.T, out *ecr.GetAuthorizationTokenOutput, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if len(out.AuthorizationData) != 1 {
				t.Fatalf("%d tokens", len(out.AuthorizationData))
			}
			d := out.AuthorizationData[0]
			if !good(aws.ToString(d.AuthorizationToken), d.ExpiresAt, aws.ToString(d.ProxyEndpoint)) {
				t.Errorf("token of %d bytes, expires %v, endpoint %q", len(*d.AuthorizationToken), d.ExpiresAt, *d.ProxyEndpoint)
			}
		}
	}
	expires := func(good func(time.Time) bool) check {
		return data(func(token string, expires *time.Time, _ string) bool {
			_, err := decodePassword(token)
			return err == nil && good(*expires)
		})
	}

	tests := map[Mode]struct {
		failure Failure
		check   check
	}{
		Throttle: {Failure{RetryAfter: 2500 * time.Millisecond}, func(t *testing.T, out *ecr.GetAuthorizationTokenOutput, err error) {
			apiError("ThrottlingException", 400)(t, out, err)
			if response := (*smithyhttp.ResponseError)(nil); errors.As(err, &response) {
				if got := response.Response.Header.Get("Retry-After"); got != "3" {
					t.Errorf("Retry-After %q, want 3", got)
				}
			}
		}},
		AccessDenied: {check: apiError("AccessDeniedException", 400)},
		ExpiredToken: {check: apiError("ExpiredTokenException", 400)},
		ServerError:  {check: apiError("ServerException", 500)},
		Slow: {Failure{Hold: time.Millisecond}, data(func(token string, _ *time.Time, _ string) bool {
			_, err := decodePassword(token)
			return err == nil
		})},
		Reset:  {check: errorWith("EOF")},
		CutOff: {check: errorWith("unexpected EOF")},
		Malformed: {check: func(t *testing.T, _ *ecr.GetAuthorizationTokenOutput, err error) {
			if target := (*smithy.DeserializationError)(nil); !errors.As(err, &target) {
				t.Errorf("error %v, want a DeserializationError", err)
			}
		}},
		NoAuthorizationData: {check: func(t *testing.T, out *ecr.GetAuthorizationTokenOutput, err error) {
			if err != nil || len(out.AuthorizationData) != 0 {
				t.Errorf("answer %v, error %v", out, err)
			}
		}},
		NoToken: {check: func(t *testing.T, out *ecr.GetAuthorizationTokenOutput, err error) {
			if err != nil || out.AuthorizationData[0].AuthorizationToken != nil {
				t.Errorf("answer %v, error %v", out, err)
			}
		}},
		NotBase64: {check: data(func(token string, _ *time.Time, _ string) bool {
			_, err := decodePassword(token)
			return err != nil && strings.Contains(err.Error(), "illegal base64")
		})},
		NoUser: {check: data(func(token string, _ *time.Time, _ string) bool {
			_, err := decodePassword(token)
			return err != nil && strings.Contains(err.Error(), "no user AWS")
		})},
		ExpiresPast: {check: expires(func(e time.Time) bool { return e.Before(time.Now().Add(-59 * time.Minute)) })},
		ExpiresNull: {check: data(func(_ string, expires *time.Time, _ string) bool { return expires == nil })},
		Expires1970: {check: expires(func(e time.Time) bool { return e.Unix() == 0 })},
		Expires2099: {check: expires(func(e time.Time) bool { return e.Year() == 2099 })},
		ExpiresSoon: {check: expires(func(e time.Time) bool { return time.Until(e) <= 30*time.Second && time.Until(e) > 0 })},
		HugeToken: {check: data(func(token string, _ *time.Time, _ string) bool {
			password, err := decodePassword(token)
			return err == nil && len(password) > 2<<20
		})},
		HugeBody: {Failure{Size: 8 << 20}, expires(func(time.Time) bool { return true })},
		OtherAccount: {check: data(func(_ string, _ *time.Time, endpoint string) bool {
			return endpoint == "https://999999999999.dkr.ecr.eu-west-1.amazonaws.com"
		})},
		EndpointPath: {check: data(func(_ string, _ *time.Time, endpoint string) bool {
			return endpoint == "https://"+ownHost+"/v1/"
		})},
	}
	for _, mode := range Modes() {
		if mode == Hang {
			continue // TestHang
		}
		t.Run(string(mode), func(t *testing.T) {
			s := start(t, Options{})
			test, found := tests[mode]
			if !found {
				t.Fatal("no test")
			}
			test.failure.Mode = mode
			test.failure.Times = 1
			s.Fail(Filter{Operation: OperationToken}, test.failure)
			client := ecr.NewFromConfig(sdk(s, userKey(), region))
			out, err := client.GetAuthorizationToken(t.Context(), nil)
			test.check(t, out, err)
			mustToken(t, sdk(s, userKey(), region)) // Only once.
		})
	}
}

func TestFailuresOfPublicTokens(t *testing.T) {
	s := start(t, Options{})
	config := sdk(s, userKey(), "us-east-1")
	s.Fail(Filter{}, Failure{Mode: NoAuthorizationData, Times: 1})
	_, out, err := getPublicToken(t.Context(), config)
	ok(t, err)
	if out.AuthorizationData != nil {
		t.Errorf("answer %v", out)
	}
	s.Fail(Filter{}, Failure{Mode: ExpiresNull, Times: 1})
	_, out, err = getPublicToken(t.Context(), config)
	ok(t, err)
	if out.AuthorizationData.ExpiresAt != nil {
		t.Errorf("answer %v", out)
	}
	s.Fail(Filter{}, Failure{Mode: Throttle, Times: 1})
	if _, _, err = getPublicToken(t.Context(), config); code(err) != "ThrottlingException" {
		t.Errorf("error %v", err)
	}
}

func TestFailuresOfSTS(t *testing.T) {
	for mode, want := range map[Mode]string{
		Throttle:     "Throttling",
		AccessDenied: "AccessDenied",
		ExpiredToken: "ExpiredToken",
		ServerError:  "InternalFailure",
		CutOff:       "unexpected EOF",
		Malformed:    "XML syntax error",
		ExpiresNull:  "", // means nothing here
	} {
		s := start(t, Options{})
		s.Fail(Filter{}, Failure{Mode: mode})
		_, err := callerIdentity(t.Context(), sdk(s, userKey(), region))
		if got := code(err); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%s: error code %q, want %q", mode, got, want)
		}
	}
}

func TestHang(t *testing.T) {
	s := start(t, Options{})
	clear := s.Fail(Filter{}, Failure{Mode: Hang})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := getToken(ctx, sdk(s, userKey(), region))
		done <- err
	}()
	waitForCall(t, s)
	clear()
	mustToken(t, sdk(s, userKey(), region)) // Others are answered meanwhile.
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want a cancelled call", err)
	}
	if call := s.Calls()[0]; call.Status != 0 || call.ErrorCode != "hang" {
		t.Errorf("recorded %+v", call)
	}
}

func TestFailFilter(t *testing.T) {
	const otherARN = "arn:aws:iam::123456789012:user/other"
	calls := []struct{ key, region string }{
		{user.AccessKeyID, "eu-west-1"}, {user.AccessKeyID, "us-east-1"}, {"AKIAOTHER", "eu-west-1"}, {"AKIAOTHER", "us-east-1"},
	}
	for name, test := range map[string]struct {
		filter Filter
		times  int
		want   []bool // which calls fail, the second round included
	}{
		"all":                {Filter{}, 0, []bool{true, true, true, true, true, true, true, true}},
		"three times":        {Filter{}, 3, []bool{true, true, true, false, false, false, false, false}},
		"identity":           {Filter{Principal: otherARN}, 0, []bool{false, false, true, true, false, false, true, true}},
		"region":             {Filter{Region: "us-east-1"}, 0, []bool{false, true, false, true, false, true, false, true}},
		"region, once":       {Filter{Region: "us-east-1"}, 1, []bool{false, true, false, false, false, false, false, false}},
		"identity in region": {Filter{Principal: otherARN, Region: "us-east-1"}, 0, []bool{false, false, false, true, false, false, false, true}},
		"another operation":  {Filter{Operation: OperationAssumeRole}, 0, make([]bool, 8)},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, Options{})
			ok(t, s.AddUser(User{Name: otherARN, AccessKeyID: "AKIAOTHER", SecretAccessKey: user.SecretAccessKey}))
			clear := s.Fail(test.filter, Failure{Mode: Throttle, Times: test.times})
			var got []bool
			for range 2 {
				for _, call := range calls {
					_, _, err := getToken(t.Context(), sdk(s, static(call.key, user.SecretAccessKey, ""), call.region))
					got = append(got, err != nil)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("failed %v, want %v", got, test.want)
			}
			clear()
			for _, call := range calls {
				mustToken(t, sdk(s, static(call.key, user.SecretAccessKey, ""), call.region))
			}
		})
	}
}

func TestOldestFailureFirst(t *testing.T) {
	s := start(t, Options{})
	s.Fail(Filter{}, Failure{Mode: Throttle, Times: 1})
	heal := s.Fail(Filter{}, Failure{Mode: ServerError})
	for _, want := range []string{"ThrottlingException", "ServerException", "ServerException"} {
		if _, _, err := getToken(t.Context(), sdk(s, userKey(), region)); code(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	heal()
	mustToken(t, sdk(s, userKey(), region))
}

func TestAModeThatMeansNothingIsKept(t *testing.T) {
	s := start(t, Options{})
	s.Fail(Filter{}, Failure{Mode: NoUser, Times: 1})
	_, err := callerIdentity(t.Context(), sdk(s, userKey(), region))
	ok(t, err)
	if _, _, err := getToken(t.Context(), sdk(s, userKey(), region)); err == nil {
		t.Error("token has its user")
	}
}

func TestAWrongSignatureIsNoFailure(t *testing.T) {
	s := start(t, Options{})
	s.Fail(Filter{}, Failure{Mode: Throttle, Times: 1})
	_, _, err := getToken(t.Context(), sdk(s, static(user.AccessKeyID, "wrong", ""), region))
	if got := code(err); got != "InvalidSignatureException" {
		t.Errorf("error code %q", got)
	}
	if _, _, err = getToken(t.Context(), sdk(s, userKey(), region)); code(err) != "ThrottlingException" {
		t.Errorf("error %v", err)
	}
}

func TestUnknownModePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Options{}).Fail(Filter{}, Failure{Mode: "no-such"})
}

// Error documents as the services write them.
func TestErrorDocuments(t *testing.T) {
	f := faultThrottled(0)
	var document map[string]string
	ok(t, json.Unmarshal(f.body(wireJSON, "id"), &document))
	if document["__type"] != "ThrottlingException" || document["message"] != "Rate exceeded" {
		t.Errorf("JSON is %v", document)
	}
	want := `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>Throttling</Code>` +
		`<Message>Rate exceeded</Message></Error><RequestId>id</RequestId></ErrorResponse>`
	if got := f.body(wireQuery, "id"); !bytes.Equal(got, []byte(want)) {
		t.Errorf("XML is %s, want %s", got, want)
	}
	if got := string(faultInternal().body(wireQuery, "id")); !strings.Contains(got, "<Type>Receiver</Type>") {
		t.Errorf("XML is %s", got)
	}
}

func TestTooLargeARequestIsRefused(t *testing.T) {
	s := start(t, Options{})
	response, err := tampering(func(*http.Request) {}).Post(s.URL(), "text/plain", bytes.NewReader(make([]byte, maxBody+1)))
	ok(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", response.StatusCode)
	}
}
