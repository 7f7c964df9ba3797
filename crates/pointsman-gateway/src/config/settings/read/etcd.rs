//! Reading `deployment.etcd`.

use serde_json::Value;

use super::{Reader, section::Section};
use crate::config::{
    settings::{EtcdHost, EtcdLogin, EtcdSettings},
    snapshot::whole_seconds,
    text::{Env, join},
};

impl Reader<'_> {
    /// Reads the section, and what the environment says in its place; whether either was there.
    pub(super) fn etcd(
        &mut self,
        deployment: &mut Section,
        env: Env<'_>,
        settings: &mut EtcdSettings,
    ) -> bool {
        let section = self.section(deployment, "etcd");
        let is_named = section.is_some();
        if let Some(mut etcd) = section {
            self.etcd_section(&mut etcd, settings);
            self.leftover(&etcd);
        }
        self.etcd_hosts_of(env, settings) || is_named
    }

    fn etcd_section(&mut self, etcd: &mut Section, settings: &mut EtcdSettings) {
        match etcd.take("host") {
            None => {}
            Some((path, Value::String(host))) => self.etcd_hosts(&path, &[host], settings),
            Some((path, value)) => {
                let hosts = self.texts(&path, value).unwrap_or_default();
                self.etcd_hosts(&path, &hosts, settings);
            }
        }
        if let Some(prefix) = self.text(etcd, "prefix") {
            let trimmed = prefix.trim_end_matches('/');
            match trimmed
                .strip_prefix('/')
                .is_some_and(|rest| !rest.is_empty())
            {
                true => settings.prefix = trimmed.to_owned(),
                false => {
                    let message = format!("`{prefix}` must begin with a slash and a name");
                    self.error("deployment.etcd.prefix", message);
                }
            }
        }
        for (key, limit) in [
            ("timeout", &mut settings.timeout),
            ("watch_timeout", &mut settings.watch_timeout),
        ] {
            match self.number(etcd, key) {
                None => {}
                Some(0) => self.error(&join(&etcd.path, key), "must be at least 1".to_owned()),
                Some(seconds) => *limit = whole_seconds(seconds),
            }
        }
        if let Some(count) = self.number(etcd, "startup_retry") {
            settings.startup_retry = count;
        }
        self.etcd_login(etcd, settings);
        if let Some(mut tls) = self.section(etcd, "tls") {
            self.etcd_tls(&mut tls, settings);
            self.leftover(&tls);
        }
        let why = "members are asked in turn, a second apart at most";
        for key in ["resync_delay", "health_check_timeout"] {
            self.without_effect(etcd, key, why);
        }
    }

    fn etcd_login(&mut self, etcd: &mut Section, settings: &mut EtcdSettings) {
        let user = self.text(etcd, "user");
        let password = match etcd.take("password") {
            None => None,
            Some((_, Value::String(password))) => Some(password),
            // It is not shown.
            Some((path, _)) => {
                self.error(&path, "must be a text: put it in quotes".to_owned());
                return;
            }
        };
        match (user, password) {
            (Some(user), Some(password)) => settings.login = Some(EtcdLogin { user, password }),
            (None, None) => {}
            _ => {
                let message = "user and password go together".to_owned();
                self.error("deployment.etcd", message);
            }
        }
    }

    fn etcd_tls(&mut self, tls: &mut Section, settings: &mut EtcdSettings) {
        self.flag(tls, "verify", &mut settings.verify);
        settings.sni = self.text(tls, "sni");
        match (self.text(tls, "cert"), self.text(tls, "key")) {
            (Some(cert), Some(key)) => settings.certificate = Some((cert, key)),
            (None, None) => {}
            _ => {
                let message = "cert and key go together".to_owned();
                self.error("deployment.etcd.tls", message);
            }
        }
    }

    /// `APISIX_DEPLOYMENT_ETCD_HOST`, a JSON list, counts before `host`.
    fn etcd_hosts_of(&mut self, env: Env<'_>, settings: &mut EtcdSettings) -> bool {
        let Some(text) = env(HOSTS).filter(|text| !text.is_empty()) else {
            return false;
        };
        match serde_json::from_str::<Vec<String>>(&text) {
            Ok(hosts) => self.etcd_hosts(HOSTS, &hosts, settings),
            Err(_) => self.error(HOSTS, "must be a JSON list of texts".to_owned()),
        }
        true
    }

    fn etcd_hosts(&mut self, path: &str, texts: &[String], settings: &mut EtcdSettings) {
        if texts.is_empty() {
            self.error(path, "must name a host".to_owned());
        }
        settings.hosts.clear();
        for text in texts {
            match host(text) {
                Some(host) => settings.hosts.push(host),
                None => {
                    let message = format!("`{text}` must look like http://127.0.0.1:2379");
                    self.error(path, message);
                }
            }
        }
    }
}

/// `http://name:port` or `https://name:port`.
fn host(text: &str) -> Option<EtcdHost> {
    let uri: http::Uri = text.parse().ok()?;
    let is_secure = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let has_more = !matches!(uri.path(), "" | "/") || uri.query().is_some();
    let authority = uri.authority()?;
    if has_more || authority.as_str().contains('@') {
        return None;
    }
    Some(EtcdHost {
        name: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(2379),
        is_secure,
    })
}

const HOSTS: &str = "APISIX_DEPLOYMENT_ETCD_HOST";

#[cfg(test)]
mod tests {
    use super::{super::parse, *};
    use crate::config::settings::Provider;

    fn read(text: &str) -> Result<(Provider, EtcdSettings), String> {
        let read = parse(text, &|_| None);
        read.map(|(settings, _)| (settings.provider, settings.etcd))
            .map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn whoever_names_an_etcd_has_one() {
        let provider = |text: &str| read(text).map(|(provider, _)| provider);
        let role = "role_traditional: {config_provider: etcd}";
        assert_eq!(provider(""), Ok(Provider::Store));
        assert_eq!(
            provider("deployment: {role: traditional}"),
            Ok(Provider::Store)
        );
        assert_eq!(provider("deployment: {etcd: {}}"), Ok(Provider::Etcd));
        assert_eq!(
            provider(&format!("deployment: {{{role}}}")),
            Ok(Provider::Etcd)
        );
        let plane = "deployment: {role: data_plane, role_data_plane: {config_provider: etcd}}";
        assert_eq!(provider(plane), Ok(Provider::Etcd));
        assert_eq!(
            provider("deployment: {role: control_plane}"),
            Ok(Provider::Etcd)
        );
        let env = |name: &str| (name == HOSTS).then(|| r#"["https://a:1"]"#.to_owned());
        let (settings, _) = parse("", &env).expect("read");
        assert_eq!(settings.provider, Provider::Etcd);
        assert_eq!(settings.etcd.hosts, [host("https://a:1").expect("a host")]);
    }

    #[test]
    fn everything_that_apisix_has_is_read() {
        let text = "deployment:\n  etcd:\n    host: [\"http://10.0.0.1:2379\", \"https://[::1]\"]\n    \
                    prefix: /gate/\n    timeout: 3\n    watch_timeout: 60\n    startup_retry: 0\n    \
                    user: u\n    password: p\n    \
                    tls: {cert: c.pem, key: k.pem, verify: false, sni: s}\n";
        let (_, etcd) = read(text).expect("read");
        let named = |name: &str, is_secure| EtcdHost {
            name: name.to_owned(),
            port: 2379,
            is_secure,
        };
        let expected = EtcdSettings {
            hosts: vec![named("10.0.0.1", false), named("::1", true)],
            prefix: "/gate".to_owned(),
            timeout: whole_seconds(3),
            watch_timeout: whole_seconds(60),
            startup_retry: 0,
            login: Some(EtcdLogin {
                user: "u".to_owned(),
                password: "p".to_owned(),
            }),
            certificate: Some(("c.pem".to_owned(), "k.pem".to_owned())),
            verify: false,
            sni: Some("s".to_owned()),
        };
        assert_eq!(etcd, expected);
        assert!(!format!("{etcd:?}").contains("password"), "{etcd:?}");
    }

    #[test]
    fn mistakes_are_told() {
        for (etcd, part) in [
            ("{host: []}", "must name a host"),
            ("{host: [\"127.0.0.1:2379\"]}", "must look like http://"),
            ("{host: [\"http://a/b\"]}", "must look like http://"),
            ("{prefix: apisix}", "must begin with a slash"),
            ("{prefix: /}", "must begin with a slash"),
            ("{timeout: 0}", "must be at least 1"),
            ("{user: u}", "user and password go together"),
            ("{user: u, password: 12}", "put it in quotes"),
            ("{tls: {cert: c}}", "cert and key go together"),
        ] {
            let error = read(&format!("deployment: {{etcd: {etcd}}}")).expect_err(etcd);
            assert!(error.contains(part), "{etcd}: {error}");
        }
    }
}
