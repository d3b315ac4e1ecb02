# syntax=docker/dockerfile:1

# Kvorum in an image: built by Rust's own image, run on a slim Debian by a user without rights.
#
#   docker build -t kvorum .
#   docker run --rm -p 127.0.0.1:6379:6379 kvorum
#
# A cluster of three: compose.yaml.

FROM rust:1.95-slim-bookworm AS build

# jemalloc is built from C with make; BLAKE3 has parts in C and assembly.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .

# Names stay for panics; line tables would make the image twice as large.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo

# The registry and the built crates are kept between builds, outside the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin kvorum \
    && cp target/release/kvorum /usr/local/bin/kvorum

FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="Kvorum" \
      org.opencontainers.image.description="A leaderless key-value store that speaks the Redis protocol" \
      org.opencontainers.image.licenses="Apache-2.0"

# The numbers are fixed, so that a volume keeps its owner from image to image.
RUN groupadd --gid 10001 kvorum \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin kvorum \
    && install --directory --owner=kvorum --group=kvorum --mode=0700 /data

COPY --from=build /usr/local/bin/kvorum /usr/local/bin/kvorum
COPY LICENSE /usr/share/doc/kvorum/LICENSE

# Inside a container every address is the container's own; publish ports with care, and set
# KVORUM_REQUIREPASS and KVORUM_SECRET where others can reach them.
ENV KVORUM_BIND=0.0.0.0 \
    KVORUM_DATA_DIR=/data

# The number of the node's life is kept here. Values are not: they live in memory.
VOLUME /data
WORKDIR /data
USER kvorum

# Clients, and the other nodes.
EXPOSE 6379 16379

# SIGTERM (docker stop) ends a node in order: requests under way are answered first.
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 \
    CMD ["kvorum", "health"]

ENTRYPOINT ["kvorum"]
CMD ["server"]
