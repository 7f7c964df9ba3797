//! A set of members, and how the access log writes it.

use std::fmt;

/// Numbers of members. As text two hexadecimal digits a byte: the lowest bit of the first byte stands
/// for member 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members(Vec<u8>);

impl Members {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, member: usize) {
        if self.0.len() <= member / 8 {
            self.0.resize(member / 8 + 1, 0);
        }
        self.0[member / 8] |= 1 << (member % 8);
    }

    pub(crate) fn contains(&self, member: usize) -> bool {
        let byte = self.0.get(member / 8);
        byte.is_some_and(|byte| byte >> (member % 8) & 1 == 1)
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * 8).filter(|&member| self.contains(member))
    }

    /// The set that was written as `text`; `None` if none is.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?;
        rest.is_empty().then_some(Self(bytes))
    }
}

impl FromIterator<usize> for Members {
    fn from_iter<I: IntoIterator<Item = usize>>(members: I) -> Self {
        let mut set = Self::default();
        members.into_iter().for_each(|member| set.insert(member));
        set
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(members: &[usize], text: &str) {
        let set: Members = members.iter().copied().collect();
        assert_eq!(set.to_string(), text);
        let read = Members::parse(text).expect("a set");
        assert_eq!(read, set);
        assert_eq!(read.iter().collect::<Vec<_>>(), members);
    }

    #[test]
    fn a_set_survives_as_text() {
        check(&[], "");
        check(&[0], "01");
        check(&[1, 7, 9], "8202");
        check(&[1023], &format!("{}80", "00".repeat(127)));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["0", "0g", "é", "+1", " 1"] {
            assert_eq!(Members::parse(text), None, "{text:?}");
        }
    }
}
