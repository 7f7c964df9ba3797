//! What only its maker can read, carried through clients of other protocols.

use super::Signature;
use crate::{Protocol, json::string::JsonStr};

/// Stands before the name of a protocol that is not the client's.
const PREFIX: &str = "pm.";

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
}
