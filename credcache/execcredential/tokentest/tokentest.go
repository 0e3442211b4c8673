// Package tokentest makes tokens of EKS for tests, whose signature is wrong.
package tokentest

import (
	"encoding/base64"
	"time"

	"github.com/pullpass/pullpass/credcache/execcredential"
)

// Token is a token that was signed with a key at a time.
func Token(key string, at time.Time) execcredential.Token {
	at = at.UTC()
	return execcredential.Token(execcredential.TokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(
		"https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256"+
			"&X-Amz-Credential="+key+"%2F"+at.Format("20060102")+"%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date="+at.Format("20060102T150405Z")+
			"&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Signature=00")))
}
