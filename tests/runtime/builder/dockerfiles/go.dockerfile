FROM --platform=${BUILDPLATFORM:-linux/amd64} golang:1.22-alpine as build
ARG TARGETOS TARGETARCH
ARG LDFLAGS="-s -w"
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -ldflags "$LDFLAGS -X 'main.version=$(git describe)'" -o /out/app ./cmd/...
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build ["/out/app", "/bin/app"]
LABEL org.opencontainers.image.title="an app" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.description="several \
words"
USER 65534:65534
ENTRYPOINT [ "/bin/app" ]
