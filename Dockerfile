# syntax=docker/dockerfile:1
# A static binary on an empty image. The build lines work on any machine with Rust: they need no container.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# crt-static links the C library in; naming the target keeps that flag away from build scripts and macros.
RUN RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package meshupgrade-operator --target "$(rustc --print host-tuple)"
RUN install -D "target/$(rustc --print host-tuple)/release/meshupgrade-operator" out/meshupgrade-operator

FROM scratch
COPY --from=build /src/out/meshupgrade-operator /meshupgrade-operator
# For Azure. Metric sources with https have authorities of their own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/meshupgrade-operator"]
