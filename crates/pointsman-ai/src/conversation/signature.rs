//! What only its maker can read, carried through clients of other protocols.

use super::Signature;
use crate::{Protocol, base64, json::string::JsonStr};

/// Stands before the name of a protocol that is not the client's.
const PREFIX: &str = "pm.";
/// The same in base64.
const PREFIX_BASE64: &str = "cG0u";

impl<'a> Signature<'a> {
    /// What a client or provider that speaks `own` sent in its field for such data: data that came
    /// from another protocol's provider say so (see [`Signature::spelt`]).
    pub fn read(own: Protocol, text: JsonStr<'a>) -> Self {
        let foreign = text.as_spelt().strip_prefix(PREFIX).and_then(|rest| {
            let (name, data) = rest.split_once('.')?;
            Some((Protocol::from_name(name)?, data.to_owned()))
        });
        match foreign {
            Some((origin, data)) => Self {
                origin,
                data: JsonStr::spelt_owned(data),
            },
            None => Self {
                origin: own,
                data: text,
            },
        }
    }

    /// What stands in the field of `own` for such data: those of another protocol are marked with
    /// its name, so that they find back to who made them and reach nobody else.
    pub fn spelt(&self, own: Protocol) -> JsonStr<'_> {
        if self.origin == own {
            return self.data.clone();
        }
        let mut marked = JsonStr::from(format!("{PREFIX}{}.", self.origin.as_str()));
        marked.push(&self.data);
        marked
    }

    /// [`Signature::read`] of a field that holds bytes in base64, which official clients decode
    /// and encode again: Gemini's `thoughtSignature`, Bedrock's `redactedContent`.
    pub(crate) fn read_bytes(own: Protocol, text: JsonStr<'a>) -> Self {
        let marked = text.decode();
        let bytes = match marked.starts_with(PREFIX_BASE64) {
            true => base64::decode(&marked),
            false => None,
        };
        let foreign = bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|foreign| Signature::read(own, JsonStr::from(foreign)));
        match foreign.filter(|signature| signature.origin != own) {
            Some(foreign) => foreign,
            None => Self::read(own, text),
        }
    }

    /// [`Signature::spelt`] for such a field: those of another protocol, which need not be base64,
    /// stand in base64 of their own.
    pub(crate) fn spelt_bytes(&self, own: Protocol) -> JsonStr<'_> {
        let spelt = self.spelt(own);
        if self.origin == own {
            return spelt;
        }
        JsonStr::from(base64::encode(spelt.decode().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_find_back_to_who_made_them() {
        let data = JsonStr::new("AbC==");
        let own = Signature::read(Protocol::AnthropicMessages, data.clone());
        assert_eq!(own.spelt(Protocol::AnthropicMessages), data);
        let carried = own.spelt(Protocol::OpenaiChat);
        assert_eq!(carried.decode(), "pm.anthropic-messages.AbC==");
        assert_eq!(Signature::read(Protocol::OpenaiChat, carried.clone()), own);
        let odd = JsonStr::new("pm.nobody.x");
        assert_eq!(Signature::read(Protocol::OpenaiChat, odd.clone()).data, odd);
    }

    #[test]
    fn in_fields_of_bytes_those_of_others_are_base64() {
        const OWN: Protocol = Protocol::GeminiGenerateContent;
        let signature = |origin, data: &'static str| Signature {
            origin,
            data: JsonStr::new(data),
        };
        let foreign = signature(Protocol::AnthropicMessages, "Ab+/=");
        let spelt = foreign.spelt_bytes(OWN).decode().into_owned();
        assert_eq!(
            base64::decode(&spelt).unwrap(),
            b"pm.anthropic-messages.Ab+/="
        );
        // Google's Python client decodes and encodes it, in the other alphabet.
        for seen in [spelt.clone(), spelt.replace('+', "-").replace('/', "_")] {
            assert_eq!(Signature::read_bytes(OWN, JsonStr::new(&seen)), foreign);
        }
        let own = signature(OWN, "CiQB==");
        let read = Signature::read_bytes(OWN, JsonStr::spelt("CiQB\\u003d\\u003d"));
        assert_eq!(read, own);
        assert_eq!(own.spelt_bytes(OWN), own.data);
        for chance in ["cG0uAAAA", "cG0uYWJj", "cG0u!"] {
            let read = Signature::read_bytes(OWN, JsonStr::new(chance));
            assert_eq!(read, signature(OWN, chance));
        }
    }
}
