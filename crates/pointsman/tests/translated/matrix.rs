//! Who can talk to whom: writes the table of `docs/protocols/matrix.md`, and sees that it is true.

use std::{fmt::Write as _, path::Path};

use super::{
    calls,
    protocol::{ALL, Protocol, TEXT, document},
};
use crate::support::{Answer, Gateway, Received, Upstream, client::Response, post_json};

const TITLE: &str = "\
# Who can talk to whom

Seen by a test that runs the gateway between clients and upstreams of all six protocols, and written \
by it: `POINTSMAN_WRITE_DOCS=1 cargo test -p pointsman --test translated matrix`. The requests are in \
`crates/pointsman/tests/translated/requests.json`.

*ok*: nothing is lost. Otherwise what is lost is named as `X-Pointsman-Lossy` names it; the request \
goes through without it, or with the nearest that the upstream has. What an answer loses (a \
stream: in the log alone) is named there, too, but these say nothing that gets lost. The columns:

- text: instructions, turns and the usual sampling; the answer's text arrives whole
- tools: two tools are offered, calls and their results sent; the answer calls one with its arguments
- images: a PNG in base64 reaches the upstream
- reasoning: the client asks for thoughts, and the upstream is asked for them
- errors: a 429 keeps its status, its message and `Retry-After`
";

/// The start of the picture that is sent.
const IMAGE: &str = "iVBORw0KGgo";

type Cell = fn(&Pair<'_>) -> String;
const CELLS: [(&str, Cell); 5] = [
    ("text", text),
    ("tools", tools),
    ("images", images),
    ("reasoning", reasoning),
    ("errors", errors),
];

struct Pair<'s> {
    gateway: &'s Gateway,
    upstream: &'s Upstream,
    client: &'static Protocol,
    target: &'static Protocol,
    streamed: bool,
}

impl Pair<'_> {
    fn name(&self) -> String {
        let how = if self.streamed { ", streamed" } else { "" };
        format!("{} to {}{how}", self.client.name, self.target.name)
    }

    /// A successful exchange: the answer, what the upstream was sent, and what got lost.
    fn exchange(&self, feature: &str) -> (Response, String, String) {
        let response = self.send(self.target.name, feature);
        let name = self.name();
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let lost = response.header("x-pointsman-lossy").unwrap_or_default();
        let lost = lost.replace(',', ", ");
        (response, self.upstream.last().text(), lost)
    }

    fn send(&self, route: &str, feature: &str) -> Response {
        let path = format!("/{route}{}", self.client.path(self.streamed));
        let body = self.client.request_about(feature, self.streamed);
        post_json(self.gateway.proxy, &path, &body)
    }
}

fn text(pair: &Pair<'_>) -> String {
    let (response, sent, lost) = pair.exchange("text");
    let name = pair.name();
    assert_eq!(pair.client.texts(&response, pair.streamed), TEXT, "{name}");
    for said in ["Hi", "Hello.", "What is up?"] {
        assert!(sent.contains(said), "{name}: {sent}");
    }
    lost
}

fn tools(pair: &Pair<'_>) -> String {
    let (response, sent, lost) = pair.exchange("tools");
    let name = pair.name();
    for part in ["weather", "clock", "sunny", "noon"] {
        assert!(sent.contains(part), "{name}, {part}: {sent}");
    }
    let got = if pair.streamed {
        pair.client.events_of(&response).concat()
    } else {
        response.text()
    };
    for part in ["weather", "Oslo"] {
        assert!(got.contains(part), "{name}, {part}: {got}");
    }
    lost
}

fn images(pair: &Pair<'_>) -> String {
    let (_, sent, lost) = pair.exchange("images");
    assert!(sent.contains(IMAGE), "{}: {sent}", pair.name());
    lost
}

fn reasoning(pair: &Pair<'_>) -> String {
    let (_, sent, lost) = pair.exchange("reasoning");
    let asked = match pair.target.name {
        "openai-chat" => "reasoning_effort",
        "openai-responses" => "\"reasoning\"",
        "gemini-generate-content" => "thinkingConfig",
        _ => "\"thinking\"",
    };
    let told = lost.contains("reasoning");
    assert!(sent.contains(asked) || told, "{}: {sent}", pair.name());
    lost
}

fn errors(pair: &Pair<'_>) -> String {
    let response = pair.send(&format!("limited/{}", pair.target.name), "text");
    let name = pair.name();
    assert_eq!(response.status, 429, "{name}: {}", response.text());
    assert_eq!(response.header("retry-after"), Some("7"), "{name}");
    let body = response.json();
    let message = body.pointer(pair.client.message);
    assert_eq!(message.and_then(|text| text.as_str()), Some("slow down"));
    String::new()
}

fn works(protocol: &Protocol, received: &Received) -> Answer {
    let streamed =
        received.target.contains("stream") || received.json()["stream"].as_bool() == Some(true);
    // Only requests about tools have this one.
    if received.text().contains("clock") {
        return calls::answer(protocol, streamed);
    }
    if streamed {
        protocol.stream(true)
    } else {
        Answer::json(protocol.answer)
    }
}

fn limited(protocol: &Protocol) -> Answer {
    Answer::Whole {
        status: 429,
        kind: "application/json",
        body: protocol.error.to_owned(),
        headers: vec![("Retry-After", "7".to_owned())],
    }
}

fn table(gateway: &Gateway, upstreams: &[Upstream]) -> String {
    let mut page = TITLE.to_owned();
    let titles = CELLS.map(|(title, _)| title).join(" | ");
    for client in &ALL {
        let line = "---|".repeat(CELLS.len());
        let _ = write!(
            page,
            "\n## Clients of {}\n\n| upstream | {titles} |\n|---|{line}\n",
            client.name
        );
        for (target, upstream) in ALL.iter().zip(upstreams) {
            for streamed in [false, true] {
                let pair = Pair {
                    gateway,
                    upstream,
                    client,
                    target,
                    streamed,
                };
                let how = if streamed { ", streamed" } else { "" };
                let cells = CELLS.map(|(_, cell)| match cell(&pair) {
                    lost if lost.is_empty() => "ok".to_owned(),
                    lost => lost,
                });
                let _ = writeln!(page, "| {}{how} | {} |", target.name, cells.join(" | "));
            }
        }
    }
    page
}

#[test]
fn the_published_table_is_what_happens() {
    let upstreams: Vec<Upstream> = ALL
        .iter()
        .map(|protocol| Upstream::start(|received| works(protocol, received)))
        .collect();
    let limiting: Vec<Upstream> = ALL
        .iter()
        .map(|protocol| Upstream::start(|_| limited(protocol)))
        .collect();
    let more = document(&limiting, "")
        .replace("routes:\n", "")
        .replace("uri: /", "uri: /limited/")
        .replace("id: ", "id: limited-");
    let gateway = Gateway::start(&(document(&upstreams, "") + &more));
    let page = table(&gateway, &upstreams);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocols/matrix.md");
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/protocols/matrix.md is stale: run this test with POINTSMAN_WRITE_DOCS=1 and look at \
         what changed"
    );
}
