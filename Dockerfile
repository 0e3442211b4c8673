# Both servers in one image, as /renewer and /webhook.
#
#   docker build --build-arg VERSION=v0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag pullpass .
#   docker run --rm pullpass /renewer --help
#
# The same source, Go version and VERSION give the same programs, byte for byte.

ARG GO_VERSION=1.26.8

# The compiler runs on the machine's own platform, whatever the image's is.
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
# The image's Go, and no other.
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
COPY renewer renewer
COPY webhook webhook
ARG VERSION
ARG TARGETOS TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/pullpass/pullpass/internal/version.version=$VERSION" \
    -o /out/ ./cmd/renewer ./cmd/webhook

# No shell, no libraries, no users: the programs and the authorities that AWS's
# certificates are checked against.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/renewer /out/webhook /
USER 65532:65532
# No entrypoint: neither program is the default. The chart names one.
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="pullpass" \
      org.opencontainers.image.description="Label a namespace with an ECR registry's host name, and its pods pull from that registry." \
      org.opencontainers.image.source="https://github.com/pullpass/pullpass" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://github.com/pullpass/pullpass" \
      org.opencontainers.image.documentation="https://github.com/pullpass/pullpass#readme" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
