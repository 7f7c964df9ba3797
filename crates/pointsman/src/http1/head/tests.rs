use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1000,
    lines: 10,
};

fn request(text: &str) -> Result<Option<RequestHead>, Failure> {
    HeadScan::default().request(&mut Bytes::copy_from_slice(text.as_bytes()), LIMITS)
}

fn post(lines: &str) -> Result<Option<Decoder>, Failure> {
    let head = request(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))?;
    Ok(head.expect("a whole head").body)
}

#[test]
fn framing_is_what_the_headers_say() {
    let check = |lines: &str, expected: Option<Decoder>| {
        assert_eq!(post(lines), Ok(expected), "{lines:?}");
    };
    check("", None);
    check("Content-Length: 0\r\n", None);
    check("content-length: 12\r\n", Some(Decoder::Length(12)));
    check("Transfer-Encoding: Chunked\r\n", Some(Decoder::chunked()));
}

#[test]
fn ambiguous_framing_is_refused() {
    let check = |lines: &str, expected: &Failure| {
        assert_eq!(post(lines).expect_err(lines), *expected, "{lines:?}");
    };
    for both in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: x\r\nContent-Length: 5\r\n",
    ] {
        check(both, &Failure::AmbiguousLength);
    }
    check(
        "Transfer-Encoding: gzip, chunked\r\n",
        &Failure::UnknownCoding,
    );
    for bad in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Bad Header: x\r\n",
        "X: a\0b\r\n",
        "X: 1\r\n folded\r\n",
        "Host: b\r\n",
    ] {
        assert!(matches!(post(bad), Err(Failure::BadHead(_))), "{bad:?}");
    }
    assert!(matches!(
        request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(Failure::BadHead(_))
    ));
    assert!(matches!(
        request("GET / HTTP/1.1\r\n\r\n"),
        Err(Failure::BadHead(_))
    ));
    assert!(matches!(
        request("GARBAGE\r\n\r\n"),
        Err(Failure::BadHead(_))
    ));
    assert!(matches!(
        request("GET / HTTP/3.0\r\n\r\n"),
        Err(Failure::BadHead(_))
    ));
}

#[test]
fn heads_are_found_however_they_are_cut() {
    let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 3\r\n\r\nabcGET ";
    let head = text.len() - 7;
    for cut in 1..text.len() {
        let mut scan = HeadScan::default();
        let mut input = Bytes::copy_from_slice(&text[..cut]);
        let mut found = scan.request(&mut input, LIMITS).expect("no error");
        assert_eq!(found.is_some(), cut >= head, "{cut}");
        if found.is_none() {
            input = Bytes::from([&input[..], &text[cut..]].concat());
            found = scan.request(&mut input, LIMITS).expect("no error");
        }
        let found = found.expect("the whole head is there");
        assert_eq!(found.uri, "/a?b");
        assert_eq!(found.body, Some(Decoder::Length(3)));
        assert!(
            b"abcGET ".starts_with(&input[..]) && (cut < head || input.len() == cut - head)
                || *input == b"abcGET "[..]
        );
    }
}

#[test]
fn connections_are_kept_as_the_versions_say() {
    let keeps = |text: &str| request(text).expect("valid").expect("whole").keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keeps(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"
    ));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn long_heads_are_refused() {
    let long = "a".repeat(1000);
    assert_eq!(
        request(&format!("GET /{long}")).expect_err("long"),
        Failure::TargetTooLong
    );
    let line = format!("GET / HTTP/1.1\r\nX: {long}");
    assert_eq!(request(&line).expect_err("long"), Failure::HeadTooLarge);
    let whole = format!("{line}\r\n\r\n");
    assert_eq!(request(&whole).expect_err("long"), Failure::HeadTooLarge);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(11));
    assert_eq!(request(&many).expect_err("many"), Failure::HeadTooLarge);
}

#[test]
fn responses_say_how_they_end() {
    let response = |method: Method, text: &str| {
        HeadScan::default().response(
            &mut Bytes::copy_from_slice(text.as_bytes()),
            &method,
            LIMITS.bytes,
        )
    };
    let check = |text: &str, body: Option<Decoder>, keep_alive: bool| {
        let head = response(Method::GET, text).expect(text).expect("whole");
        assert_eq!((head.body, head.keep_alive), (body, keep_alive), "{text}");
    };
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        Some(Decoder::Length(5)),
        true,
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        Some(Decoder::Length(5)),
        true,
    );
    check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None, true);
    check("HTTP/1.1 204 No\r\n\r\n", None, true);
    check("HTTP/1.1 200\r\n\r\n", Some(Decoder::UntilClose), false);
    check(
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        Some(Decoder::Length(5)),
        false,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Some(Decoder::chunked()),
        true,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        Some(Decoder::chunked()),
        false,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n",
        Some(Decoder::Length(3)),
        true,
    );
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        None,
        true,
    );
    let head = response(Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(head.expect("valid").expect("whole").body, None);
    for bad in [
        "not http at all\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ] {
        assert!(response(Method::GET, bad).is_err(), "{bad}");
    }
    assert!(
        response(Method::GET, "HTTP/1.1 200 OK\r\nCont")
            .expect("valid so far")
            .is_none()
    );
}
