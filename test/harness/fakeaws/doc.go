// Package fakeaws is a fake of the parts of AWS that pulling an image
// from ECR takes: ECR and ECR Public GetAuthorizationToken, STS AssumeRole,
// AssumeRoleWithWebIdentity and GetCallerIdentity, and the registries
// themselves. One server speaks all of it, with the services' wire format, on
// the loopback address.
//
// It is strict where AWS is: every signed call's SigV4 signature is computed
// again from the secret key it was given, and a registry opens to exactly the
// tokens that were issued for its region and to principals that may pull from
// it, until they expire. So a pull with a secret's password proves the secret.
//
//	server := fakeaws.New(fakeaws.Options{})
//	err := server.Start(ctx)
//	defer server.Close()
//	err = server.AddUser(fakeaws.User{Name: "ci", AccessKeyID: "AKIA…", SecretAccessKey: "…"})
//	cmd.Env = append(os.Environ(), server.Environment()...)
//	…
//	n := server.Count(fakeaws.Filter{Operation: fakeaws.OperationToken, Region: "eu-west-1"})
//
// A call goes through these steps:
//
//	ServeHTTP → operationOf → authenticate → takeFailure → answer → record
//
// A process under test reaches it in one of two ways. Environment names its
// address as the SDK's endpoint, whatever the region; the region is then read
// from the signature. The SDK refuses to combine that with FIPS or dual-stack
// endpoints, so for those ProxyEnvironment makes the fake AWS the process's
// HTTPS proxy, which answers for the real host names with certificates of its
// own authority.
//
// It is no general AWS emulator: there are no policies but "may pull" and
// "may assume", and it reaches no network.
package fakeaws
