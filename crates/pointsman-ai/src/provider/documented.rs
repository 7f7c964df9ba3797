//! What the documentation says of providers is what the table says.

use super::{Base, Provider, table::TABLE};

const PAGE: &str = include_str!("../../../../docs/protocols/providers.md");

fn base_of(base: Option<Base>) -> String {
    let Some(base) = base else {
        return "none: set `override.endpoint`".to_owned();
    };
    match (base.https, base.port) {
        (true, 443) => format!("`https://{}`", base.host),
        (https, port) => {
            let scheme = if https { "https" } else { "http" };
            format!("`{scheme}://{}:{port}`", base.host)
        }
    }
}

fn line_of(provider: Provider) -> String {
    let row = provider.row();
    let paths = row.paths.iter().map(|(protocol, path)| {
        // A bar would end the cell.
        let path = path.replace('|', "\\|");
        format!("{}: `{path}`", protocol.as_str())
    });
    let paths = paths.collect::<Vec<_>>().join("<br>");
    format!("| `{}` | {} | {paths} |", row.name, base_of(row.base))
}

#[test]
fn every_provider_is_documented_as_it_is() {
    let lines: Vec<String> = TABLE.iter().map(|row| line_of(row.provider)).collect();
    let table = PAGE.split("\n## ").next().unwrap_or_default();
    let written: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected = lines.join("\n");
    assert_eq!(
        written, lines,
        "the table of the page should be:\n{expected}"
    );
}
