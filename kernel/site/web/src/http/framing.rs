//! How long the body of a request is (RFC 9112, 6).

use super::fields::Fields;
use super::refusal::Refusal;
use super::version::Version;

/// What tells the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It is in chunks, of which the last one is empty.
    Chunked,
}

/// The framing of a request with these fields (RFC 9112, 6.3).
pub(super) fn of(fields: &Fields<'_>, version: Version) -> Result<Framing, Refusal> {
    let mut lengths = fields.values("Content-Length");
    let (length, another) = (lengths.next(), lengths.next());
    if fields.values("Transfer-Encoding").next().is_some() {
        // A client of HTTP/1.0 knows no transfer coding: somebody on the way did not understand it.
        if length.is_some() || version == Version::Http10 {
            return Err(Refusal::ContentLength);
        }
        return transfer_coding(fields).map(|()| Framing::Chunked);
    }
    match (length, another) {
        (None, _) => Ok(Framing::None),
        (Some(length), None) => decimal(length).map(Framing::Length),
        // Also if they agree: RFC 9112, 6.3, lets a server refuse that.
        (Some(_), Some(_)) => Err(Refusal::ContentLength),
    }
}

/// That the only coding is `chunked` (RFC 9112, 6.1 and 7).
fn transfer_coding(fields: &Fields<'_>) -> Result<(), Refusal> {
    /// Known codings, though not here: without `chunked` behind them nobody knows where the body
    /// ends.
    const COMPRESSING: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings = || fields.elements("Transfer-Encoding");
    let (count, chunks) = (
        codings().count(),
        codings().filter(|it| chunked(it)).count(),
    );
    match codings().last() {
        Some(last) if chunked(last) && count == 1 => Ok(()),
        Some(last) if chunked(last) && chunks == 1 => Err(Refusal::UnknownCoding),
        Some(last)
            if chunks == 0
                && !COMPRESSING
                    .iter()
                    .any(|known| last.eq_ignore_ascii_case(known.as_bytes())) =>
        {
            Err(Refusal::UnknownCoding)
        }
        _ => Err(Refusal::TransferEncoding),
    }
}

/// One or more digits, and nothing else (RFC 9110, 8.6).
fn decimal(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() {
        return Err(Refusal::ContentLength);
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => u64::from(digit - b'0'),
            _ => return Err(Refusal::ContentLength),
        };
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(digit))
            .ok_or(Refusal::ContentLength)
    })
}
