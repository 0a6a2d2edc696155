//! What the site answers to bytes on a connection, whatever sends them: the framing of RFC 9112 and
//! what RFC 9110 says about it. A request that two readers could understand differently has one
//! answer, which says so, and the connection ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tests::web;

use crate::http::Files;

system_tests![
    every_case_of_the_table_has_its_answers_and_no_others,
    bodies_are_asked_for_when_the_client_waits,
    answers_to_head_and_options_have_no_body,
    who_takes_too_long_for_a_request_is_told_and_who_says_nothing_is_not,
    a_client_that_has_said_all_still_gets_its_answers,
];

/// An answer, or the end of the connection, that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that must never be answered.
const EVIL: &str = "DELETE /evil HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a server sent on one connection.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    /// Whether it ended the connection.
    closed: bool,
}

impl Heard {
    /// The status of each answer.
    fn statuses(&self) -> Vec<u16> {
        let text = self.text();
        let lines = text.split("HTTP/1.1 ").skip(1);
        lines
            .filter_map(|line| line.get(..3)?.parse().ok())
            .collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = web::connect(port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends the bytes and listens until the connection ends.
pub(crate) fn talk(port: u16, bytes: &[u8]) -> Heard {
    let mut stream = connect(port);
    // A server may have answered, and ended the connection, before it has all of them.
    let _ = stream.write_all(bytes);
    listen(stream)
}

fn listen(mut stream: TcpStream) -> Heard {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => {
                return Heard {
                    bytes,
                    closed: true,
                };
            }
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Heard {
                    bytes,
                    closed: false,
                };
            }
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn get(fields: &str) -> String {
    format!("GET /api/status HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /api/vdpa HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n{fields}\r\n{body}")
}

/// Requests and the statuses of the answers, after which the connection ends.
fn cases() -> Vec<(String, Vec<u16>)> {
    let show = "dev show";
    let last = get("Connection: close\r\n");
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n{EVIL}");
    let field = |field: &str| get(&format!("{field}\r\n")) + EVIL;
    let body = |fields: &str, body: &str| post(fields, body) + EVIL;
    let chunked = |text: &str| body("Transfer-Encoding: chunked\r\n", text);
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n{EVIL}");
    let file = |method: &str, fields: &str| {
        format!("{method} /files/a HTTP/1.1\r\nHost: x\r\n{fields}\r\n") + &last
    };
    let one = |request: String, status: u16| (request, vec![status]);
    vec![
        // Who could smuggle a request past somebody else (RFC 9112, 6.3 and 11.2).
        one(
            body(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            400,
        ),
        one(
            body(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                "0\r\n\r\n",
            ),
            400,
        ),
        one(body("Content-Length: 0\r\nContent-Length: 5\r\n", ""), 400),
        one(body("Content-Length: 0\r\nContent-Length: 0\r\n", ""), 400),
        one(body("Content-Length: 0, 0\r\n", ""), 400),
        one(body("Content-Length: x\r\n", ""), 400),
        one(body("Content-Length: -1\r\n", ""), 400),
        one(body("Content-Length: +1\r\n", "a"), 400),
        one(body("Content-Length: 0x1\r\n", "a"), 400),
        one(body("Content-Length: 1 1\r\n", "a"), 400),
        one(body("Content-Length:\r\n", ""), 400),
        one(body("Content-Length: 99999999999999999999\r\n", ""), 400),
        one(body("Content-Length : 1\r\n", "a"), 400),
        one(body("Content-Length: 18446744073709551615\r\n", ""), 413),
        one(body("Content-Length: 1025\r\n", ""), 413),
        one(body("Transfer-Encoding: gzip\r\n", ""), 400),
        one(
            body("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
            400,
        ),
        one(
            body("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        one(
            body(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            400,
        ),
        one(body("Transfer-Encoding:\r\n", "0\r\n\r\n"), 400),
        one(
            body("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            501,
        ),
        one(body("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 501),
        one(body("Transfer-Encoding: identity\r\n", ""), 501),
        one(body("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400),
        one(body("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400),
        one(
            format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{EVIL}"),
            400,
        ),
        // Chunks (RFC 9112, 7.1).
        one(chunked("x\r\n"), 400),
        one(chunked("\r\n"), 400),
        one(chunked("5\r\ndev showx\r\n0\r\n\r\n"), 400),
        one(chunked("1 \r\na\r\n0\r\n\r\n"), 400),
        one(chunked("1\na\n0\n\n"), 400),
        one(chunked("10000000000000001\r\na\r\n0\r\n\r\n"), 400),
        one(chunked("0\r\nA : b\r\n\r\n"), 400),
        one(chunked("0\r\nA: b\r\n c\r\n\r\n"), 400),
        one(chunked("1;a\rb\r\na\r\n0\r\n\r\n"), 400),
        one(chunked("1;a\nb\r\na\r\n0\r\n\r\n"), 400),
        one(chunked("-1\r\na\r\n0\r\n\r\n"), 400),
        one(chunked("0x1\r\na\r\n0\r\n\r\n"), 400),
        one(chunked("0\r\nA: b\nB: c\r\n\r\n"), 400),
        one(chunked("ffffffffffffffff\r\n"), 413),
        one(chunked(&format!("0\r\n{}", "A: b\r\n".repeat(4096))), 431),
        one(chunked("ffffffff\r\n"), 413),
        one(chunked(&format!("1;{}\r\n", "a".repeat(1 << 16))), 431),
        (
            post(
                "Transfer-Encoding: chunked\r\n",
                "3;a=\"b\"\r\ndev\r\n5\r\n show\r\n0\r\nA: b\r\n\r\n",
            ) + &last,
            vec![200, 200],
        ),
        (
            post("Transfer-Encoding:\t Chunked ,\r\n", "0008\r\ndev show\r\n0\r\n\r\n") + &last,
            vec![200, 200],
        ),
        (
            post("Content-Length: 8\r\n", show)
                + &post("Transfer-Encoding: chunked\r\n", "8\r\ndev show\r\n0\r\n\r\n")
                + &post("Content-Length: 08\r\n", show)
                + &last,
            vec![200, 200, 200, 200],
        ),
        // What is expected (RFC 9110, 10.1.1).
        one(
            body("Expect: 100-continue, x\r\nContent-Length: 8\r\n", show),
            417,
        ),
        (
            post("Expect: 100-Continue\r\nContent-Length: 8\r\n", show) + &last,
            vec![200, 200],
        ),
        (
            post("Expect: 100-continue\r\nContent-Length: 8\r\n", show) + &last,
            vec![200, 200],
        ),
        one(body("Expect: 200-ok\r\nContent-Length: 8\r\n", show), 417),
        one(
            body("Expect: 100-continue\r\nContent-Length: 9999\r\n", ""),
            413,
        ),
        // Request lines (RFC 9112, 3).
        one(line("GET /api/status"), 400),
        one(line("GET  /api/status HTTP/1.1"), 400),
        one(line("GET /api/status HTTP/1.1 "), 400),
        one(line("GET /api/status http/1.1"), 400),
        one(line("GET /api/status HTTP/11"), 400),
        one(line("GET\t/api/status\tHTTP/1.1"), 400),
        one(line("GET /\x1b[31m HTTP/1.1"), 400),
        one(line("GET /\0 HTTP/1.1"), 400),
        one(line("GET /a#b HTTP/1.1"), 400),
        one(line("GET api/status HTTP/1.1"), 400),
        one(line("GET * HTTP/1.1"), 400),
        one(line("GET /api/status HTTP/1.1\rA: b"), 400),
        one(line("GET /api/status HTTP/1.1\nA: b"), 400),
        one(line("GET /api/status HTTP/2.0"), 505),
        one(line("GET /api/status HTTP/0.9"), 505),
        one("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        one(line("BREW /api/status HTTP/1.1"), 501),
        one(line("get /api/status HTTP/1.1"), 501),
        one(line(&format!("GET /{} HTTP/1.1", "a".repeat(8000))), 414),
        one("a".repeat(20_000), 414),
        // Fields (RFC 9112, 5, and RFC 9110, 5).
        one(field("A : b"), 400),
        one(field(" A: b"), 400),
        one(field("A: b\r\n c"), 400),
        one(field("A b"), 400),
        one(field(": b"), 400),
        one(field("A: b\x01c"), 400),
        one(field("A: b\x1b[31mc"), 400),
        one(field("A: b\0c"), 400),
        one(field("A: b\rc"), 400),
        one(field("A: b\nc"), 400),
        one(field("Host: y"), 400),
        one(format!("GET / HTTP/1.1\r\n\r\n{EVIL}"), 400),
        one(format!("GET / HTTP/1.1\r\nHost: a b\r\n\r\n{EVIL}"), 400),
        one(format!("GET http://x/ HTTP/1.1\r\n\r\n{EVIL}"), 400),
        one(line("GET http://u:p@x/ HTTP/1.1"), 400),
        one(line("GET http:///a HTTP/1.1"), 400),
        one(line("GET https://x/ HTTP/1.1"), 400),
        one(line("GET http://x%/ HTTP/1.1"), 400),
        one(host("u@x"), 400),
        one(host("x:y"), 400),
        one(host("x/y"), 400),
        one(host("x%zz"), 400),
        one(host("[::1"), 400),
        one(host("x, y"), 400),
        one(field(&format!("A: {}", "b".repeat(12_000))), 431),
        one(field(&"A: b\r\n".repeat(100)), 431),
        // Parts and versions of a file (RFC 9110, 13 and 14).
        (file("GET", "Range: bytes=0-0\r\n"), vec![206, 200]),
        (file("GET", "Range: bytes=0-0,0-0\r\n"), vec![200, 200]),
        (
            file("GET", "Range: bytes=0-0\r\nRange: bytes=0-0\r\n"),
            vec![200, 200],
        ),
        (file("GET", "Range: bytes=1-\r\n"), vec![416, 200]),
        (file("GET", "Range: bytes=1-0\r\n"), vec![200, 200]),
        (
            file("GET", "Range: bytes=0-0\r\nIf-Range: \"x\"\r\n"),
            vec![200, 200],
        ),
        (file("HEAD", "Range: bytes=0-0\r\n"), vec![200, 200]),
        (file("HEAD", "Range: bytes=9-\r\n"), vec![200, 200]),
        (file("GET", "If-Match: \"x\"\r\n"), vec![412, 200]),
        (file("GET", "If-Match: *\r\n"), vec![200, 200]),
        (file("GET", "If-None-Match: *\r\n"), vec![304, 200]),
        (
            file("GET", "If-None-Match: \"x\"\r\nIf-None-Match: *\r\n"),
            vec![200, 200],
        ),
        (
            file("GET", "If-Match: \"\u{e9}\"\r\n"),
            vec![412, 200],
        ),
        (file("DELETE", ""), vec![405, 200]),
        (file("TRACE", ""), vec![405, 200]),
        (file("OPTIONS", "Content-Length: 0\r\n"), vec![204, 200]),
        // What is right.
        (
            "GET /api/status HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n".into(),
            vec![200],
        ),
        (
            "GET http://y:81/api/status HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n"
                .into(),
            vec![200],
        ),
        (
            get("Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n") + &last,
            vec![200, 200],
        ),
        (
            "GET /api/vdpa/dev%2fvdpa0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /api/vdpa/dev/%00 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (get("") + &get("") + &last, vec![200, 200, 200]),
        (format!("\r\n{last}"), vec![200]),
        (get("Connection: TE, close\r\n"), vec![200]),
        (get("Connection: TE\r\nConnection: Close\r\n"), vec![200]),
        ("GET /api/status HTTP/1.0\r\n\r\n".into(), vec![200]),
        (
            "GET /api/status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
            vec![200],
        ),
        (
            "GET http://x/api/status HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n".into(),
            vec![200],
        ),
        (
            "GET /api/status HTTP/1.9\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            vec![200],
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![204, 200],
        ),
        (
            "OPTIONS /api/vdpa/dev HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![204, 200],
        ),
        (
            // What follows may be meant for the other end of the tunnel.
            "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n".to_owned() + &last,
            vec![405],
        ),
        (
            "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned() + &last,
            vec![405, 200],
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![200, 200],
        ),
        (get("Content-Length: 3\r\n") + "abc" + &last, vec![200, 200]),
        (
            "GET /files/a%2fb HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /files/%2e%2e/%2e%2e/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /files/..%5ca HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /files/a%00b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /files/a%0d%0ab HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![404, 200],
        ),
        (
            "GET /%66ile%73/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![200, 200],
        ),
        (
            "GET /files/%zz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &last,
            vec![400, 200],
        ),
    ]
}

fn every_case_of_the_table_has_its_answers_and_no_others() {
    let (mut site, _image) = Files::new().with("a", b"x").serve();
    let port = site.client().port();
    let mut wrong = Vec::new();
    for (request, statuses) in cases() {
        let heard = talk(port, request.as_bytes());
        if heard.statuses() != statuses || !heard.closed {
            let shown: String = request.chars().take(300).collect();
            wrong.push(format!("{shown:?}: {statuses:?}, but {}", heard.text()));
        }
        let raw = |byte: &u8| byte.is_ascii_control() && !b"\r\n\t".contains(byte);
        assert!(
            !heard.bytes.iter().any(raw),
            "{request:?}: {}",
            heard.text()
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(site.is_running());
}

fn bodies_are_asked_for_when_the_client_waits() {
    let (site, _image) = Files::new().serve();
    let mut stream = connect(site.client().port());
    let fields = "Expect: 100-continue\r\nContent-Length: 8\r\nConnection: close\r\n";
    stream.write_all(post(fields, "").as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"dev show").unwrap();
    let heard = listen(stream);
    assert_eq!(heard.statuses(), [200]);
    assert!(heard.text().contains("vdpa0: "), "{}", heard.text());
}

fn answers_to_head_and_options_have_no_body() {
    let (site, _image) = Files::new().with("a", b"some").serve();
    let port = site.client().port();
    for (request, length) in [
        ("HEAD /files/a HTTP/1.0\r\n\r\n", Some("4")),
        ("HEAD /nothing HTTP/1.0\r\n\r\n", None),
        ("HEAD / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", None),
        (
            "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
            None,
        ),
        ("HEAD / HTTP/2.0\r\n", None),
        ("OPTIONS * HTTP/1.0\r\n\r\n", None),
    ] {
        let heard = talk(port, request.as_bytes());
        let text = heard.text();
        assert!(
            text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1,
            "{text}"
        );
        if let Some(length) = length {
            assert!(
                text.contains(&format!("\r\nContent-Length: {length}\r\n")),
                "{text}"
            );
        }
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
    let options = talk(port, b"OPTIONS / HTTP/1.0\r\n\r\n").text();
    assert!(
        options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"),
        "{options}"
    );
    assert!(
        !options.contains("Content-Length"),
        "RFC 9110, 8.6: {options}"
    );
}

fn who_takes_too_long_for_a_request_is_told_and_who_says_nothing_is_not() {
    let (site, _image) = Files::new().serve();
    let port = site.client().port();
    let start = Instant::now();
    thread::scope(|scope| {
        for (begin, statuses) in [
            ("GET / HTTP/1.1\r\nHost: x\r\nA: ", vec![408]),
            (&post("Content-Length: 100\r\n", "a"), vec![408]),
            (&post("Transfer-Encoding: chunked\r\n", "1;"), vec![408]),
            (&get(""), vec![200]),
            ("", vec![]),
        ] {
            let begin = begin.to_owned();
            scope.spawn(move || {
                let mut stream = connect(port);
                stream.write_all(begin.as_bytes()).unwrap();
                if statuses == [408] {
                    // A byte now and then is no progress.
                    for _ in 0..4 {
                        thread::sleep(Duration::from_secs(2));
                        stream.write_all(b"a").unwrap();
                    }
                }
                let heard = listen(stream);
                assert!(heard.closed, "{begin:?}");
                assert_eq!(heard.statuses(), statuses, "{begin:?}");
            });
        }
    });
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

fn a_client_that_has_said_all_still_gets_its_answers() {
    let (site, _image) = Files::new().serve();
    let mut stream = connect(site.client().port());
    stream.write_all((get("") + &get("")).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let heard = listen(stream);
    assert_eq!(heard.statuses(), [200, 200]);
    assert!(heard.closed);
}
