//! Providers that are asked about tokens, fail, or are configured wrongly.

use super::*;

/// G-128: the provider is asked, and what it says is kept as long as the token is good.
#[test]
fn a_provider_is_asked_about_tokens() {
    let upstream = target();
    let provider = Provider::start(&[]);
    provider.set(|says| says.introspection = introspection);
    let endpoint = format!("http://{}/introspect", provider.server.address);
    let in_form = json!({"introspection_endpoint": endpoint, "client_id": "m&e",
        "introspection_endpoint_auth_method": "client_secret_post",
        "introspection_expiry_claim": "lasts", "introspection_addon_headers": ["X-Tenant"]});
    let scoped = json!({"required_scopes": ["b"]});
    let each = [
        ("/x", provider.plugin(json!({}))),
        ("/form", provider.plugin(in_form)),
        ("/scoped", provider.plugin(scoped)),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    let asked = || provider.asked("/introspect");

    assert_eq!(status(&gateway, "/x", "good"), 200);
    assert_eq!(userinfo(&upstream.last())["sub"], "al");
    assert_eq!(upstream.last().header("x-access-token"), Some("good"));
    let question = provider.last("/introspect");
    assert_eq!(question.method, "POST");
    assert_eq!(question.text(), "token=good");
    let basic = BASE64_STANDARD.encode("me:client%20secret%3A1");
    assert_eq!(
        question.header("authorization"),
        Some(format!("Basic {basic}").as_str())
    );
    let kind = Some("application/x-www-form-urlencoded");
    assert_eq!(question.header("content-type"), kind);
    assert_eq!(status(&gateway, "/x", "good"), 200);
    assert_eq!(
        status(&gateway, "/scoped", "good"),
        403,
        "it is shared, too"
    );
    assert_eq!(asked(), 1);
    assert_eq!(provider.asked(DISCOVERY), 1);

    what_is_not_good_is_asked_about_again(&gateway, &provider);
    let before = asked();
    let ask = |tenant: &str| {
        let headers = [("Authorization", "Bearer counted"), ("X-Tenant", tenant)];
        get(gateway.proxy, "/form", &headers).status
    };
    assert_eq!((ask("t1"), ask("t1")), (200, 200));
    assert_eq!(asked(), before + 1);
    let question = provider.last("/introspect");
    let form = "token=counted&client_id=m%26e&client_secret=client%20secret%3A1";
    assert_eq!(question.text(), form);
    assert_eq!(question.header("authorization"), None);
    assert_eq!(question.header("x-tenant"), Some("t1"));
    assert_eq!(ask("t2"), 200);
    assert_eq!(asked(), before + 2, "the answer may depend on it");

    provider.set(|says| says.introspection = |_| Answer::status(503, ""));
    let told = refusal(&bearer(&gateway, "/x", "another"));
    assert_eq!(told, invalid("the introspection endpoint answered 503"));
    assert_eq!(status(&gateway, "/x", "good"), 200, "known still");
    let said = gateway.stderr();
    assert!(
        !said.contains("client secret") && !said.contains(&basic),
        "{said}"
    );
}

/// What fails is told, holds nobody else up, and is over when the provider is back.
#[test]
fn a_provider_that_does_not_work_lets_nobody_in() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    let keys = jwks(&[("one", &signer)]);
    let each = [
        (
            "/x",
            provider.plugin(json!({"use_jwks": true, "timeout": 1})),
        ),
        ("/open", json!({})),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    let good = token(&signer, "ES256", "one", json!({}));
    let told = || refusal(&bearer(&gateway, "/x", &good));
    let wait_for = |what: &str| {
        let what = invalid(&format!("the {what}"));
        wait_until("what is told", || (told() == what).then_some(()));
    };
    provider.set(|says| says.discovery = Some(Answer::status(500, "{}")));
    wait_for("discovery document answered 500");
    provider.set(|says| says.discovery = Some(Answer::json("nothing")));
    wait_for("discovery document answered something else than expected");
    // No such document, so it is not believed for an hour.
    let before = provider.asked(DISCOVERY);
    provider.set(|says| says.discovery = Some(Answer::json("{}")));
    wait_until("another look", || {
        told();
        (provider.asked(DISCOVERY) > before).then_some(())
    });
    provider.set(|says| says.discovery = None);
    provider.set(|says| {
        says.keys = Answer::json(&format!("{{\"keys\":[\"{}\"]}}", "k".repeat(300_000)))
    });
    wait_for("jwks_uri of the discovery document answered too much");
    provider.set(|says| says.keys = Answer::json(r#"{"keys":1}"#));
    wait_for("jwks_uri of the discovery document answered something else than expected");
    provider.set(|says| says.keys = Answer::Silence);
    let before = provider.asked("/jwks");
    std::thread::scope(|scope| {
        scope.spawn(|| wait_for("jwks_uri of the discovery document took too long"));
        wait_until("a call without an answer", || {
            (provider.asked("/jwks") > before).then_some(())
        });
        assert_eq!(
            get(gateway.proxy, "/open", &[]).status,
            200,
            "the one worker is free"
        );
    });
    provider.set(|says| says.keys = keys);
    wait_until("the keys", || {
        (status(&gateway, "/x", &good) == 200).then_some(())
    });
    gateway.wait_for_line("the identity provider answers again");
}

/// What cannot work is told when it is loaded.
#[test]
fn what_cannot_work_is_refused() {
    let (upstream, provider) = (target(), Provider::start(&[]));
    let session = json!({"secret": "sixteen letters."});
    let browser = json!({"bearer_only": false, "session": session});
    let idle = json!({"bearer_only": false, "session": session, "unauth_action": "pass"});
    let wrong: &[(Value, &str)] = &[
        (json!({"discovery": 1}), "discovery"),
        (
            json!({"discovery": "ftp://a"}),
            "the scheme must be http or https",
        ),
        (
            json!({"introspection_endpoint": "http://"}),
            "introspection_endpoint: it has no host",
        ),
        (
            json!({"client_secret": null}),
            "property \"client_secret\" is required",
        ),
        (
            json!({"bearer_only": false, "unauth_action": "deny", "use_jwks": true}),
            "property \"session.secret\" is required when \"bearer_only\" is false",
        ),
        (browser, "the login of browsers"),
        (idle, "sessions are not supported"),
        (
            json!({"introspection_endpoint_auth_method": "private_key_jwt"}),
            "`private_key_jwt` is not supported",
        ),
        (
            json!({"token_signing_alg_values_expected": "HS256"}),
            "`HS256` is no algorithm",
        ),
        (
            json!({"public_key": "none"}),
            "public_key is no public key in PEM",
        ),
        (json!({"accept_none_alg": true}), "accept_none_alg: anybody"),
        (
            json!({"proxy_opts": {"http_proxy": "http://a"}}),
            "proxy_opts: proxies",
        ),
        (
            json!({"claim_schema": {"not": {}}}),
            "the keyword not is not supported",
        ),
        (
            json!({"introspection_addon_headers": ["Host"]}),
            "`Host` belongs to the connection",
        ),
        (
            json!({"unauth_action": "ask"}),
            "matches none of the enum values",
        ),
        (json!({"realm": "\u{7}"}), "realm cannot stand in a header"),
    ];
    for (more, expected) in wrong {
        let folder = tempfile::tempdir().expect("a folder");
        write_config(folder.path(), "", "");
        let document = document(&upstream, &[("/x", provider.plugin(more.clone()))]);
        write_document(folder.path(), &document);
        let config = folder.path().join("config.yaml");
        let (code, _, told) = run(&["check", "--config", &config.to_string_lossy()]);
        assert_eq!(code, Some(1), "{expected}: {told}");
        assert!(told.contains(expected), "{expected}: {told}");
        assert!(!told.contains(CLIENT_SECRET), "{told}");
    }
    assert_eq!(provider.server.hits(), 0);
}

/// What the stand-in says of tokens.
fn introspection(received: &Received) -> Answer {
    let form = received.text();
    let has = |token: &str| {
        form.contains(&format!("token={token}&")) || form.ends_with(&format!("token={token}"))
    };
    let exp = now_s() + 3600;
    Answer::json(&match () {
        () if has("good") => {
            format!(r#"{{"active":true,"sub":"al","exp":{exp},"scope":"a"}}"#)
        }
        () if has("short") => r#"{"active":true}"#.to_owned(),
        () if has("counted") => r#"{"active":true,"lasts":3600}"#.to_owned(),
        () if has("a%20b%26c") => format!(r#"{{"active":true,"exp":{exp}}}"#),
        () if has("odd") => r#"{"active":"true"}"#.to_owned(),
        () if has("none") => "[]".to_owned(),
        () => r#"{"active":false}"#.to_owned(),
    })
}

fn what_is_not_good_is_asked_about_again(gateway: &Gateway, provider: &Provider) {
    let asked = || provider.asked("/introspect");
    for (count, token) in [(2, "bad"), (3, "bad")] {
        let told = refusal(&bearer(gateway, "/x", token));
        assert_eq!(told, invalid("the token is not active"));
        assert_eq!(asked(), count, "what is bad is not remembered");
    }
    assert_eq!(status(gateway, "/x", "odd"), 401);
    let told = refusal(&bearer(gateway, "/x", "none"));
    let odd = "the introspection endpoint answered something else than expected";
    assert_eq!(told, invalid(odd));
    assert_eq!(status(gateway, "/x", "a b&c"), 200);
    let before = asked();
    assert_eq!(status(gateway, "/x", "short"), 200);
    assert_eq!(status(gateway, "/x", "short"), 200);
    assert_eq!(asked(), before + 2, "nobody says how long it is good");
}
