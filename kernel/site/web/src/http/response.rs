//! The beginning of an answer: status line and fields (RFC 9112, 4 and 6).

use alloc::string::String;
use core::fmt::Write;

use super::head::Persistence;

/// What tells the client where the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The status: there is none (RFC 9112, 6.3).
    Nowhere,
    /// Its length.
    Length(u64),
    /// The empty chunk at its end.
    Chunks,
    /// The end of the connection, for clients of HTTP/1.0.
    Connection,
    /// The method: there is none after `HEAD`, and nobody knows how long it would be.
    Head,
}

/// The interim answer by which a client is asked for the body of its request (RFC 9110, 15.2.1).
pub const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
/// What ends a body in chunks.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// The head of an answer, with the empty line at its end.
#[must_use]
pub fn head<'a>(
    status: u16,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    extent: Extent,
    persistence: Persistence,
) -> String {
    let mut head = String::new();
    let mut put = |parts: [&str; 4]| head.extend(parts);
    let mut digits = heapless::String::<20>::new();
    // Three digits fit.
    let _ = write!(digits, "{status}");
    put(["HTTP/1.1 ", &digits, " ", reason(status)]);
    for (name, value) in fields {
        put(["\r\n", name, ": ", value]);
    }
    match extent {
        Extent::Length(length) => {
            digits.clear();
            // So do the digits of any length.
            let _ = write!(digits, "{length}");
            put(["\r\n", "Content-Length", ": ", &digits]);
        }
        Extent::Chunks => put(["\r\n", "Transfer-Encoding", ": ", "chunked"]),
        Extent::Nowhere | Extent::Connection | Extent::Head => {}
    }
    if persistence == Persistence::Close {
        put(["\r\n", "Connection", ": ", "close"]);
    }
    put(["\r\n\r\n", "", "", ""]);
    head
}

/// The reason phrase (RFC 9110, 15), for people.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_where_it_ends_and_whether_the_connection_does() {
        let fields = [("Allow", "GET")];
        assert_eq!(
            head(405, fields, Extent::Length(u64::MAX), Persistence::Close),
            "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 18446744073709551615\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(
            head(200, [], Extent::Chunks, Persistence::Keep),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for extent in [Extent::Nowhere, Extent::Connection, Extent::Head] {
            let expected = "HTTP/1.1 204 No Content\r\n\r\n";
            assert_eq!(head(204, [], extent, Persistence::Keep), expected);
        }
    }
}
