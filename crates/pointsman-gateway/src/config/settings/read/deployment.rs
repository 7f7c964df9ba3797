//! `deployment`: where configuration comes from, and the Admin API.

use serde_json::{Map, Value};

use super::{Reader, section::Section, section::server_address};
use crate::{
    admin_api::access::{KeyDigest, Role},
    config::{
        document::Format,
        resource::route::network,
        settings::{AdminKey, AdminSettings, AdminTls, Provider, Settings},
        text::Env,
    },
};

impl Reader<'_> {
    /// Without the section, as in APISIX: a traditional gateway, whose Admin API has a store.
    pub(super) fn deployment(&mut self, root: &mut Section, env: Env<'_>, settings: &mut Settings) {
        let section = self.section(root, "deployment");
        let mut deployment = section.unwrap_or_else(|| Section {
            path: "deployment".to_owned(),
            map: Map::new(),
        });
        let role = self.text(&mut deployment, "role");
        let names_etcd = self.etcd(&mut deployment, env, &mut settings.etcd);
        match role.as_deref() {
            None | Some("traditional") => {
                self.traditional(&mut deployment, settings, names_etcd);
                self.admin(&mut deployment, settings);
            }
            Some("data_plane") => {
                settings.admin = None;
                self.data_plane(&mut deployment, settings);
                // The role has no Admin API, in APISIX neither.
                deployment.map.shift_remove("admin");
            }
            Some("control_plane") => {
                settings.is_control_plane = true;
                self.control_plane(&mut deployment, settings);
                self.admin(&mut deployment, settings);
            }
            Some(other) => {
                let message =
                    format!("`{other}` is none of traditional, data_plane and control_plane");
                self.error("deployment.role", message);
                return;
            }
        }
        // APISIX's own file describes all roles; what is said of the others means nothing.
        for other in ["role_traditional", "role_data_plane", "role_control_plane"] {
            deployment.map.shift_remove(other);
        }
        self.leftover(&deployment);
    }

    /// `config_provider` of the section `role`.
    fn config_provider(&mut self, deployment: &mut Section, role: &str) -> Option<String> {
        let mut section = self.section(deployment, role)?;
        let provider = self.text(&mut section, "config_provider");
        self.leftover(&section);
        provider
    }

    /// Where no etcd is named there need not be any: resources are kept on this machine.
    fn traditional(&mut self, deployment: &mut Section, settings: &mut Settings, names_etcd: bool) {
        let provider = self.config_provider(deployment, "role_traditional");
        settings.provider = match provider.as_deref() {
            Some("yaml") => Provider::Api,
            Some("etcd") => Provider::Etcd,
            None if names_etcd => Provider::Etcd,
            None => Provider::Store,
            Some(other) => {
                let message = format!("`{other}` is none of etcd and yaml");
                let path = "deployment.role_traditional.config_provider";
                return self.error(path, message);
            }
        };
    }

    fn data_plane(&mut self, deployment: &mut Section, settings: &mut Settings) {
        let provider = self.config_provider(deployment, "role_data_plane");
        settings.provider = match provider.as_deref() {
            Some("yaml") => Provider::File(Format::Yaml),
            Some("json") => Provider::File(Format::Json),
            Some("etcd") => Provider::Etcd,
            _ => {
                let message = "set it to etcd, yaml or json".to_owned();
                return self.error("deployment.role_data_plane.config_provider", message);
            }
        };
    }

    fn control_plane(&mut self, deployment: &mut Section, settings: &mut Settings) {
        settings.provider = Provider::Etcd;
        let provider = self.config_provider(deployment, "role_control_plane");
        if provider.is_some_and(|provider| provider != "etcd") {
            let message = "set it to etcd, which data planes share".to_owned();
            self.error("deployment.role_control_plane.config_provider", message);
        }
    }

    fn admin(&mut self, deployment: &mut Section, settings: &mut Settings) {
        let mut own = AdminSettings::default();
        if let Some((path, value)) = take_given(deployment, "admin") {
            match value {
                Value::Object(map) => {
                    let mut section = Section { path, map };
                    self.admin_section(&mut section, &mut own);
                    self.leftover(&section);
                }
                Value::Null => {}
                other => self.wrong_type(&path, "a map", &other),
            }
        }
        settings.admin = Some(own);
    }

    fn admin_section(&mut self, section: &mut Section, own: &mut AdminSettings) {
        if let Some((path, value)) = section.take("admin_listen") {
            match value {
                Value::Object(map) => {
                    let section = Section { path, map };
                    let address = self.address(section, "0.0.0.0", 9180);
                    own.listen = address.unwrap_or(own.listen);
                }
                Value::String(text) => match server_address(&text) {
                    Some(address) => own.listen = address,
                    None => self.error(&path, format!("`{text}` is not an address")),
                },
                other => self.wrong_type(&path, "{ip, port}", &other),
            }
        }
        self.flag(section, "enable_admin_cors", &mut own.cors);
        if let Some((path, value)) = take_given(section, "allow_admin") {
            own.allow = match value {
                Value::Null => None,
                value => {
                    let texts = self.texts(&path, value).unwrap_or_default();
                    let networks: Vec<_> = texts.iter().filter_map(|text| network(text)).collect();
                    if networks.len() != texts.len() {
                        let message = "every entry must be an address or a network";
                        self.error(&path, message.to_owned());
                    }
                    if texts.is_empty() {
                        let message = "must name somebody; `~` lets every address in";
                        self.error(&path, message.to_owned());
                    }
                    Some(networks)
                }
            };
        }
        if let Some((path, value)) = take_given(section, "admin_key") {
            own.keys = match value {
                Value::Null => None,
                Value::Array(entries) => Some(self.admin_keys(&path, entries)),
                // The value may be a key.
                _ => {
                    self.error(&path, "must be a list of {name, key, role}".to_owned());
                    None
                }
            };
        }
        let mut required = true;
        self.flag(section, "admin_key_required", &mut required);
        if !required {
            own.keys = None;
        }
        if let Some(version) = self.text(section, "admin_api_version")
            && version != "v3"
        {
            let path = "deployment.admin.admin_api_version";
            self.error(path, format!("`{version}` is not supported: set it to v3"));
        }
        own.tls = self.admin_tls(section);
    }

    fn admin_tls(&mut self, section: &mut Section) -> Option<AdminTls> {
        let mut https = false;
        self.flag(section, "https_admin", &mut https);
        let (mut cert, mut key, mut ca) = (None, None, None);
        if let Some(mut files) = self.section(section, "admin_api_mtls") {
            let mut file = |name: &str| self.text(&mut files, name).filter(|path| !path.is_empty());
            cert = file("admin_ssl_cert");
            key = file("admin_ssl_cert_key");
            ca = file("admin_ssl_ca_cert");
            self.leftover(&files);
        }
        match (https, cert, key) {
            (true, Some(cert), Some(key)) => return Some(AdminTls { cert, key, ca }),
            (true, _, _) => {
                let message = "needs a certificate: set admin_api_mtls.admin_ssl_cert and \
                               admin_ssl_cert_key to the paths of PEM files";
                self.error("deployment.admin.https_admin", message.to_owned());
            }
            (false, None, None) if ca.is_none() => {}
            (false, _, _) => {
                let message = "has no effect without TLS: set https_admin to true";
                self.error("deployment.admin.admin_api_mtls", message.to_owned());
            }
        }
        None
    }

    fn admin_keys(&mut self, path: &str, entries: Vec<Value>) -> Vec<AdminKey> {
        let mut keys = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Value::Object(map) = entry else {
                self.error(&path, "must be a map of name, key and role".to_owned());
                continue;
            };
            let mut section = Section { path, map };
            let name = self.text(&mut section, "name").unwrap_or_default();
            let role = match self.text(&mut section, "role").as_deref() {
                Some("admin") => Role::Admin,
                Some("viewer") => Role::Viewer,
                _ => {
                    let message = "role must be admin or viewer".to_owned();
                    self.error(&section.path, message);
                    continue;
                }
            };
            let key = match section.take("key") {
                None => String::new(),
                Some((_, Value::String(key))) => key,
                Some((path, _)) => {
                    self.error(&path, "must be a text: put it in quotes".to_owned());
                    continue;
                }
            };
            if key.is_empty() && role == Role::Viewer {
                let message = "a viewer needs a key: only that of an admin is made".to_owned();
                self.error(&section.path, message);
            }
            self.leftover(&section);
            keys.push(AdminKey {
                name,
                key: (!key.is_empty()).then(|| KeyDigest::of(&key)),
                role,
            });
        }
        if keys.is_empty() {
            let message = "names no key: give one, or `~` for an API that asks for none";
            self.error(path, message.to_owned());
        }
        keys
    }
}

/// What stands at `key`, if only `null`.
fn take_given(section: &mut Section, key: &str) -> Option<(String, Value)> {
    let value = section.map.shift_remove(key)?;
    Some((format!("{}.{key}", section.path), value))
}
