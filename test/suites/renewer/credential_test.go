package renewer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pullpass/pullpass/test/harness/fakeaws"
	"github.com/pullpass/pullpass/test/harness/fixture"
)

// TestOneOfTwoRegistriesFails labels a namespace with two registries and lets
// AWS refuse the token of one.
func TestOneOfTwoRegistriesFails(t *testing.T) {
	w := world(t, nil)
	alice, bob := w.User("alice"), w.User("bob")
	w.Credential(hostA, fixture.Keys(alice))
	w.Credential(hostB, fixture.Keys(bob))
	heal := w.AWS.Fail(fakeaws.Filter{Principal: bob.ARN()}, fakeaws.Failure{Mode: fakeaws.AccessDenied})
	renewer := w.Renewer()
	namespace := w.Namespace(hostA, hostB)
	w.WaitSecret(namespace, hostA)
	w.WaitEvent(namespace, "TokenFailed", hostB)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	heal()
	w.WaitSecret(namespace, hostA, hostB)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "ready")
	w.NoSecretsShown(renewer)
}

// TestOneCallForTwoAccounts gives two accounts of one region the same identity,
// in many namespaces.
func TestOneCallForTwoAccounts(t *testing.T) {
	const other = "333333333333.dkr.ecr.us-east-1.amazonaws.com"
	w := world(t, nil)
	alice := w.User("alice")
	w.Credential(hostA, fixture.Keys(alice))
	w.Credential(other, fixture.Keys(alice))
	var namespaces []string
	for range 10 {
		namespaces = append(namespaces, w.Namespace(hostA, other))
	}
	w.Renewer()
	for _, namespace := range namespaces {
		w.WaitSecret(namespace, hostA, other)
	}
	w.WaitSecret(w.Namespace(other), other)
	w.Settle()
	if n := w.TokenCalls("", ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens, want 1", n)
	}
}

// TestCredentialsComeRotateAndGo creates a credential after the label, replaces
// it, and deletes it.
func TestCredentialsComeRotateAndGo(t *testing.T) {
	w := world(t, nil)
	renewer := w.Renewer()
	namespace := w.Namespace(hostA)
	w.WaitEvent(namespace, "NoCredentials", "pullpass-aws-credentials-"+hostA)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")

	w.Credential(hostA, map[string]string{"aws_access_key_id": "AKIAHALF"})
	w.WaitEvent(namespace, "TokenFailed", "holds aws_access_key_id without aws_secret_access_key")

	w.Credential(hostA, fixture.Keys(w.User("alice")))
	first := w.WaitSecret(namespace, hostA)

	bob := w.User("bob")
	w.Credential(hostA, fixture.Keys(bob))
	second := w.WaitOtherToken(namespace, hostA, first)
	if n := w.TokenCalls(bob.ARN(), ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens by the new identity, want 1", n)
	}
	if first.UID != second.UID {
		t.Error("the secret was made anew")
	}

	// Its deletion does not wait for somebody's finalizer.
	finalizers := func(list string) {
		_, err := w.Client.CoreV1().Secrets(w.Release.Namespace).Patch(t.Context(), "pullpass-aws-credentials-"+hostA, types.MergePatchType,
			[]byte(`{"metadata":{"finalizers":`+list+`}}`), metav1.PatchOptions{})
		w.Must(err)
	}
	finalizers(`["pullpass.dev/test"]`)
	w.DeleteCredential(hostA)
	w.WaitNoSecret(namespace)
	finalizers(`null`)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	w.NoSecretsShown(renewer)
}

// TestABadRotationIsTold replaces good keys by some that AWS does not know. The
// good token stays, and everybody is told at once.
func TestABadRotationIsTold(t *testing.T) {
	w := world(t, nil)
	renewer := w.Renewer()
	w.Credential(hostA, fixture.Keys(w.User("alice")))
	namespace := w.Namespace(hostA)
	before := w.WaitSecret(namespace, hostA)
	expiry := func() float64 {
		t.Helper()
		value, err := renewer.Metric(t.Context(), "pullpass_registry_token_expiry_timestamp_seconds", "registry", hostA)
		w.Must(err)
		return value
	}
	good := expiry()

	w.Credential(hostA, map[string]string{"aws_access_key_id": "AKIAUNKNOWN", "aws_secret_access_key": "of-nobody"})
	w.WaitEvent(namespace, "TokenFailed", "UnrecognizedClientException")
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "failed")
	if got := expiry(); got != good {
		t.Errorf("the registry's token expires at %v, want as before at %v", got, good)
	}
	if after := w.Secret(namespace); after.ResourceVersion != before.ResourceVersion {
		t.Error("the good entry was touched")
	}

	w.Credential(hostA, fixture.Keys(w.User("bob")))
	w.WaitOtherToken(namespace, hostA, before)
	w.WaitMetric(renewer, 1, "pullpass_namespaces", "state", "ready")
}

// TestEveryRegistryInTroubleIsTold labels a namespace with many registries that
// there are no credentials for, and then has another kind of trouble.
func TestEveryRegistryInTroubleIsTold(t *testing.T) {
	w := world(t, nil)
	w.Renewer()
	namespace := w.Namespace()
	labels := map[string]string{}
	for i := range 40 {
		labels[fmt.Sprintf("%012d.dkr.ecr.us-east-1.amazonaws.com", i)] = "true"
	}
	w.label(namespace, labels)
	for host := range labels {
		w.WaitEvent(namespace, "NoCredentials", "registry "+host)
	}
	const bad = "000000000007.dkr.ecr.us-east-1.amazonaws.com"
	w.Credential(bad, map[string]string{"aws_access_key_id": "AKIAUNKNOWN", "aws_secret_access_key": "of-nobody"})
	w.WaitEvent(namespace, "TokenFailed", "registry "+bad)
}

// TestEatrSecrets runs on the credential secrets of an eatr installation.
func TestEatrSecrets(t *testing.T) {
	w := world(t, map[string]any{"credentials": map[string]any{"secretPrefix": "eatr-aws-credentials"}})
	alice := w.User("alice")
	w.CredentialNamed("eatr-aws-credentials-"+hostA, map[string]string{
		"aws_access_key_id":     alice.AccessKeyID + "\n",
		"aws_secret_access_key": alice.SecretAccessKey + "\n",
		"aws_region":            "us-east-1\n",
	})
	w.Renewer()
	w.WaitSecret(w.Namespace(hostA), hostA)
}

// TestAssumedRole gives two registries roles: one assumed with keys and an
// external id, one with the default chain.
func TestAssumedRole(t *testing.T) {
	w := world(t, nil)
	alice, carol := w.User("alice"), w.User("carol")
	puller := fakeaws.Role{ARN: "arn:aws:iam::111111111111:role/puller", TrustedPrincipals: []string{alice.ARN()}, ExternalID: "cluster-7", MayPull: []string{"111111111111"}}
	reader := fakeaws.Role{ARN: "arn:aws:iam::222222222222:role/reader", TrustedPrincipals: []string{carol.ARN()}, MayPull: []string{"222222222222"}}
	w.Must(w.AWS.AddRole(puller))
	w.Must(w.AWS.AddRole(reader))

	keys := fixture.Keys(alice)
	keys["aws_role_arn"], keys["aws_external_id"] = puller.ARN, puller.ExternalID
	w.Credential(hostA, keys)
	w.Credential(hostB, map[string]string{"aws_role_arn": reader.ARN})
	w.RenewerWith([]string{"AWS_ACCESS_KEY_ID=" + carol.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + carol.SecretAccessKey})
	w.WaitSecret(w.Namespace(hostA, hostB), hostA, hostB)
	for _, arn := range []string{puller.ARN, reader.ARN} {
		if n := w.TokenCalls(arn, ""); n != 1 {
			t.Errorf("AWS was asked for %d tokens by %s, want 1", n, arn)
		}
	}

	keys["aws_external_id"] = "cluster-8"
	w.Credential(hostA, keys)
	namespace := w.Namespace(hostA)
	w.WaitEvent(namespace, "TokenFailed", "AssumeRole: AccessDenied")
}

// TestSessionToken uses temporary keys.
func TestSessionToken(t *testing.T) {
	w := world(t, nil)
	session, err := w.AWS.IssueSession(w.User("alice").ARN(), time.Hour)
	w.Must(err)
	w.Credential(hostA, map[string]string{
		"aws_access_key_id":     session.AccessKeyID,
		"aws_secret_access_key": session.SecretAccessKey,
		"aws_session_token":     session.SessionToken,
	})
	renewer := w.Renewer()
	w.WaitSecret(w.Namespace(hostA), hostA)
	w.NoSecretsShown(renewer)
}

// TestDefaultCredentials takes the environment's keys where there is no secret,
// and the secret where there is one.
func TestDefaultCredentials(t *testing.T) {
	w := world(t, map[string]any{"credentials": map[string]any{"default": true}})
	alice, bob := w.User("alice"), w.User("bob")
	w.Credential(hostB, fixture.Keys(bob))
	w.RenewerWith([]string{"AWS_ACCESS_KEY_ID=" + alice.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + alice.SecretAccessKey})
	namespace := w.Namespace(hostA, hostB)
	first := w.WaitSecret(namespace, hostA, hostB)
	for _, c := range []struct{ principal, region string }{{alice.ARN(), "us-east-1"}, {bob.ARN(), "eu-west-1"}} {
		if n := w.TokenCalls(c.principal, c.region); n != 1 {
			t.Errorf("AWS was asked for %d tokens by %s in %s, want 1", n, c.principal, c.region)
		}
	}
	w.DeleteCredential(hostB)
	w.WaitOtherToken(namespace, hostB, first)
}

// TestWebIdentity exchanges the token that the API server gives the renewer's
// ServiceAccount for a role's credentials.
func TestWebIdentity(t *testing.T) {
	w := world(t, map[string]any{"credentials": map[string]any{"default": true}})
	account, err := w.Release.AccountConfig(t.Context(), "renewer")
	w.Must(err)
	review, err := w.Client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: account.BearerToken},
	}, metav1.CreateOptions{})
	w.Must(err)
	subject := review.Status.User.Username
	parts := strings.Split(subject, ":")
	token, err := w.Client.CoreV1().ServiceAccounts(w.Release.Namespace).CreateToken(t.Context(), parts[len(parts)-1], &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"sts.amazonaws.com"}},
	}, metav1.CreateOptions{})
	w.Must(err)
	role := fakeaws.Role{
		ARN:         "arn:aws:iam::111111111111:role/web",
		WebIdentity: []fakeaws.WebIdentity{{Issuer: w.Cluster.Issuer(), Subject: subject}},
		MayPull:     []string{"*"},
	}
	w.Must(w.AWS.AddIssuer(w.Cluster.Issuer(), w.Cluster.ServiceAccountSigningKey()))
	w.Must(w.AWS.AddRole(role))
	w.RenewerWith([]string{"AWS_ROLE_ARN=" + role.ARN, "AWS_WEB_IDENTITY_TOKEN_FILE=" + w.TempFile("token", token.Status.Token)})
	w.WaitSecret(w.Namespace(hostA), hostA)
	if n := w.TokenCalls(role.ARN, ""); n != 1 {
		t.Errorf("AWS was asked for %d tokens by the role, want 1", n)
	}
}

// TestNoCredentialsAtAll runs on the default chain where there is nothing in it.
// The metadata service of EC2 is not asked for what is missing.
func TestNoCredentialsAtAll(t *testing.T) {
	w := world(t, map[string]any{"credentials": map[string]any{"default": true}})
	var asked atomic.Int32
	metadata := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer metadata.Close()
	w.RenewerWith([]string{"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + metadata.URL})
	w.WaitEvent(w.Namespace(hostA), "TokenFailed", "getting AWS credentials")
	if n := asked.Load(); n != 0 {
		t.Errorf("the metadata service was asked %d times", n)
	}
}
