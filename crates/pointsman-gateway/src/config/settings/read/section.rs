//! Values of `config.yaml`, taken out of their section with the type that is wanted.
//!
//! Nothing here knows which settings exist; a value of another type is an error with its path and
//! line, and what nobody took is a warning.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Map, Value};

use super::{Reader, SettingError};
use crate::config::{settings::units, text};

/// A map whose members are taken out as they are read; what is left was not understood.
pub(super) struct Section {
    /// Its path in the file.
    pub(super) path: String,
    /// What nobody took yet.
    pub(super) map: Map<String, Value>,
}

impl Section {
    /// The value of `key` and its path; `null` counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<(String, Value)> {
        let value = self
            .map
            .shift_remove(key)
            .filter(|value| !value.is_null())?;
        Some((text::join(&self.path, key), value))
    }
}

impl Reader<'_> {
    /// The section `key` of `parent`.
    pub(super) fn section(&mut self, parent: &mut Section, key: &str) -> Option<Section> {
        let (path, value) = parent.take(key)?;
        match value {
            Value::Object(map) => Some(Section { path, map }),
            other => {
                self.wrong_type(&path, "a map", &other);
                None
            }
        }
    }

    /// Sets `flag` if `key` is there.
    pub(super) fn flag(&mut self, section: &mut Section, key: &str, flag: &mut bool) {
        match section.take(key) {
            None => {}
            Some((_, Value::Bool(value))) => *flag = value,
            Some((path, other)) => {
                let meant = other.as_str().and_then(text::old_boolean);
                let expected = match meant {
                    Some(meant) => format!("true or false ({other} is text; write {meant})"),
                    None => "true or false".to_owned(),
                };
                self.wrong_type(&path, &expected, &other);
            }
        }
    }

    /// The text at `key`.
    pub(super) fn text(&mut self, section: &mut Section, key: &str) -> Option<String> {
        match section.take(key)? {
            (_, Value::String(text)) => Some(text),
            (path, other) => {
                self.wrong_type(&path, "a text", &other);
                None
            }
        }
    }

    /// The whole number at `key`.
    pub(super) fn number(&mut self, section: &mut Section, key: &str) -> Option<u64> {
        let (path, value) = section.take(key)?;
        let number = value.as_u64();
        if number.is_none() {
            self.wrong_type(&path, "a number of at least 0", &value);
        }
        number
    }

    /// `value` as a list of texts.
    pub(super) fn texts(&mut self, path: &str, value: Value) -> Option<Vec<String>> {
        let texts: Option<Vec<String>> = value.as_array().and_then(|list| {
            list.iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        });
        if texts.is_none() {
            self.wrong_type(path, "a list of texts", &value);
        }
        texts
    }

    /// Sets `time` if `key` is there; zero is refused.
    pub(super) fn time(&mut self, section: &mut Section, key: &str, time: &mut Duration) {
        let Some((path, value)) = section.take(key) else {
            return;
        };
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        match units::time(&text) {
            Some(parsed) if !parsed.is_zero() => *time = parsed,
            _ => self.error(&path, format!("`{text}` is not a time such as 60s")),
        }
    }

    /// `{ip, port}`.
    pub(super) fn address(
        &mut self,
        mut section: Section,
        ip: &str,
        port: u16,
    ) -> Option<SocketAddr> {
        let ip = self
            .text(&mut section, "ip")
            .unwrap_or_else(|| ip.to_owned());
        let port = self.port(&mut section).unwrap_or(port);
        let path = section.path.clone();
        self.leftover(&section);
        match ip.trim_matches(['[', ']']).parse() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) => {
                self.error(&path, format!("`{ip}` is not an IP address"));
                None
            }
        }
    }

    /// The port of `section`.
    pub(super) fn port(&mut self, section: &mut Section) -> Option<u16> {
        let path = text::join(&section.path, "port");
        let number = self.number(section, "port")?;
        let port = u16::try_from(number).ok();
        if port.is_none() {
            self.error(&path, format!("expected {number} to be at most 65535"));
        }
        port
    }

    /// A port, a list of ports, or a list of `{ip, port}`.
    pub(super) fn listeners(
        &mut self,
        path: &str,
        value: Value,
        default_port: u16,
    ) -> Vec<SocketAddr> {
        let items = match value {
            Value::Array(items) => items,
            one => vec![one],
        };
        let mut listeners = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Number(number) => {
                    match number.as_u64().and_then(|n| u16::try_from(n).ok()) {
                        Some(port) => listeners.push(SocketAddr::from(([0, 0, 0, 0], port))),
                        None => self.error(&path, format!("`{number}` is not a port")),
                    }
                }
                Value::Object(map) => {
                    let mut section = Section {
                        path: path.clone(),
                        map,
                    };
                    if section.map.shift_remove("enable_http2").is_some() {
                        let message = "enable_http2 belongs to apisix, not to a listener";
                        self.error(&path, message.to_owned());
                    }
                    let mut http3 = false;
                    self.flag(&mut section, "enable_http3", &mut http3);
                    if http3 {
                        self.warn(
                            &path,
                            "HTTP/3 is not supported; the listener has none".to_owned(),
                        );
                    }
                    listeners.extend(self.address(section, "0.0.0.0", default_port));
                }
                other => self.wrong_type(&path, "a port or {ip, port}", &other),
            }
        }
        listeners
    }

    /// What was not read is not understood.
    pub(super) fn leftover(&mut self, section: &Section) {
        for key in section.map.keys() {
            let path = text::join(&section.path, key);
            self.warn(&path, "not supported by this gateway; ignored".to_owned());
        }
    }

    /// Takes `key` out of `section`; if it was there, it has no effect, and that is said with the
    /// reason `why`.
    pub(super) fn without_effect(&mut self, section: &mut Section, key: &str, why: &str) {
        if let Some((path, _)) = section.take(key) {
            self.warn(&path, format!("has no effect: {why}"));
        }
    }

    /// Notes that `found` is not what was `expected`.
    pub(super) fn wrong_type(&mut self, path: &str, expected: &str, found: &Value) {
        self.error(path, format!("must be {expected}, not `{found}`"));
    }

    /// Notes that the setting at `path` cannot be used.
    pub(super) fn error(&mut self, path: &str, message: String) {
        let line = self.lines.of(path);
        self.errors.push(SettingError {
            path: path.to_owned(),
            line,
            message,
        });
    }

    /// Notes that the setting at `path` has no effect.
    pub(super) fn warn(&mut self, path: &str, message: String) {
        let line = self.lines.of(path);
        self.warnings.push(SettingError {
            path: path.to_owned(),
            line,
            message,
        });
    }
}

/// `1.1.1.1`, `1.1.1.1:53` or `[::1]:53`.
pub(super) fn server_address(text: &str) -> Option<SocketAddr> {
    text.parse::<SocketAddr>().ok().or_else(|| {
        let ip = text.trim_matches(['[', ']']).parse().ok()?;
        Some(SocketAddr::new(ip, 53))
    })
}
