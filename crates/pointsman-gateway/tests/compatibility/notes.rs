//! What is to be said of fields and plugins that are not as in APISIX.

/// Fields that APISIX does not have: of what, which, and what is to be known.
pub(crate) const ADDED_PLUGIN_FIELDS: &[(&str, &str, &str)] = &[
    ("ai-proxy", "retry", ""),
    ("ai-proxy-multi", "retry", ""),
    ("ai-proxy", "strict_translation", ""),
    ("ai-proxy-multi", "strict_translation", ""),
    ("ai-proxy", "stream_idle_timeout_ms", ""),
    ("ai-proxy-multi", "stream_idle_timeout_ms", ""),
    ("ai-proxy", "first_token_timeout_ms", ""),
    ("ai-proxy-multi", "first_token_timeout_ms", ""),
    ("ai-proxy", "hold_stream_start", ""),
    ("ai-proxy-multi", "hold_stream_start", ""),
    ("ai-proxy", "typed_passthrough", ""),
    ("ai-proxy-multi", "typed_passthrough", ""),
    ("ai-proxy", "estimate_usage", ""),
    ("ai-proxy-multi", "estimate_usage", ""),
    ("ai-proxy", "protocol", ""),
    ("ai-proxy-multi", "instances[].protocol", ""),
    ("ai-proxy-multi", "instances[].context_length", ""),
    (
        "ai-proxy-multi",
        "instances[].checks.passive",
        "APISIX's schema refuses it for instances",
    ),
    (
        "ai-proxy-multi",
        "instances[].checks.active.reuse_connection",
        "",
    ),
    ("ai-proxy-multi", "cooldown", ""),
    ("ai-proxy-multi", "circuit_breaker", ""),
    ("ai-proxy-multi", "on_all_unhealthy", ""),
    ("upstream", "checks.active.reuse_connection", ""),
    ("route", "upstream.checks.active.reuse_connection", ""),
    ("service", "upstream.checks.active.reuse_connection", ""),
];

/// Fields, or whole subjects (with an empty path), that differ.
pub(crate) const DIFFERS: &[(&str, &str, &str)] = &[
    (
        "route",
        "upstream.checks.active",
        "probes begin when the configuration is published; without `healthy` or `unhealthy` it probes with the documented defaults",
    ),
    (
        "route",
        "upstream.checks.active.req_headers",
        "a line that is no header is an error",
    ),
    (
        "route",
        "upstream.checks.active.http_path",
        "blanks and control characters are errors",
    ),
    ("route", "upstream.retries", "never comes back to a node"),
    (
        "route",
        "upstream.service_name",
        "for `dns` alone, otherwise refused",
    ),
    (
        "route",
        "upstream.discovery_type",
        "`dns` alone, otherwise refused",
    ),
    (
        "service",
        "upstream.checks.active",
        "probes begin when the configuration is published; without `healthy` or `unhealthy` it probes with the documented defaults",
    ),
    (
        "service",
        "upstream.checks.active.req_headers",
        "a line that is no header is an error",
    ),
    (
        "service",
        "upstream.checks.active.http_path",
        "blanks and control characters are errors",
    ),
    ("service", "upstream.retries", "never comes back to a node"),
    (
        "service",
        "upstream.service_name",
        "for `dns` alone, otherwise refused",
    ),
    (
        "service",
        "upstream.discovery_type",
        "`dns` alone, otherwise refused",
    ),
    (
        "upstream",
        "checks.active",
        "probes begin when the configuration is published; without `healthy` or `unhealthy` it probes with the documented defaults",
    ),
    (
        "upstream",
        "checks.active.req_headers",
        "a line that is no header is an error",
    ),
    (
        "upstream",
        "checks.active.http_path",
        "blanks and control characters are errors",
    ),
    ("upstream", "retries", "never comes back to a node"),
    (
        "upstream",
        "service_name",
        "for `dns` alone, otherwise refused",
    ),
    (
        "upstream",
        "discovery_type",
        "`dns` alone, otherwise refused",
    ),
    ("route", "filter_func", "refused: Lua is out of scope"),
    ("route", "script", "refused: Lua is out of scope"),
    ("route", "script_id", "refused: Lua is out of scope"),
    (
        "ssl",
        "client.depth",
        "a certificate in `ca` ends the chain even if another has signed it",
    ),
    ("ssl", "ssl_protocols", "TLSv1.1 is left out with a warning"),
    (
        "ai-proxy-multi",
        "instances[].checks.active",
        "probes begin when the configuration is published; without `healthy` or `unhealthy` it probes with the documented defaults",
    ),
    (
        "ai-proxy-multi",
        "instances[].checks.active.req_headers",
        "a line that is no header is an error",
    ),
    (
        "ai-proxy-multi",
        "instances[].checks.active.http_path",
        "blanks and control characters are errors",
    ),
    (
        "ai-proxy-multi",
        "instances[].provider",
        "twenty more providers",
    ),
    ("ai-proxy", "provider", "twenty more providers"),
    (
        "ai-proxy-multi",
        "balancer.algorithm",
        "also `least_conn` and `ewma`",
    ),
    (
        "ai-proxy-multi",
        "max_retries",
        "no instance is tried twice by one request but for `retry`",
    ),
    (
        "ai-proxy-multi",
        "max_response_bytes",
        "a stream that it cuts ends with an aborted connection",
    ),
    (
        "ai-proxy-multi",
        "max_stream_duration_ms",
        "a stream that it cuts ends with an aborted connection",
    ),
    (
        "ai-proxy",
        "max_response_bytes",
        "a stream that it cuts ends with an aborted connection",
    ),
    (
        "ai-proxy",
        "max_stream_duration_ms",
        "a stream that it cuts ends with an aborted connection",
    ),
    ("jwt-auth", "store_in_ctx", "no effect"),
    (
        "openid-connect",
        "",
        "Only tokens that requests bring; the login of browsers is refused.",
    ),
    (
        "openid-connect",
        "unauth_action",
        "`auth` without `bearer_only` is refused",
    ),
    ("openid-connect", "session", "no effect"),
    ("openid-connect", "accept_none_alg", "`true` is refused"),
    ("openid-connect", "accept_unsupported_alg", "no effect"),
    ("openid-connect", "proxy_opts", "refused"),
    (
        "openid-connect",
        "introspection_endpoint_auth_method",
        "`client_secret_basic` and `client_secret_post` only",
    ),
    (
        "openid-connect",
        "claim_schema",
        "a keyword that would not be heeded is refused",
    ),
    (
        "basic-auth",
        "",
        "The first colon ends the name; passwords may have colons and blanks.",
    ),
    (
        "uri-blocker",
        "",
        "Paths are looked at as they were sent and as they are routed.",
    ),
    (
        "limit-req",
        "",
        "Counters go on over a reload that leaves the limit as it is.",
    ),
    (
        "limit-conn",
        "",
        "Counters go on over a reload that leaves the limit as it is.",
    ),
    (
        "key-auth",
        "hide_credentials",
        "removes the key from header and query",
    ),
    (
        "proxy-rewrite",
        "regex_uri",
        "what it leaves of a path stays in the path",
    ),
    (
        "prometheus",
        "",
        "Label values of `extra_labels` are cut to 128 bytes.",
    ),
];

/// Plugins of tiers 1 and 2 that are not built.
pub(crate) const ABSENT: &[(&str, &str)] = &[("kafka-logger", "not built yet")];

/// Plugins that are out of scope.
pub(crate) const OUT_OF_SCOPE: &[(&str, &str)] = &[
    (
        "serverless-pre-function, serverless-post-function",
        "Lua is out of scope",
    ),
    (
        "ext-plugin-pre-req, ext-plugin-post-req, ext-plugin-post-resp",
        "out of scope",
    ),
    (
        "grpc-transcode, grpc-web, dubbo-proxy, kafka-proxy, mqtt-proxy",
        "out of scope",
    ),
    (
        "batch-requests, public-api, node-status, server-info",
        "out of scope",
    ),
    (
        "skywalking, zipkin, and other tracers than opentelemetry",
        "out of scope",
    ),
];
