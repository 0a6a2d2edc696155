//! Requests as they come over a connection, good and bad, whole and in pieces.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::body::BODY_MAX;
use super::fields::FIELDS_MAX;
use super::head::{Head, Persistence};
use super::reader::{BUFFER_BYTES, LINE_MAX, Reader};
use super::refusal::Refusal;
use super::target::Target;

/// What was read of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conversation {
    /// Method, path, body, and whether the connection is kept.
    requests: Vec<(String, String, Vec<u8>, bool)>,
    refused: Option<Refusal>,
}

/// Reads everything, in pieces of at most `piece` bytes.
fn converse(mut bytes: &[u8], piece: usize) -> Conversation {
    let mut buffer = vec![0xa5; BUFFER_BYTES];
    let mut reader = Reader::new(&mut buffer);
    let mut conversation = Conversation::default();
    let mut come = |space: &mut [u8]| {
        let count = piece.min(space.len()).min(bytes.len());
        assert!(
            count > 0 || bytes.is_empty(),
            "there is space for what is to come"
        );
        space[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        count
    };
    let result = loop {
        match reader.has_head() {
            Ok(true) => {}
            Ok(false) => match come(reader.space()) {
                0 => break Ok(()),
                count => {
                    reader.received(count);
                    continue;
                }
            },
            Err(refusal) => break Err(refusal),
        }
        let request = match reader.split() {
            Ok((head, mut body)) => loop {
                match body.is_complete() {
                    Ok(true) => {
                        let path = match head.target {
                            Target::Resource { path, .. } => path,
                            Target::Server { .. } => "*",
                            Target::Tunnel => "tunnel",
                        };
                        let keep = head.persistence() == Persistence::Keep;
                        break Ok(Some((
                            head.method.to_string(),
                            path.to_string(),
                            body.bytes().to_vec(),
                            keep,
                        )));
                    }
                    Ok(false) => match come(body.space()) {
                        0 => break Ok(None),
                        count => body.received(count),
                    },
                    Err(refusal) => break Err(refusal),
                }
            },
            Err(refusal) => Err(refusal),
        };
        match request {
            Ok(Some(request)) => {
                let keep = request.3;
                conversation.requests.push(request);
                if !keep {
                    break Ok(());
                }
                reader.next();
            }
            Ok(None) => break Ok(()),
            Err(refusal) => break Err(refusal),
        }
    };
    conversation.refused = result.err();
    conversation
}

/// What becomes of one request after another one, however the connection cuts them.
fn one(request: &[u8]) -> Conversation {
    let whole = converse(request, usize::MAX);
    for piece in [1, 2, 7] {
        assert_eq!(converse(request, piece), whole, "in pieces of {piece}");
    }
    whole
}

#[track_caller]
fn refused(request: impl AsRef<[u8]>, refusal: Refusal) {
    let request = request.as_ref();
    let text = String::from_utf8_lossy(&request[..request.len().min(200)]).to_string();
    let conversation = one(request);
    assert_eq!(conversation.refused, Some(refusal), "{text:?}");
    assert!(conversation.requests.is_empty(), "{text:?}");
}

#[track_caller]
fn taken(request: impl AsRef<[u8]>, expected: &[(&str, &str, &[u8])]) {
    let conversation = one(request.as_ref());
    assert_eq!(conversation.refused, None);
    let requests: Vec<_> = conversation
        .requests
        .iter()
        .map(|(method, path, body, _)| (method.as_str(), path.as_str(), body.as_slice()))
        .collect();
    assert_eq!(requests, expected);
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

#[test]
fn requests_follow_each_other() {
    taken(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
         \r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
         2;a=\"b c\";d\r\nde\r\n01\r\nf\r\n0\r\nTrailer: g\r\n\r\n\
         HEAD /d?e HTTP/1.7\r\nhost:x\r\nConnection: TE, close\r\n\r\nGET /never HTTP/1.1\r\n",
        &[
            ("GET", "/a", b""),
            ("POST", "/b", b"abc"),
            ("POST", "/c", b"def"),
            ("HEAD", "/d", b""),
        ],
    );
    taken("GET / HTTP/1.0\r\n\r\n!", &[("GET", "/", b"")]);
    taken(
        "\r\n\r\nOPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        &[("OPTIONS", "*", b"")],
    );
    taken(
        "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n",
        &[("CONNECT", "tunnel", b"")],
    );
}

#[test]
fn lines_of_one_list_are_one_list() {
    let head = "GET / HTTP/1.1\r\nHost: x\r\nIf-Match: \"a\"\r\nif-match:\r\nIf-Match: \"b\u{e9}\", W/\"c\"\r\n\r\n";
    let bytes: Vec<u8> = head
        .chars()
        .map(|c| u8::try_from(c).expect("Latin 1"))
        .collect();
    let head = Head::parse(&bytes).expect("a request");
    assert_eq!(
        head.combined_value("If-Match").as_deref(),
        Some("\"a\", , \"b\u{fffd}\", W/\"c\"")
    );
    assert_eq!(head.combined_value("If-None-Match"), None);
}

#[test]
fn the_line_is_as_the_grammar_says() {
    for (line, refusal) in [
        ("GET / HTTP/1.1 ", Refusal::RequestLine),
        ("GET  / HTTP/1.1", Refusal::RequestLine),
        (" GET / HTTP/1.1", Refusal::RequestLine),
        ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
        ("GET /", Refusal::RequestLine),
        ("GET", Refusal::RequestLine),
        ("G\u{e9}T / HTTP/1.1", Refusal::RequestLine),
        ("GET / http/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.10", Refusal::RequestLine),
        ("GET / HTTP/1", Refusal::RequestLine),
        ("GET / HTTP/-1.1", Refusal::RequestLine),
        ("GET /\x01 HTTP/1.1", Refusal::Target),
        ("GET /\x7f HTTP/1.1", Refusal::Target),
        ("GET /\u{e9} HTTP/1.1", Refusal::Target),
        ("GET /#a HTTP/1.1", Refusal::Target),
        ("GET * HTTP/1.1", Refusal::Target),
        ("get / HTTP/1.1", Refusal::Method),
        ("BREW / HTTP/1.1", Refusal::Method),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / HTTP/0.9", Refusal::Version),
        ("PRI * HTTP/2.0", Refusal::Version),
        ("GET /\0 HTTP/1.1", Refusal::LineEnd),
        ("GET / HTTP/1.1\rX", Refusal::LineEnd),
        ("GET / HTTP/1.1\nX", Refusal::LineEnd),
    ] {
        refused(format!("{line}\r\nHost: x\r\n\r\n"), refusal);
    }
    // There is a limit to empty lines, too.
    refused(
        "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n",
        Refusal::RequestLine,
    );
    refused("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::LineEnd);
}

#[test]
fn fields_are_as_the_grammar_says() {
    for field in [
        "A : b",
        " A: b",
        "A",
        ": b",
        "A b: c",
        "A: b\r\n c",
        "A: b\x01",
        "A: b\x1b[31m",
        "A: b\x7f",
        "A\x0b: b",
    ] {
        refused(post(&format!("{field}\r\n"), ""), Refusal::Field);
    }
    for field in ["A: b\rc", "A: b\nc", "A: \0", "A: b\r\r\n"] {
        refused(post(&format!("{field}\r\n"), ""), Refusal::LineEnd);
    }
    taken(post("A:\tb\u{e9}\t \r\n", ""), &[("POST", "/", b"")]);
}

#[test]
fn there_is_one_host() {
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{fields}\r\n"), Refusal::Host);
    }
    refused(
        "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
        Refusal::Host,
    );
    // Absolute-form does not make up for it.
    refused("GET http://a/ HTTP/1.1\r\n\r\n", Refusal::Host);
    for host in ["", "a", "a:80", "[::1]:80", "127.0.0.1:"] {
        taken(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            &[("GET", "/", b"")],
        );
    }
}

#[test]
fn nobody_can_disagree_about_the_length() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: x\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 2\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: x\r\nTransfer-Encoding: x\r\n",
    ] {
        refused(
            post(fields, "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"),
            Refusal::ContentLength,
        );
    }
    refused(
        format!("POST / HTTP/1.0\r\n{chunked}\r\n0\r\n\r\n"),
        Refusal::ContentLength,
    );
    for coding in ["chunked, chunked", "chunked, gzip", "gzip", "", ","] {
        refused(
            post(&format!("Transfer-Encoding: {coding}\r\n"), ""),
            Refusal::TransferEncoding,
        );
    }
    refused(
        post(&format!("{chunked}{chunked}"), ""),
        Refusal::TransferEncoding,
    );
    for coding in [
        "gzip, chunked",
        "xchunked",
        "identity",
        "chunked;a=b",
        "\"chunked\"",
    ] {
        refused(
            post(&format!("Transfer-Encoding: {coding}\r\n"), ""),
            Refusal::UnknownCoding,
        );
    }
    refused(post("Transfer-Encoding : chunked\r\n", ""), Refusal::Field);
    refused(
        post("Content-Length: 18446744073709551615\r\n", ""),
        Refusal::BodyTooLong,
    );
    refused(
        post(&format!("Content-Length: {}\r\n", BODY_MAX + 1), ""),
        Refusal::BodyTooLong,
    );
    taken(
        post("Content-Length: 0003\r\n", "abc"),
        &[("POST", "/", b"abc")],
    );
}

#[test]
fn chunks_are_as_the_grammar_says() {
    for body in [
        "\r\n",
        "x\r\n",
        "1",
        "1\n",
        "1 \r\n",
        "+1\r\na",
        "0x1\r\na",
        "1\r\nab",
        "1\r\na\n",
        "1;\x01\r\n",
        "1;a\n",
        "10000000000000000\r\n",
        "ffffffffffffffff0\r\n",
        "0\r\nA\r\n",
        "0\r\n: b\r\n",
        "0\r\nA : b\r\n",
        "0\r\nA: b\r\n c\r\n",
        "0\r\nA: \0\r\n",
        "0\r\n\rX",
    ] {
        let request = post("Transfer-Encoding: chunked\r\n", &format!("{body}GET /"));
        refused(request, Refusal::Chunk);
    }
    for (body, refusal) in [
        ("ffffffffffffffff\r\n".to_string(), Refusal::BodyTooLong),
        (format!("{:x}\r\n", BODY_MAX + 1), Refusal::BodyTooLong),
        ("1\r\na\r\n".repeat(BODY_MAX + 1), Refusal::BodyTooLong),
        (format!("1;{}", "a".repeat(1 << 20)), Refusal::FieldsTooLong),
        ("0".repeat(1 << 20), Refusal::FieldsTooLong),
        (
            format!("0\r\n{}", "A: b\r\n".repeat(1 << 17)),
            Refusal::FieldsTooLong,
        ),
    ] {
        refused(post("Transfer-Encoding: chunked\r\n", &body), refusal);
    }
    let longest = "1\r\na\r\n".repeat(BODY_MAX) + "0\r\n\r\n";
    let body = "a".repeat(BODY_MAX);
    let request = post("Transfer-Encoding: chunked\r\n", &longest);
    taken(request, &[("POST", "/", body.as_bytes())]);
}

#[test]
fn only_known_things_are_expected() {
    refused(
        post("Expect: coffee\r\nContent-Length: 1\r\n", "a"),
        Refusal::Expectation,
    );
    refused(
        post("Expect: 100-continue, coffee\r\n", ""),
        Refusal::Expectation,
    );
    taken(
        post("Expect: 100-Continue\r\nContent-Length: 1\r\n", "a"),
        &[("POST", "/", b"a")],
    );
}

#[test]
fn a_request_has_its_limits() {
    let long = "a".repeat(LINE_MAX);
    refused(format!("GET /{long}"), Refusal::TargetTooLong);
    refused(format!("{long}a"), Refusal::TargetTooLong);
    refused(
        post(&format!("A: {long}{long}"), ""),
        Refusal::FieldsTooLong,
    );
    refused(
        post(&"A: b\r\n".repeat(FIELDS_MAX), ""),
        Refusal::FieldsTooLong,
    );
    taken(
        post(&"A: b\r\n".repeat(FIELDS_MAX - 1), ""),
        &[("POST", "/", b"")],
    );
    // The longest line, and a body behind it.
    let path = &long[..LINE_MAX - "POST / HTTP/1.1\r\n".len()];
    let line = format!("POST /{path} HTTP/1.1\r\n");
    let body = "b".repeat(BODY_MAX);
    let request = format!("{line}Host: x\r\nContent-Length: {BODY_MAX}\r\n\r\n{body}");
    taken(
        request.repeat(2),
        &[("POST", format!("/{path}").as_str(), body.as_bytes()); 2],
    );
}

#[test]
fn the_target_says_which_host_is_meant() {
    let request = b"GET http://a:1/ HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut reader = Reader::new(&mut buffer);
    reader.space()[..request.len()].copy_from_slice(request);
    reader.received(request.len());
    assert_eq!(reader.has_head(), Ok(true));
    let (head, body) = reader.split().unwrap();
    assert!(body.is_untouched());
    assert_eq!(head.host(), Some("a:1"));
    assert_eq!(head.value("hOST"), Some("b"));
}

/// A request of a body in chunks, and the body.
fn chunked() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..100),
        "(;[a-z]{0,9}){0,2}",
    );
    proptest::collection::vec(chunk, 0..9).prop_map(|chunks| {
        let mut request = post("Transfer-Encoding: chunked\r\n", "").into_bytes();
        for (data, extension) in &chunks {
            request.extend(format!("{:X}{extension}\r\n", data.len()).bytes());
            request.extend(data);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        (
            request,
            chunks.into_iter().flat_map(|(data, _)| data).collect(),
        )
    })
}

/// Bytes that resemble requests.
fn resembling() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        8 => proptest::sample::select(vec![
            "GET ", "POST ", "/", "http://", "a", "*", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r\n\r\n", "Host: x\r\n",
            "Content-Length: 1", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n",
            "0\r\n\r\n", "1\r\na\r\n", ";", ":", " ", "\t", "\r", "\n", "\0", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn a_chunked_body_is_what_was_put_into_it((request, body) in chunked(), piece in 1_usize..200) {
        let next = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
        let conversation = converse(&[&request[..], next].concat(), piece);
        prop_assert_eq!(conversation.refused, None);
        prop_assert_eq!(&conversation.requests[0].2, &body);
        prop_assert_eq!(conversation.requests[1].1.as_str(), "/next");
    }

    #[test]
    fn pieces_make_no_difference(bytes in resembling(), piece in 1_usize..50) {
        prop_assert_eq!(converse(&bytes, piece), converse(&bytes, usize::MAX));
    }

    #[test]
    fn a_refused_connection_stays_refused_whatever_follows(bytes in resembling(), more in resembling()) {
        let before = converse(&bytes, usize::MAX);
        let after = converse(&[bytes, more].concat(), usize::MAX);
        if before.refused.is_some() {
            prop_assert_eq!(before, after);
        } else {
            let count = before.requests.len();
            prop_assert_eq!(&before.requests[..], &after.requests[..count]);
        }
    }
}

#[test]
fn of_a_field_that_is_there_once_several_count_as_none() {
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    for (fields, range) in [
        ("", None),
        ("Range: bytes=0-1\r\n", Some("bytes=0-1")),
        ("Range: bytes=0-1\r\nrange: bytes=2-3\r\n", None),
    ] {
        let text = head(fields);
        let head = Head::parse(text.as_bytes()).unwrap();
        assert_eq!(head.only_value("Range"), range, "{fields:?}");
    }
}

#[test]
fn a_reader_knows_a_request_for_head_however_it_ends() {
    for (bytes, expected) in [
        (&b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"[..], true),
        (b"\r\nHEAD /", true),
        (b"HEADS / HTTP/1.1\r\n", false),
        (b"GET / HTTP/1.1\r\n", false),
        (b"", false),
    ] {
        let mut buffer = vec![0xa5; BUFFER_BYTES];
        let mut reader = Reader::new(&mut buffer);
        reader.space()[..bytes.len()].copy_from_slice(bytes);
        reader.received(bytes.len());
        let _ = reader.has_head();
        assert_eq!(reader.is_for_head(), expected, "{bytes:?}");
    }
}
