# syntax=docker/dockerfile:1
# Wattgate with its default local model, run as a user without rights.
#
#     docker build -t wattgate . && docker run --rm -p 127.0.0.1:8080:8080 -e OPENAI_API_KEY wattgate
#
# The model is pulled while building, so that the image needs neither Python nor a network to answer locally.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends clang cmake libclang-dev python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --profile dist --locked \
 && cp /target/dist/wattgate /usr/local/bin/
RUN wattgate models pull --config config.toml

FROM debian:bookworm-slim
# libgomp1 and libstdc++6 carry llama.cpp; ca-certificates lets cloud models be reached.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/wattgate wattgate \
 && install -d -o wattgate -g wattgate /var/lib/wattgate/data
COPY --from=build /usr/local/bin/wattgate /usr/local/bin/
# Mount another config over /var/lib/wattgate/config.toml; its relative paths (models, data) start here.
WORKDIR /var/lib/wattgate
COPY --from=build /src/models models
COPY config.toml .
USER wattgate
VOLUME /var/lib/wattgate/data
EXPOSE 8080
HEALTHCHECK --interval=10s --start-period=30s CMD ["wattgate", "check", "--ready"]
ENTRYPOINT ["wattgate"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
