//! Tables of what each protocol can say, and of what translation loses.
//!
//! They are made from what the dialects themselves state, so they cannot say anything else; tidy
//! fails when the files are older than the code. What each provider or model can be told beyond or
//! short of its protocol is in the text that a person wrote, `docs/protocols/translation.md`.

use std::{fmt::Write as _, path::Path};

use pointsman_ai::{
    Protocol,
    conversation::{Feature, Features},
    expresses, said_by_clients,
};

/// Writes the files anew.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    for (name, text) in files() {
        let path = root.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Files that do not say what the code says.
pub(crate) fn stale(root: &Path) -> Vec<String> {
    let is_stale = |(name, text): &(&str, String)| {
        std::fs::read_to_string(root.join(name)).ok().as_ref() != Some(text)
    };
    let stale = files().into_iter().filter(is_stale);
    stale
        .map(|(name, _)| format!("{name} is older than the code: run `cargo xtask protocols`"))
        .collect()
}

fn files() -> [(&'static str, String); 2] {
    [
        ("docs/protocols/README.md", overview()),
        ("docs/protocols/losses.md", losses()),
    ]
}

const MADE: &str = "<!-- Made by `cargo xtask protocols`. -->\n\n";

/// Those that hold conversations, and how people call them.
const DIALECTS: [(Protocol, &str); 6] = [
    (Protocol::OpenaiChat, "OpenAI Chat Completions"),
    (Protocol::OpenaiResponses, "OpenAI Responses"),
    (Protocol::AnthropicMessages, "Anthropic Messages"),
    (Protocol::GeminiGenerateContent, "Gemini generateContent"),
    (Protocol::CohereChat, "Cohere Chat v2"),
    (Protocol::BedrockConverse, "Bedrock Converse"),
];

/// What a signature is to each side depends on who made it, so tables of pairs leave these out.
const BY_ORIGIN: Features = Features::of(&[
    Feature::Signature,
    Feature::HiddenReasoning,
    Feature::ForeignSignature,
]);

fn overview() -> String {
    let mut text = MADE.to_owned();
    text.push_str(
        "# Protocols\n\n\
         Pointsman speaks six protocols of conversations to clients and to providers, and translates \
         between any two of them. [translation.md](translation.md) tells how, [losses.md](losses.md) \
         what gets lost between two protocols.\n\n\
         The table shows what each protocol can say, by the names that the header \
         `X-Pointsman-Lossy` and the log use. A request that says what the provider's protocol has \
         no mark for loses it, and the header names it; with `strict_translation` such a request is \
         refused. In rows that begin with `answer.` the marks say what clients can be told. What a \
         feature is only approximated by, such as a word for a number of tokens, is no mark.\n\n",
    );
    text.push_str("| feature |");
    for (protocol, _) in DIALECTS {
        let _ = write!(text, " {} |", protocol.as_str());
    }
    text.push_str(" meaning |\n|---|---|---|---|---|---|---|---|\n");
    for feature in Feature::ALL {
        let _ = write!(text, "| `{}` |", feature.name());
        for (protocol, _) in DIALECTS {
            let mark = if expresses(protocol).has(*feature) {
                "✓"
            } else {
                ""
            };
            let _ = write!(text, " {mark} |");
        }
        let _ = writeln!(text, " {} |", meaning(*feature));
    }
    text
}

/// Without the full stop.
fn meaning(feature: Feature) -> &'static str {
    feature.meaning().trim_end_matches('.')
}

fn losses() -> String {
    let mut text = MADE.to_owned();
    text.push_str(
        "# What gets lost\n\n\
         How to read this is told in the [overview](README.md). Members, tools and pieces that only \
         one protocol knows are named by their own names in the header; here they are \
         `messages.unknown`, `tools.hosted` and `answer.unknown`.\n\n\
         ## What providers cannot be told\n",
    );
    for (protocol, name) in DIALECTS {
        let lost = requests(Features::all_but(&[])).without(expresses(protocol));
        let _ = writeln!(text, "\n### {name} (`{}`)\n", protocol.as_str());
        text.push_str("| feature | meaning |\n|---|---|\n");
        for feature in lost.iter() {
            let _ = writeln!(text, "| `{}` | {} |", feature.name(), meaning(feature));
        }
    }
    text.push_str(
        "\n## What requests can lose, pair by pair\n\n\
         What a client of the first protocol can say and a provider of the second cannot be told. \
         Signatures are left out: they go back to who made them, through any client that keeps them.\n",
    );
    for (client, name) in DIALECTS {
        pairs(&mut text, name, client, |target| {
            requests(said_by_clients(client))
                .without(expresses(target))
                .without(BY_ORIGIN)
        });
    }
    text.push_str(
        "\n## What answers can lose, pair by pair\n\n\
         What a provider of the second protocol can say and a client of the first cannot be told.\n",
    );
    for (client, name) in DIALECTS {
        pairs(&mut text, name, client, |provider| {
            let own = Features::of(&[Feature::OpaqueAnswer]);
            answers(expresses(provider).union(own)).without(expresses(client))
        });
    }
    text
}

fn pairs(text: &mut String, name: &str, client: Protocol, lost: impl Fn(Protocol) -> Features) {
    let _ = writeln!(text, "\n### Clients of {name}\n");
    text.push_str("| provider | lost |\n|---|---|\n");
    for (provider, name) in DIALECTS {
        if provider == client {
            continue;
        }
        let lost = lost(provider);
        let names: Vec<String> = lost.iter().map(|one| format!("`{}`", one.name())).collect();
        let names = match names.as_slice() {
            [] => "nothing".to_owned(),
            names => names.join(", "),
        };
        let _ = writeln!(text, "| {name} | {names} |");
    }
}

fn requests(features: Features) -> Features {
    features.without(of_answers())
}

fn answers(features: Features) -> Features {
    let others = Features::all_but(&[]).without(of_answers());
    features.without(others)
}

fn of_answers() -> Features {
    let mut all = Features::NONE;
    for feature in Feature::ALL {
        all.note(*feature, feature.is_of_answers());
    }
    all
}
