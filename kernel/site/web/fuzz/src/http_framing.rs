//! A connection that brings any bytes.

use web::http::body::BODY_MAX;
use web::http::head::{Head, Persistence};
use web::http::reader::{BUFFER_BYTES, Reader};
use web::http::refusal::Refusal;
use web::path;

/// A connection that brings these bytes. The first one says in pieces of what size they come, which
/// must make no difference.
///
/// # Panics
/// If the reader does what it must not do.
pub fn http_framing(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else {
        return;
    };
    let whole = converse(bytes, usize::MAX);
    let cut = converse(bytes, usize::from(*piece).max(1));
    assert_eq!(whole, cut, "pieces make a difference");
}

/// What became of each request, and why there was no further one.
fn converse(mut bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<Refusal>) {
    let mut buffer = vec![0xa5; BUFFER_BYTES];
    let mut reader = Reader::new(&mut buffer);
    let mut requests = Vec::new();
    let mut come = |space: &mut [u8]| {
        let count = piece.min(space.len()).min(bytes.len());
        assert!(
            count > 0 || bytes.is_empty(),
            "there is no space for what is to come"
        );
        space[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        count
    };
    loop {
        match reader.has_head() {
            Ok(true) => {}
            Ok(false) => {
                match come(reader.space()) {
                    0 => return (requests, None),
                    count => reader.received(count),
                }
                continue;
            }
            Err(refusal) => return (requests, Some(refusal)),
        }
        let (head, mut body) = match reader.split() {
            Ok(request) => request,
            Err(refusal) => return (requests, Some(refusal)),
        };
        look_at(&head);
        loop {
            match body.is_complete() {
                Ok(true) => break,
                Ok(false) => match come(body.space()) {
                    0 => return (requests, None),
                    count => body.received(count),
                },
                Err(refusal) => return (requests, Some(refusal)),
            }
        }
        assert!(body.bytes().len() <= BODY_MAX);
        requests.push(body.bytes().to_vec());
        if head.persistence() == Persistence::Close {
            return (requests, None);
        }
        reader.next();
    }
}

/// Asks for what the site asks for.
fn look_at(head: &Head<'_>) {
    let host = head.host().unwrap_or_default();
    assert!(host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
    for name in [
        "Range",
        "If-Range",
        "If-None-Match",
        "Content-Type",
        "Origin",
    ] {
        let value = head.value(name).unwrap_or_default();
        let control = |byte: u8| byte.is_ascii_control() && byte != b'\t';
        assert!(!value.bytes().any(control), "{value:?}");
    }
    if let web::http::target::Target::Resource { path, .. } = head.target {
        assert!(path.starts_with('/'), "{path:?}");
        if let Ok(target) = path::Target::parse(path) {
            let again = path::Target::parse(&target.to_string());
            assert_eq!(again.map(|again| again.names), Ok(target.names));
        }
    }
}
