//! Streams survive being written and read, however they are cut, and nothing makes readers and
//! writers break their promises.

use super::{
    BROKEN_OFF_ANYWHERE, CUT_ANYWHERE, DIALECTS, EVENTS_IN_ANY_ORDER, FRAMES_IN_ANY_ORDER, Rng,
    STREAMS, cases, events_of, generate_answer, settings,
};
use crate::{
    Protocol,
    conversation::Event,
    dialect::{
        Setting, StreamReader, StreamWriter, expresses,
        same::{
            assert_text,
            gathered::{End, Gathered},
            normal, strip, without_call_signatures,
        },
    },
    stream::{Framing, Unframed},
};

fn streamed(events: &[Event<'_>], setting: &Setting<'_>) -> Vec<u8> {
    let mut writer = StreamWriter::new(setting).unwrap();
    let mut out = Vec::new();
    for event in events {
        writer.write(event, &mut out);
    }
    out
}

fn gathered(setting: &Setting<'_>, pieces: &[&[u8]]) -> Gathered {
    let mut gathered = Gathered::default();
    events_of(setting, pieces, &mut |event| gathered.take(event));
    let text = || String::from_utf8_lossy(&pieces.concat()).into_owned();
    assert_eq!(gathered.broken(), None, "{:?}\n{}", setting.target, text());
    gathered
}

fn check(client: Protocol, rng: &mut Rng) {
    let setting = rng.pick(&settings(client));
    let response = generate_answer::response(client, true, rng);
    let events = generate_answer::events(&response, rng);
    let text = streamed(&events, &setting);
    let got = gathered(&setting, &[&text]);
    assert_eq!(
        got.end,
        Some(End::Proper),
        "{}",
        String::from_utf8_lossy(&text)
    );
    let lost = response.features(client).without(expresses(client));
    let [mut expected, mut got] = [response, got.into_response()];
    for one in [&mut expected, &mut got] {
        without_call_signatures(one, client);
        strip::response(one, lost, client);
        normal::response(one, client);
    }
    assert_text("stream", &expected, &got, &[&text]);
}

#[test]
fn streams_reach_clients() {
    cases(STREAMS, |rng| {
        for client in DIALECTS {
            check(client, rng);
        }
    });
}

fn texts_of(setting: &Setting<'_>, pieces: &[&[u8]]) -> Vec<String> {
    let mut texts = Vec::new();
    events_of(setting, pieces, &mut |event| {
        texts.push(format!("{event:?}"))
    });
    texts
}

/// A stream that is not too long to be cut everywhere.
fn short_stream(setting: &Setting<'_>, rng: &mut Rng) -> Vec<u8> {
    loop {
        let response = generate_answer::response(setting.client, true, rng);
        let text = streamed(&generate_answer::events(&response, rng), setting);
        if text.len() < 5_000 {
            return text;
        }
    }
}

/// A stream that is cut in two at any byte, and one that comes byte by byte, gives the same events.
#[test]
fn where_a_stream_is_cut_makes_no_difference() {
    cases(CUT_ANYWHERE, |rng| {
        for client in DIALECTS {
            let setting = rng.pick(&settings(client));
            let text = short_stream(&setting, rng);
            let whole = texts_of(&setting, &[&text]);
            for at in 0..text.len() {
                let (first, second) = text.split_at(at);
                assert_eq!(
                    texts_of(&setting, &[first, second]),
                    whole,
                    "{client:?}, cut at {at}"
                );
            }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(
                texts_of(&setting, &bytes),
                whole,
                "{client:?}, byte by byte"
            );
        }
    });
}

/// A stream that breaks off ends in an error, or has said all of its answers by then: some protocols
/// have no other end, or things behind it that not everybody sends.
#[test]
fn a_stream_that_breaks_off_never_looks_complete() {
    cases(BROKEN_OFF_ANYWHERE, |rng| {
        for client in DIALECTS {
            let setting = rng.pick(&settings(client));
            let text = short_stream(&setting, rng);
            let whole = gathered(&setting, &[&text]).into_response();
            for at in 0..text.len() {
                let cut = gathered(&setting, &[&text[..at]]);
                if cut.end == Some(End::Proper) {
                    let choices = cut.into_response().choices;
                    assert_eq!(choices, whole.choices, "{client:?}, cut at {at}");
                }
            }
        }
    });
}

/// Events in any order make no writer panic, and what is written makes no reader break a promise.
#[test]
fn writers_take_events_in_any_order() {
    cases(EVENTS_IN_ANY_ORDER, |rng| {
        for client in DIALECTS {
            let setting = rng.pick(&settings(client));
            let response = generate_answer::response(client, true, rng);
            let mut events = generate_answer::events(&response, rng);
            disturb(&mut events, rng);
            gathered(&setting, &[&streamed(&events, &setting)]);
        }
    });
}

/// Leaves some out, repeats some, exchanges some.
fn disturb<T: Clone>(list: &mut Vec<T>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(6) {
        if list.is_empty() {
            return;
        }
        let at = rng.below(list.len());
        match rng.below(3) {
            0 => drop(list.remove(at)),
            1 => {
                let again = list[at].clone();
                list.insert(rng.below(list.len()), again);
            }
            _ => {
                let other = rng.below(list.len());
                list.swap(at, other);
            }
        }
    }
}

/// What a provider sends in any order, and with any byte changed, makes no reader break a promise.
#[test]
fn readers_take_what_comes() {
    cases(FRAMES_IN_ANY_ORDER, |rng| {
        for target in DIALECTS {
            let setting = rng.pick(&settings(target));
            let response = generate_answer::response(target, true, rng);
            let text = streamed(&generate_answer::events(&response, rng), &setting);
            let mut frames: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            Framing::of(target).push(&text, |frame| match frame {
                Unframed::Event { name, data } => frames.push((name.to_vec(), data.to_vec())),
                Unframed::Broken(what) => panic!("{what}"),
            });
            disturb(&mut frames, rng);
            if rng.chance(30) && !frames.is_empty() {
                let at = rng.below(frames.len());
                let data = &mut frames[at].1;
                let place = rng.below(data.len().max(1));
                if let Some(byte) = data.get_mut(place) {
                    *byte = rng.pick(b"\"{}[]:,0nX\\");
                }
            }
            let mut reader = StreamReader::new(&setting).unwrap();
            let mut gathered = Gathered::default();
            for (name, data) in &frames {
                reader.event(name, data, &mut |event| gathered.take(&event));
            }
            reader.finish(&mut |event| gathered.take(&event));
            let frames = frames.iter().map(|(_, data)| String::from_utf8_lossy(data));
            let frames: Vec<_> = frames.collect();
            assert_eq!(gathered.broken(), None, "{target:?}\n{}", frames.join("\n"));
        }
    });
}
