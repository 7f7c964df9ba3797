//! Which name somebody may have meant.

/// `; did you mean X?` for the one of `known` that resembles `word` most; empty if none does.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> String {
    let most = (word.len() / 3).clamp(1, DISTANCE_MAX);
    let near = known
        .filter(|name| name.len().abs_diff(word.len()) <= most)
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min();
    near.map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// How many bytes must be put in, left out, replaced or swapped with their neighbour to make `a`
/// of `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.iter().enumerate() {
        let mut this = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let replaced = last[column] + usize::from(!from.eq_ignore_ascii_case(to));
            let mut least = replaced.min(last[column + 1] + 1).min(this[column] + 1);
            let swapped =
                row > 0 && column > 0 && *from == b[column - 1] && a[row - 1] == *to && from != to;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            this.push(least);
        }
        before = std::mem::replace(&mut last, this);
    }
    last[b.len()]
}

/// Beyond this many slips a word is another word.
const DISTANCE_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["routes", "upstreams", "weight", "http_path", "id", "active"];
        let check = |word: &str, expected: Option<&str>| {
            let expected = expected.map(|name| format!("; did you mean `{name}`?"));
            let hint = did_you_mean(word, known.into_iter());
            assert_eq!(hint, expected.unwrap_or_default(), "{word}");
        };
        check("routess", Some("routes"));
        check("Routes", Some("routes"));
        check("wieght", Some("weight"));
        check("upstream", Some("upstreams"));
        check("httppath", Some("http_path"));
        check("di", Some("id"));
        check("xyzzy", None);
        check("", None);
        check("\u{20ac}\u{20ac}", None);
    }
}
