//! Reading `nginx_config`, and what the environment says in its place.

use serde_json::Value;

use super::{Reader, Section};
use crate::config::{
    settings::{Settings, units},
    text::Env,
};

impl Reader<'_> {
    pub(super) fn nginx(&mut self, root: &mut Section, settings: &mut Settings) {
        let Some(mut nginx) = self.section(root, "nginx_config") else {
            return;
        };
        if let Some((path, value)) = nginx.take("worker_processes") {
            match value {
                Value::String(text) if text == "auto" => {}
                Value::Number(count) if count.as_u64().is_some_and(|count| count > 0) => {
                    settings.workers = count.as_u64().and_then(|count| usize::try_from(count).ok());
                }
                _ => self.error(&path, "must be `auto` or a number above 0".to_owned()),
            }
        }
        if let Some(mut http) = self.section(&mut nginx, "http") {
            self.nginx_http(&mut http, settings);
            self.leftover(&http);
        }
        self.leftover(&nginx);
    }

    /// `APISIX_WORKER_PROCESSES` counts before `nginx_config.worker_processes`. As in APISIX it is a
    /// number, rounded down; an empty one counts as not set.
    pub(super) fn worker_processes(&mut self, env: Env<'_>, settings: &mut Settings) {
        let Some(text) = env(WORKER_PROCESSES).filter(|text| !text.is_empty()) else {
            return;
        };
        let number = text.trim().parse::<f64>().ok().map(f64::floor);
        let count = number.and_then(|number| format!("{number}").parse::<usize>().ok());
        match count.filter(|count| *count > 0) {
            Some(count) => settings.workers = Some(count),
            None => {
                let message = format!("the environment has `{text}`; must be a number above 0");
                self.error(WORKER_PROCESSES, message);
            }
        }
    }

    fn nginx_http(&mut self, http: &mut Section, settings: &mut Settings) {
        if let Some((path, value)) = http.take("client_max_body_size") {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            match units::size(&text) {
                Some(bytes) => settings.client_max_body_size = Some(bytes).filter(|b| *b > 0),
                None => self.error(&path, format!("`{text}` is not a size such as 8m")),
            }
        }
        self.time(
            http,
            "client_header_timeout",
            &mut settings.client_header_timeout,
        );
        self.time(
            http,
            "client_body_timeout",
            &mut settings.client_body_timeout,
        );
        self.time(http, "send_timeout", &mut settings.send_timeout);
        if let Some(path) = self.text(http, "access_log") {
            settings.access_log = Some(path);
        }
        let mut enabled = true;
        self.flag(http, "enable_access_log", &mut enabled);
        if !enabled {
            settings.access_log = None;
        }
    }
}

const WORKER_PROCESSES: &str = "APISIX_WORKER_PROCESSES";

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    #[test]
    fn the_environment_names_the_number_of_workers() {
        let workers = |variable: &str, more: &str| {
            let env = |name: &str| (name == WORKER_PROCESSES).then(|| variable.to_owned());
            let text = format!(
                "deployment: {{role: data_plane, role_data_plane: {{config_provider: yaml}}}}\n\
                 nginx_config: {{worker_processes: 3}}\n{more}"
            );
            parse(&text, &env)
                .map(|(settings, _)| settings.workers)
                .map_err(|errors| errors[0].to_string())
        };
        assert_eq!(workers("5", ""), Ok(Some(5)));
        assert_eq!(workers("2.7", ""), Ok(Some(2)));
        assert_eq!(workers("", ""), Ok(Some(3)));
        // Our own setting is the more special one.
        assert_eq!(workers("5", "pointsman: {workers: 4}"), Ok(Some(4)));
        for wrong in ["0", "-1", "auto", "0.5", "inf", "NaN"] {
            let error = workers(wrong, "").expect_err("refused");
            assert!(error.starts_with("APISIX_WORKER_PROCESSES: "), "{error}");
        }
    }
}
