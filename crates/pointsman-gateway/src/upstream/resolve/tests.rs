use super::*;

/// Makes `wanted` all names there are.
fn keep(names: &mut Names, wanted: &HashSet<&str>, now: Instant) {
    names.keep(wanted);
    names.add(wanted.iter().copied(), now);
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn found(addresses: &[IpAddr], ttl: u64) -> Found {
    Found {
        addresses: addresses.to_vec(),
        ttl: Duration::from_secs(ttl),
        unknown: None,
    }
}

fn names(wanted: &[&str], now: Instant) -> Names {
    let mut names = Names::default();
    keep(&mut names, &wanted.iter().copied().collect(), now);
    names
}

/// Answers the one look-up that is due; returns what changed and after how many seconds it is due again.
fn answer(names: &mut Names, answer: Option<&Found>, now: Instant) -> (Change, f64) {
    let lookup = names.poll(now).expect("due");
    assert!(names.poll(now).is_none());
    let change = names.on_answer(&lookup, answer, now);
    let due = names.next_deadline().expect("one is always due");
    (change, (due - now).as_secs_f64())
}

/// D-11, I-27: by the lifetime of the records, within bounds; failures change nothing.
#[test]
fn names_are_looked_up_by_their_ttl_and_failures_change_nothing() {
    let mut now = crate::clock::now();
    let names = &mut names(&["a"], now);
    let mut step = |found: Option<&Found>| {
        let (change, wait) = answer(names, found, now);
        now += Duration::from_secs_f64(wait);
        (change, wait, names.addresses("a").len())
    };
    assert_eq!(step(None), (Change::NeverResolved, 1.0, 0));
    assert_eq!(step(None), (Change::Nothing, 2.0, 0));
    let both = found(&[ip(2), ip(1), ip(2)], 5);
    assert_eq!(step(Some(&both)), (Change::Addresses(0), 5.0, 2));
    // The order says nothing.
    assert_eq!(
        step(Some(&found(&[ip(1), ip(2)], 0))),
        (Change::Nothing, 1.0, 2)
    );
    assert_eq!(step(Some(&found(&[], 60))), (Change::Stays, 1.0, 2));
    for wait in [2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        assert_eq!(step(None), (Change::Nothing, wait, 2));
    }
    let one = found(&[ip(3)], 1 << 40);
    assert_eq!(step(Some(&one)), (Change::Addresses(0), 3600.0, 1));
    assert_eq!(step(None), (Change::Stays, 1.0, 1));
}

#[test]
fn too_many_addresses_are_cut_to_the_same_ones_each_time() {
    let now = crate::clock::now();
    let all: Vec<IpAddr> = (0..500u16)
        .map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
        .collect();
    let reversed: Vec<IpAddr> = all.iter().rev().copied().collect();
    let names = &mut names(&["a"], now);
    assert_eq!(
        answer(names, Some(&found(&all, 1)), now).0,
        Change::Addresses(436)
    );
    assert_eq!(names.addresses("a"), &all[..64]);
    let later = now + Duration::from_secs(1);
    assert_eq!(
        answer(names, Some(&found(&reversed, 1)), later).0,
        Change::Nothing
    );
}

/// When only A or AAAA could be asked for, the other kind stays as it was.
#[test]
fn half_an_answer_takes_nothing_away() {
    let mut now = crate::clock::now();
    let six: IpAddr = "fd00::1".parse().expect("an address");
    let names = &mut names(&["a"], now);
    answer(names, Some(&found(&[ip(1), six], 1)), now);
    let half = Found {
        unknown: Some(Family::V6),
        ..found(&[ip(2)], 1)
    };
    now += Duration::from_secs(1);
    assert_eq!(answer(names, Some(&half), now).0, Change::Addresses(0));
    assert_eq!(names.addresses("a"), [ip(2), six]);
    now += Duration::from_secs(1);
    answer(names, Some(&found(&[ip(2)], 1)), now);
    assert_eq!(names.addresses("a"), [ip(2)]);
}

#[test]
fn names_come_and_go_with_the_configuration() {
    let now = crate::clock::now();
    let names = &mut names(&["a"], now);
    let old = names.poll(now).expect("due");
    keep(names, &HashSet::from(["b"]), now);
    let b = names.poll(now).expect("due");
    assert_eq!(&*b.name, "b");
    keep(names, &HashSet::from(["a", "b"]), now);
    let new = names.poll(now).expect("due");
    assert_eq!(&*new.name, "a");
    // An answer that was asked for under an earlier configuration is nobody's.
    let one = found(&[ip(1)], 1);
    assert_eq!(names.on_answer(&old, Some(&one), now), Change::Nothing);
    assert_eq!(names.on_answer(&new, Some(&one), now), Change::Addresses(0));
    keep(names, &HashSet::from(["a"]), now);
    assert_eq!(names.addresses("a"), [ip(1)]);
    assert_eq!(names.on_answer(&b, Some(&one), now), Change::Nothing);
    assert_eq!(names.under_way, 0);
}

#[test]
fn few_lookups_are_under_way_at_once() {
    let now = crate::clock::now();
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let names = &mut names(&many, now);
    let mut first: Vec<Lookup> = std::iter::from_fn(|| names.poll(now)).collect();
    assert_eq!((first.len(), names.next_deadline()), (LOOKUPS_MAX, None));
    let one = first.pop().expect("some");
    names.on_answer(&one, None, now);
    assert!(names.poll(now).is_some());
}
