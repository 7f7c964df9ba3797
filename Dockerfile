# docker build -t pointsman . && docker run -p 9080:9080 -v "$PWD/conf:/conf:ro" pointsman
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake make gcc g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package pointsman

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* && useradd --system --no-create-home pointsman \
    && mkdir /logs && chown pointsman /logs
COPY --from=build /src/target/release/pointsman /usr/local/bin/pointsman
USER pointsman
EXPOSE 9080 9443
ENTRYPOINT ["pointsman"]
CMD ["run", "--config", "/conf/config.yaml"]
