//! Where providers are if a configuration does not say.

use std::net::{Ipv4Addr, SocketAddr};

use crate::support::{
    CHAT, Gateway, NameServer, SecureUpstream, Start, client::Response, post_json,
};

const HOSTS: [(&str, &str); 6] = [
    ("openai", "api.openai.com"),
    ("deepseek", "api.deepseek.com"),
    ("aimlapi", "api.aimlapi.com"),
    ("openrouter", "openrouter.ai"),
    ("gemini", "generativelanguage.googleapis.com"),
    ("anthropic", "api.anthropic.com"),
];

/// P-036: without an endpoint, providers are asked at their own host and at 443, which are SNI and
/// `Host`, too; what they answer is passed on. Whoever may not listen at 443 sees the address only.
#[test]
fn providers_have_their_own_hosts() {
    let address = Ipv4Addr::new(127, 0, 0, 36);
    let upstream = SecureUpstream::start_at(SocketAddr::from((address, 443)), 401);
    let names = NameServer::start();
    let routes = HOSTS.map(|(provider, host)| {
        names.point(host, &[address]);
        format!(
            "{{id: {provider}, uri: /{provider}, plugins: {{ai-proxy: {{provider: {provider}, \
             ssl_verify: false, auth: {{header: {{Authorization: Bearer k}}}}}}}}}}"
        )
    });
    let gateway = Gateway::start_with(Start {
        document: &format!("routes: [{}]", routes.join(", ")),
        apisix: &names.settings(),
        ..Start::default()
    });
    for (number, (provider, host)) in HOSTS.into_iter().enumerate() {
        let response: Response = post_json(gateway.proxy, &format!("/{provider}"), CHAT);
        let line = gateway.access_log(number + 1).remove(number);
        assert_eq!(line["upstream_addr"], format!("{host}:443"));
        let asked = names.asked(host);
        assert!(!asked.is_empty(), "{provider}: {asked:?}");
        if let Ok(upstream) = &upstream {
            assert_eq!(response.status, 401, "{provider}: {}", response.text());
            let seen = (Some(host.to_owned()), host.to_owned());
            assert!(upstream.seen().contains(&seen), "{:?}", upstream.seen());
        } else {
            assert_eq!(response.status, 500, "{provider}: {}", response.text());
        }
    }
}
