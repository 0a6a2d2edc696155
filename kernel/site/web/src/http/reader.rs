//! Finds one request after the other in what a connection brings, in a buffer of fixed size.
//!
//! The owner of the connection reads into [`Reader::space`] and says with [`Reader::received`] how
//! much came, until [`Reader::has_head`]. Then [`Reader::split`] gives the head, and the body to be
//! filled the same way. [`Reader::next`] goes on with what came behind the request.

use super::body::{BODY_MAX, Byte, Decoder};
use super::head::{Head, RequestLine};
use super::refusal::Refusal;

/// The longest request line, in bytes: RFC 9112, 3, wants 8000 at least.
pub const LINE_MAX: usize = 8000;
/// The longest head of a request, with its line, in bytes.
const HEAD_MAX: usize = LINE_MAX + 2048;
/// The size of the buffer: a head, and a body behind it with room to read it in.
pub const BUFFER_BYTES: usize = HEAD_MAX + BODY_MAX + 1024;

/// More empty lines before a request are refused. RFC 9112, 2.2, wants one to be passed over.
const EMPTY_LINES_MAX: usize = 4;

/// The requests of one connection.
#[derive(Debug)]
pub struct Reader<'b> {
    buffer: &'b mut [u8],
    /// Where the unread bytes end.
    filled: usize,
    /// How much of them was looked at.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// The length of the request line with its end, if it is complete.
    request_line: Option<usize>,
    /// The length of the head, if it is complete.
    head: Option<usize>,
    /// Where in the rest the bytes behind the body begin.
    consumed: usize,
    empty_lines: usize,
}

/// The body of a request, on its way in.
#[derive(Debug)]
pub struct Body<'r> {
    /// The buffer behind the head: the decoded bytes, those that went into them, and those not
    /// looked at yet.
    bytes: &'r mut [u8],
    /// The length of the head, which counts in `filled`.
    head: usize,
    filled: &'r mut usize,
    consumed: &'r mut usize,
    decoder: Result<Decoder, Refusal>,
    decoded: usize,
}

impl<'b> Reader<'b> {
    /// A new connection. The buffer has [`BUFFER_BYTES`].
    #[must_use]
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            filled: 0,
            scanned: 0,
            line: 0,
            request_line: None,
            head: None,
            consumed: 0,
            empty_lines: 0,
        }
    }

    /// Whether nothing of a request has come, besides empty lines.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.filled == 0
    }

    /// Whether the request, as far as it has come, is one for `HEAD`, whose answer has no body.
    #[must_use]
    pub fn is_for_head(&self) -> bool {
        self.buffer[..self.filled].starts_with(b"HEAD ")
    }

    /// Where the next bytes of the connection belong.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes came.
    pub fn received(&mut self, count: usize) {
        self.filled = self.filled.saturating_add(count).min(self.buffer.len());
    }

    /// Whether the head of a request is complete. Only if it is not, there is space for more.
    ///
    /// # Errors
    /// [`Refusal`], as soon as it is sure that no valid head will come of it.
    pub fn has_head(&mut self) -> Result<bool, Refusal> {
        while self.head.is_none() && self.scanned < self.filled {
            let byte = self.buffer[self.scanned];
            self.scanned += 1;
            let after_cr = self.buffer[self.line..self.scanned - 1].last() == Some(&b'\r');
            match byte {
                b'\n' if after_cr => self.end_line()?,
                b'\n' | 0 => return Err(Refusal::LineEnd),
                _ if after_cr => return Err(Refusal::LineEnd),
                _ => {}
            }
            if self.request_line.is_none() && self.scanned > LINE_MAX {
                return Err(Refusal::TargetTooLong);
            }
            if self.scanned > HEAD_MAX {
                return Err(Refusal::FieldsTooLong);
            }
        }
        Ok(self.head.is_some())
    }

    fn end_line(&mut self) -> Result<(), Refusal> {
        let line = &self.buffer[self.line..self.scanned - 2];
        match (line.is_empty(), self.request_line) {
            (true, None) => {
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES_MAX {
                    return Err(Refusal::RequestLine);
                }
                self.discard(self.scanned);
                return Ok(());
            }
            (true, Some(_)) => self.head = Some(self.scanned),
            (false, None) => {
                RequestLine::parse(line)?;
                self.request_line = Some(self.scanned);
            }
            (false, Some(_)) => {}
        }
        self.line = self.scanned;
        Ok(())
    }

    /// The head, and the body behind it. Only after [`has_head`](Self::has_head) said that it is
    /// there.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn split(&mut self) -> Result<(Head<'_>, Body<'_>), Refusal> {
        let length = self.head.ok_or(Refusal::RequestLine)?;
        let (head, bytes) = self.buffer.split_at_mut(length);
        let head = Head::parse(head)?;
        let body = Body {
            bytes,
            head: length,
            filled: &mut self.filled,
            consumed: &mut self.consumed,
            decoder: Decoder::new(head.framing),
            decoded: 0,
        };
        Ok((head, body))
    }

    /// Goes on with the bytes behind the body.
    pub fn next(&mut self) {
        if let Some(head) = self.head.take() {
            self.discard(head + self.consumed);
            self.consumed = 0;
            self.request_line = None;
            self.empty_lines = 0;
        }
    }

    /// Drops the first bytes; nothing of the others was looked at.
    fn discard(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
        self.scanned = 0;
        self.line = 0;
    }
}

impl Body<'_> {
    /// Whether the body is complete, as far as it has come.
    ///
    /// # Errors
    /// [`Refusal`], of which [`Refusal::BodyTooLong`] leaves the head good.
    pub fn is_complete(&mut self) -> Result<bool, Refusal> {
        let decoder = self.decoder.as_mut().map_err(|refusal| *refusal)?;
        let end = *self.filled - self.head;
        while !decoder.is_complete() && *self.consumed < end {
            let taken = decoder.take(self.bytes[*self.consumed])?;
            *self.consumed += 1;
            if let Byte::Data(byte) = taken {
                self.bytes[self.decoded] = byte;
                self.decoded += 1;
            }
        }
        Ok(decoder.is_complete())
    }

    /// Whether nothing has come behind the head.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        *self.filled == self.head
    }

    /// Where the next bytes of the connection belong, if the body is not complete.
    pub fn space(&mut self) -> &mut [u8] {
        // All that came was decoded, and gives its place to what comes.
        *self.consumed = self.decoded;
        *self.filled = self.head + self.decoded;
        &mut self.bytes[self.decoded..]
    }

    /// So many bytes came.
    pub fn received(&mut self, count: usize) {
        let limit = self.head + self.bytes.len();
        *self.filled = self.filled.saturating_add(count).min(limit);
    }

    /// The bytes of the body so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.decoded]
    }
}
