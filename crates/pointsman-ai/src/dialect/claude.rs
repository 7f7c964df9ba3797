//! What models of Anthropic's can be told, whoever serves them.
//!
//! Source: Anthropic's pages on thinking, effort and structured output, the migration guides of its
//! models up to Claude Haiku 5.5 (October 2026), and what its official clients check. Models are known by
//! their names; to one that is somebody else's everything is said as it is.

#[cfg(test)]
mod tests;

use crate::{
    Protocol,
    conversation::{
        Feature, Features, Json, Message, Part, ReasoningMode, Request, Role, ShowThoughts, Tool,
        ToolChoice, closed,
    },
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// What differs from model to model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Model {
    thinks: Thinks,
    off: Off,
    /// It takes `temperature`, `top_p` and `top_k`.
    samples: bool,
    /// It takes `temperature` and `top_p` at once.
    samples_by_both: bool,
    /// It can be made to call a tool.
    obeys: bool,
    /// It goes on from words of its own at the end.
    goes_on: bool,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thinks {
    /// In whatever way the client says it.
    AsTold,
    /// Within a budget of tokens.
    ByBudget,
    /// As it sees fit, by an effort in a word, up to these.
    ByEffort(&'static [&'static str]),
}

/// How a model is told not to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Off {
    Disabled,
    BetweenTools,
    /// Not at all. The least effort is the nearest.
    Never,
}

const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];
/// Of the first models that think by effort.
const FIRST_EFFORTS: &[&str] = &["low", "medium", "high", "max"];

impl Model {
    /// Of a model under whatever name a provider has for it, such as `claude-opus-4-6` or
    /// `anthropic/claude-sonnet-4.6@default`. A name without a version is taken for the newest.
    fn of(name: &str) -> Self {
        let Some((_, behind)) = name.split_once("claude") else {
            return Self {
                thinks: Thinks::AsTold,
                off: Off::Disabled,
                samples: true,
                samples_by_both: true,
                obeys: true,
                goes_on: true,
            };
        };
        let version = version_of(behind);
        let since = |first: (u32, u32)| version.is_none_or(|version| version >= first);
        let family = FAMILIES.into_iter().find(|family| behind.contains(family));
        let thinks = if since((4, 7)) {
            Thinks::ByEffort(EFFORTS)
        } else if since((4, 6)) {
            Thinks::ByEffort(FIRST_EFFORTS)
        } else {
            Thinks::ByBudget
        };
        let off = match family {
            _ if !since((4, 7)) => Off::Disabled,
            Some("haiku") => Off::Disabled,
            Some("sonnet") if since((5, 5)) => Off::BetweenTools,
            Some("opus" | "sonnet") if !since((5, 5)) => Off::Disabled,
            _ => Off::Never,
        };
        Self {
            thinks,
            off,
            samples: !since((4, 7)),
            samples_by_both: !since((4, 1)),
            obeys: match family {
                Some("opus" | "sonnet") => !since((5, 5)),
                Some("fable" | "mythos") => !since((5, 1)),
                _ => true,
            },
            goes_on: !since((4, 6)),
        }
    }
}

const FAMILIES: [&str; 5] = ["opus", "sonnet", "haiku", "fable", "mythos"];

/// The first number behind `claude`, and the one right behind that; a date is none.
fn version_of(behind: &str) -> Option<(u32, u32)> {
    let number = |part: &str| match part.len() {
        1 | 2 => part.parse::<u32>().ok(),
        _ => None,
    };
    let mut parts = behind.split(|c: char| !c.is_ascii_alphanumeric());
    let major = parts.find_map(|part| number(part.strip_prefix('v').unwrap_or(part)))?;
    Some((major, parts.next().and_then(number).unwrap_or(0)))
}

/// How much to think, in Anthropic's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking<'r> {
    Unsaid,
    Disabled,
    /// The same, of models that tell what they do between calls all the same.
    BetweenTools,
    /// By the least effort, of models that think anyhow.
    Hardly,
    /// By an effort, if that is said.
    Adaptive(Option<&'r str>),
    /// At most so many tokens.
    Enabled(u64),
}

/// What of a request its model is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'r> {
    pub(super) thinking: Thinking<'r>,
    /// Whether thoughts are shown, where that can be said.
    shows: Option<bool>,
    /// A tool must be called, if the request says so.
    pub(super) obeys: bool,
    pub(super) temperature: bool,
    pub(super) top_p: bool,
    pub(super) top_k: bool,
    more: Features,
    less: Features,
}

/// All that says how much to think.
const AMOUNTS: Features = Features::of(&[
    Feature::ReasoningEffort,
    Feature::ReasoningBudget,
    Feature::ReasoningEnabled,
    Feature::ReasoningAdaptive,
]);

impl<'r> Told<'r> {
    pub(super) fn of(request: &'r Request<'_>, setting: &Setting<'_>) -> Self {
        let model = Model::of(setting.model);
        let wanted = Thinking::of(request, model);
        let forces = matches!(
            request.tool_choice,
            Some(ToolChoice::Required | ToolChoice::Tool(_))
        );
        let forces = forces && !request.tools.is_empty() && model.obeys;
        let must_not_think = match model.thinks {
            Thinks::AsTold => false,
            Thinks::ByBudget => {
                forces || request.ends_with_the_model() || results_lack(request, setting.target)
            }
            Thinks::ByEffort(_) => forces,
        };
        let mut told = Self {
            thinking: wanted,
            shows: None,
            obeys: model.obeys,
            temperature: true,
            top_p: true,
            top_k: true,
            more: Features::NONE,
            less: Features::NONE,
        };
        if wanted.is_on() && must_not_think {
            told.thinking = Thinking::Unsaid;
            told.less = AMOUNTS;
        }
        told.settle_amount(request, model);
        told.settle_display(request, model, setting.target);
        told.settle_sampling(request, model, setting);
        if setting.target == Protocol::AnthropicMessages {
            let loses = |tool: &Tool<'_>| match tool {
                Tool::Function(function) if function.strict == Some(true) => {
                    closed(function.schema()).loses
                }
                _ => false,
            };
            let any = request.tools.iter().any(loses);
            told.less.note(Feature::ToolStrict, any);
        }
        told.less.note(Feature::ToolChoiceRequired, !model.obeys);
        told.less.note(Feature::ToolChoiceNamed, !model.obeys);
        // They are sent all the same: what the model would have said without them goes on from nothing.
        told.less.note(Feature::Prefill, !model.goes_on);
        told
    }

    fn settle_amount(&mut self, request: &Request<'_>, model: Model) {
        let reasoning = request.reasoning.as_ref();
        let effort = reasoning.and_then(|reasoning| reasoning.effort.as_ref());
        if let Thinking::Adaptive(Some(told)) = self.thinking {
            let is_same = effort.is_some_and(|effort| effort.is(told));
            self.more.note(Feature::ReasoningEffort, is_same);
        }
        match model.thinks {
            Thinks::AsTold => {}
            Thinks::ByBudget => self.less.note(Feature::ReasoningAdaptive, true),
            Thinks::ByEffort(_) => self.less.note(Feature::ReasoningBudget, true),
        }
        self.less
            .note(Feature::ReasoningDisabled, model.off == Off::Never);
    }

    /// Converse has no documented word for it.
    fn settle_display(&mut self, request: &Request<'_>, model: Model, target: Protocol) {
        let is_adaptive = matches!(self.thinking, Thinking::Adaptive(_));
        let by_effort = matches!(model.thinks, Thinks::ByEffort(_));
        if is_adaptive && by_effort && target == Protocol::AnthropicMessages {
            let show = request.reasoning.as_ref().and_then(|r| r.show.as_ref());
            self.shows = show.map(|show| *show != ShowThoughts::No);
            self.more.note(Feature::ShowThoughts, true);
        }
    }

    /// Whoever thinks takes no other temperature than the usual one.
    fn settle_sampling(&mut self, request: &Request<'_>, model: Model, setting: &Setting<'_>) {
        let samples = model.samples && !is_later(setting);
        if samples && model.thinks == Thinks::AsTold {
            return;
        }
        let sampling = &request.sampling;
        let number = |json: &Option<Json<'_>>| -> Option<f64> { json.as_deref()?.parse().ok() };
        let thinks = self.thinking.is_on();
        let is_usual = number(&sampling.temperature) == Some(1.0);
        let is_wide = number(&sampling.top_p).is_some_and(|top_p| top_p >= LEAST_TOP_P);
        self.temperature = samples && (!thinks || is_usual);
        self.top_k = samples && !thinks;
        let alone = sampling.temperature.is_none() || !self.temperature || model.samples_by_both;
        self.top_p = samples && alone && (!thinks || is_wide);
        for (feature, may_be) in [
            (Feature::Temperature, self.temperature),
            (Feature::TopP, self.top_p),
            (Feature::TopK, self.top_k),
        ] {
            self.less.note(feature, !may_be);
        }
    }

    fn kind(&self) -> Option<&'static str> {
        match self.thinking {
            Thinking::Unsaid | Thinking::Hardly => None,
            Thinking::Disabled => Some("disabled"),
            Thinking::BetweenTools => Some("between_tools"),
            Thinking::Adaptive(_) => Some("adaptive"),
            Thinking::Enabled(_) => Some("enabled"),
        }
    }

    /// [`Self::write_thinking`] writes something.
    pub(super) fn says_thinking(&self) -> bool {
        self.kind().is_some()
    }

    /// What can be told, of what a protocol can say to models of Anthropic's.
    pub(super) fn expresses(&self, general: Features) -> Features {
        general.union(self.more).without(self.less)
    }

    /// `thinking`.
    pub(super) fn write_thinking(&self, w: &mut Writer<'_>) {
        let Some(kind) = self.kind() else {
            return;
        };
        w.key("thinking").object(|w| {
            w.key("type").text(kind);
            if let Thinking::Enabled(budget) = self.thinking {
                w.key("budget_tokens").u64(budget);
            }
            match self.shows {
                Some(true) => w.key("display").text("summarized"),
                Some(false) => w.key("display").text("omitted"),
                None => {}
            }
        });
    }

    /// What `output_config.effort` says.
    pub(super) fn effort(&self) -> Option<&'r str> {
        match self.thinking {
            Thinking::Adaptive(effort) => effort,
            Thinking::Hardly => Some("low"),
            _ => None,
        }
    }

    /// Tokens that thoughts may take of an answer's.
    pub(super) fn tokens(&self) -> u64 {
        match self.thinking {
            Thinking::Enabled(budget) => budget,
            Thinking::Adaptive(effort) => effort.map_or(USUAL_BUDGET, budget_of),
            _ => 0,
        }
    }
}

impl<'r> Thinking<'r> {
    fn of(request: &'r Request<'_>, model: Model) -> Self {
        let Some(reasoning) = &request.reasoning else {
            return Self::Unsaid;
        };
        let effort = reasoning.effort.as_ref().map(JsonStr::as_spelt);
        if reasoning.mode == Some(ReasoningMode::Disabled) || effort == Some("none") {
            return match model.off {
                Off::Disabled => Self::Disabled,
                Off::BetweenTools => Self::BetweenTools,
                Off::Never => Self::Hardly,
            };
        }
        let is_adaptive = reasoning.mode == Some(ReasoningMode::Adaptive);
        match (model.thinks, effort, reasoning.budget) {
            (Thinks::ByEffort(words), Some(effort), _) => {
                Self::Adaptive(Some(nearest(effort, words)))
            }
            (Thinks::ByEffort(_), None, Some(budget)) => Self::Adaptive(Some(effort_of(budget))),
            (Thinks::AsTold, effort, _) if is_adaptive => Self::Adaptive(effort),
            (Thinks::AsTold | Thinks::ByBudget, _, Some(budget)) => Self::Enabled(budget),
            (_, Some(effort), None) => Self::within(budget_of(effort), request),
            (_, None, None) if reasoning.mode.is_none() => Self::Unsaid,
            (Thinks::ByEffort(_), None, None) => Self::Adaptive(None),
            (_, None, None) => Self::within(USUAL_BUDGET, request),
        }
    }

    /// A budget that the client did not name leaves a fifth of the tokens that it did name for the
    /// answer. Where that is too little to think at all, there are no thoughts.
    fn within(budget: u64, request: &Request<'_>) -> Self {
        let room = asked_tokens(request).map_or(u64::MAX, |asked| asked / 5 * 4);
        match budget.min(room) {
            budget if budget < LEAST_BUDGET => Self::Unsaid,
            budget => Self::Enabled(budget),
        }
    }

    fn is_on(self) -> bool {
        matches!(self, Self::Adaptive(_) | Self::Enabled(_))
    }
}

/// Versions of the API after the first have no sampling.
fn is_later(setting: &Setting<'_>) -> bool {
    let is_anthropic = setting.target == Protocol::AnthropicMessages;
    is_anthropic
        && setting
            .version
            .is_some_and(|version| version > FIRST_VERSION)
}

const FIRST_VERSION: &str = "2023-06-01";

/// How many tokens the client allows the answer, thoughts included.
pub(super) fn asked_tokens(request: &Request<'_>) -> Option<u64> {
    request.sampling.max_tokens.as_deref()?.parse().ok()
}

/// Tokens for an effort in a word, where a provider wants tokens.
const BUDGETS: [(&str, u64); 6] = [
    ("minimal", 1_024),
    ("low", 2_048),
    ("medium", 8_192),
    ("high", 16_384),
    ("xhigh", 32_768),
    ("max", 32_768),
];
const USUAL_BUDGET: u64 = 8_192;
/// The least that Anthropic takes.
const LEAST_BUDGET: u64 = 1_024;
/// The least that whoever thinks takes.
const LEAST_TOP_P: f64 = 0.95;

fn budget_of(effort: &str) -> u64 {
    let named = BUDGETS.iter().find(|(name, _)| *name == effort);
    named.map_or(USUAL_BUDGET, |(_, budget)| *budget)
}

/// The same the other way around.
fn effort_of(budget: u64) -> &'static str {
    match budget {
        0..=2_048 => "low",
        2_049..=8_192 => "medium",
        _ => "high",
    }
}

/// The word for `effort` among `words`. One that nobody here knows is the provider's matter.
fn nearest<'r>(effort: &'r str, words: &[&str]) -> &'r str {
    match effort {
        "minimal" => "low",
        "xhigh" if !words.contains(&"xhigh") => "high",
        effort => effort,
    }
}

/// Results of tools come last, and the call did not begin with thoughts: whoever is to think within a
/// budget wants those back, and foreign ones are none.
fn results_lack(request: &Request<'_>, target: Protocol) -> bool {
    let says = |message: &&Message<'_>| !message.instructs() && first(message, target).is_some();
    let messages = request.messages.iter().rev().filter(says);
    let mut messages = messages
        .skip_while(|message| message.role == Role::User)
        .peekable();
    let has_results = messages.peek().is_some_and(|last| last.role == Role::Tool);
    // Messages of one side behind each other are one.
    let mut turn = messages
        .skip_while(|message| message.role != Role::Assistant)
        .take_while(|message| message.role == Role::Assistant);
    let begins = turn.by_ref().last().and_then(|turn| first(turn, target));
    has_results && begins.is_some_and(|part| !is_own_thought(part, target))
}

/// The first piece that is not left out.
fn first<'r, 'a>(message: &'r Message<'a>, target: Protocol) -> Option<&'r Part<'a>> {
    message.parts.iter().find(|part| match part {
        Part::Reasoning(_) => is_own_thought(part, target),
        Part::Text(text) => !text.text.is_empty(),
        Part::Refusal(text) => !text.is_empty(),
        Part::Opaque(opaque) => opaque.protocol == target,
        Part::Media(_) => message.role != Role::Assistant,
        Part::ToolCall(_) | Part::ToolResult(_) => true,
    })
}

fn is_own_thought(part: &Part<'_>, target: Protocol) -> bool {
    let Part::Reasoning(reasoning) = part else {
        return false;
    };
    let signature = reasoning.signature.as_ref();
    signature.is_some_and(|signature| signature.origin == target)
}
