use proptest::prelude::*;

use super::*;

fn outline(text: &[u8]) -> Result<Outline, Invalid> {
    super::outline(text, usize::MAX)
}

fn check(text: &str) {
    let ours = outline(text.as_bytes()).is_ok();
    let theirs = serde_json::from_str::<serde_json::Value>(text).is_ok();
    // The library refuses lone surrogates; for us a body is text that we pass on.
    let surrogate = text.to_ascii_lowercase().contains("\\ud");
    assert!(
        ours == theirs || surrogate,
        "{text:?}: ours {ours}, serde_json {theirs}"
    );
}

#[test]
fn valid_and_invalid_texts() {
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "[1,2]",
        "[1,]",
        "{\"a\":1}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "null",
        "nul",
        "true false",
        "01",
        "-",
        "-0",
        "1.",
        "1.5e",
        "1e5",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u1234\"",
        "\"a",
        "\"\u{1}\"",
        "{\"a\":{\"b\":[{},[]]}} ",
        "[[[[",
        "{\"messages\": [",
        "{}\"messages\": [",
        "\"é\"",
        "{\"a\":\"\\\"}\"}",
    ] {
        check(text);
    }
    assert!(outline(b"\"\xff\"").is_err());
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    assert_eq!(
        outline(deep.as_bytes()).map_err(|e| e.what).err(),
        Some("nested too deeply")
    );
    // What a request may hold can be read by a parser, and by us from inside a response.
    let deepest = "[".repeat(127) + &"]".repeat(127);
    check(&deepest);
    assert!(outline(deepest.as_bytes()).is_ok());
    check(&format!("[{deepest}]"));
    let echoed = format!("{{\"a\":{{\"b\":[{{\"c\":{deepest}}}]}}}}");
    assert!(value_at(echoed.as_bytes(), ["a", "b"]).is_some());
}

#[test]
fn members_are_found_by_place() {
    let text = br#" { "a" : 1 , "b\u0062":{"c":[ ]} } "#;
    let outline = outline(text).expect("valid");
    let members: Vec<_> = outline
        .members
        .iter()
        .map(|m| {
            (
                text::unescape(&text[m.key.clone()]).into_owned(),
                &text[m.value.clone()],
            )
        })
        .collect();
    assert_eq!(
        members,
        [
            ("a".to_owned(), &b"1"[..]),
            ("bb".to_owned(), &br#"{"c":[ ]}"#[..])
        ]
    );
    assert_eq!(text[outline.end], b'}');
}

/// Reads a string that begins before `text` in both ways.
fn check_scan(text: impl AsRef<[u8]>) {
    let text = [b"\"", text.as_ref()].concat();
    let slow = Walk {
        text: &text,
        at: 0,
        depth_max: 0,
    }
    .string_by_bytes();
    if let Ok(end) = slow {
        assert!(std::str::from_utf8(&text[..end]).is_ok(), "{text:?}");
    }
    for level in scan::levels() {
        let fast = scan::end_at(level, &text, 1);
        assert_eq!(fast, slow.ok(), "{text:?}");
    }
    assert_eq!(scan::end(&text, 1), slow.ok());
}

/// Whatever may begin beyond ASCII, followed by everything that decides about it, across the
/// border of two blocks.
#[test]
fn every_character_at_a_border() {
    const DECIDING: [u8; 14] = [
        b'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0xed, 0xf0, 0xff,
    ];
    let borders = [0x7f, 0x80, 0xbf, 0xc0];
    for first in 0x80..=0xff {
        for second in DECIDING {
            for (third, fourth) in borders.iter().flat_map(|b| borders.map(|c| (*b, c))) {
                let character = [first, second, third, fourth];
                let lead = [b'a'; 64];
                let lead = &lead[..61 + usize::from(second ^ third) % 4];
                check_scan([lead, &character, b"\""].concat());
                check_scan([lead, &character[..2], b"\""].concat());
                check_scan([lead, &character[..3], b"\""].concat());
            }
        }
    }
}

/// Every byte after a backslash, and every byte in every place of a `\\u` escape, at the border
/// of two blocks.
#[test]
fn every_escape_at_a_border() {
    for lead in 58..68 {
        let lead = "a".repeat(lead);
        for byte in 0..=127u8 {
            let byte = char::from(byte);
            check_scan(format!("{lead}\\{byte}0000\"{lead}"));
            for escape in ["{}000", "0{}00", "00{}0", "000{}"] {
                let escape = escape.replace("{}", &byte.to_string());
                check_scan(format!("{lead}\\u{escape}\"{lead}"));
            }
        }
    }
}

const PIECES: [&str; 19] = [
    "a",
    "word ",
    "\\\\",
    "\\\"",
    "\\n",
    "\\/",
    "\\u12aF",
    "\\uD83D\\uDE80",
    "\\",
    "\\x",
    "\\u",
    "\\u12",
    "\\u12g4",
    "\"",
    "\u{1}",
    "\u{1f}",
    "é",
    "駅",
    "\u{7f}",
];

/// Whole characters, mostly, so that a text is right about as often as wrong.
const CHARACTERS: [&[u8]; 40] = {
    const WHOLE: [&[u8]; 8] = [
        b"a",
        b"word ",
        "é".as_bytes(),
        "\u{7ff}".as_bytes(),
        "駅".as_bytes(),
        "\u{ffff}".as_bytes(),
        "🚂".as_bytes(),
        "\u{10ffff}".as_bytes(),
    ];
    let mut pieces: [&[u8]; 40] = [b""; 40];
    let mut at = 0;
    while at < 40 {
        pieces[at] = WHOLE[at % 8];
        at += 1;
    }
    pieces[39] = b"\xe9\xa7";
    pieces[31] = b"\x85";
    pieces
};

#[test]
fn values_are_found_by_path() {
    let text = br#"{"a":{"b":[1,{"c":2}],"b":"last"},"x.y":1,"a b":null}"#;
    let at = |path: &[&str]| value_at(text, path).map(|v| String::from_utf8_lossy(v).into_owned());
    assert_eq!(at(&["a", "b"]).as_deref(), Some(r#""last""#));
    assert_eq!(at(&["a b"]).as_deref(), Some("null"));
    assert_eq!(at(&["a", "c"]), None);
    assert_eq!(at(&["x.y", "z"]), None);
    assert_eq!(value_at(b"{\"a\":1", ["a"]), None);
}

proptest! {
    #[test]
    fn agrees_with_a_parser(text in "[\\[\\]{}:,\"\\\\a1.eE+\\-ntrufalsx \n]{0,24}") {
        check(&text);
    }

    /// Marks at every place of a block, and across two.
    #[test]
    fn agrees_about_long_strings(text in "[a-zé\u{1}\"\\\\n]{0,3}[a-zé ]{0,40}[\\\\\"/u0-9\u{1f}]{0,7}[a-z]{0,40}") {
        check(&format!("\"{text}\""));
        check(&format!("{{\"k\":\"{text}\"}}"));
    }

    /// Whole and broken escapes, quotes and control characters at every place of a block and
    /// across the borders of two, at every level of instructions that this machine has.
    #[test]
    fn the_scan_agrees_with_reading_bytes(
        lead in 0..140usize,
        pieces in proptest::collection::vec(
            proptest::sample::select(&PIECES[..]), 0..60),
        tail in 0..70usize,
    ) {
        let mut text = "a".repeat(lead);
        text.extend(pieces);
        text.push('"');
        text.push_str(&"b".repeat(tail));
        check_scan(&text);
    }

    /// The same with pieces of characters.
    #[test]
    fn the_scan_knows_utf8(
        lead in 0..70usize,
        pieces in proptest::collection::vec(
            proptest::sample::select(&CHARACTERS[..]), 0..60),
    ) {
        let text = ["a".repeat(lead).as_bytes(), &pieces.concat(), b"\""].concat();
        check_scan(&text);
        let is_text = std::str::from_utf8(&text).is_ok();
        assert_eq!(outline(&[b"\"", &text[..]].concat()).is_ok(), is_text);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = outline(&bytes);
        items(&bytes, drop);
    }
}
