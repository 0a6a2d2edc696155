//! What a client has sent over one connection: structures that make sense, of requests that the
//! export takes.

use nbd_client::Export;

use super::books::pattern;

const OPTION: [u8; 8] = *b"IHAVEOPT";
const REQUEST: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
const REQUEST_LEN: usize = 28;

pub const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;

/// A request that was sent in whole.
#[derive(Clone, Copy)]
pub struct Request {
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u32,
}

/// A connection as its server sees it.
#[derive(Default)]
pub struct Line {
    bytes: Vec<u8>,
    has_flags: bool,
    has_left: bool,
    /// Options that an honest server has not answered.
    pub options: Vec<u32>,
    /// Requests that were not answered for good.
    pub pending: Vec<Request>,
}

impl Line {
    /// Takes what was sent. `cookies` is the last one of all connections.
    pub fn receive(&mut self, bytes: &[u8], export: Option<Export>, cookies: &mut u64) {
        self.bytes.extend_from_slice(bytes);
        while self.step(export, cookies) {}
    }

    fn step(&mut self, export: Option<Export>, cookies: &mut u64) -> bool {
        if !self.has_flags {
            let Some(_) = self.take(4) else {
                return false;
            };
            self.has_flags = true;
            return true;
        }
        if self.bytes.is_empty() {
            return false;
        }
        assert!(!self.has_left, "the last word was not the last one");
        if OPTION.starts_with(&self.bytes[..self.bytes.len().min(8)]) {
            return self.option();
        }
        let known = self.bytes.len().min(4);
        assert_eq!(self.bytes[..known], REQUEST[..known]);
        self.request(export, cookies)
    }

    fn option(&mut self) -> bool {
        let Some(head) = self.bytes.first_chunk::<16>() else {
            return false;
        };
        let (number, len) = (be32(&head[8..]), be32(&head[12..]));
        assert!(len <= 4096 + 8, "longer than any name");
        if self.take(16 + len as usize).is_none() {
            return false;
        }
        self.options.push(number);
        true
    }

    fn request(&mut self, export: Option<Export>, cookies: &mut u64) -> bool {
        let Some(head) = self.bytes.first_chunk::<REQUEST_LEN>() else {
            return false;
        };
        let export = export.expect("the export is known");
        let flags = u16::from_be_bytes([head[4], head[5]]);
        let request = Request {
            command: u16::from_be_bytes([head[6], head[7]]),
            cookie: be64(&head[8..]),
            offset: be64(&head[16..]),
            len: be32(&head[24..]),
        };
        let data = if request.command == WRITE {
            request.len
        } else {
            0
        };
        let Some(bytes) = self.take(REQUEST_LEN + data as usize) else {
            return false;
        };
        self.check(request, flags, export);
        let data = &bytes[REQUEST_LEN..];
        let mut places = data.iter().zip(request.offset..);
        assert!(
            places.all(|(byte, place)| *byte == pattern(place)),
            "other bytes than the request's"
        );
        if request.command == DISC {
            self.has_left = true;
            return true;
        }
        assert!(request.cookie > *cookies, "a cookie that was used before");
        *cookies = request.cookie;
        self.pending.push(request);
        true
    }

    fn check(&self, request: Request, flags: u16, export: Export) {
        let is_permitted = match request.command {
            READ | DISC => true,
            WRITE => !export.is_read_only(),
            FLUSH => export.has_flush(),
            TRIM => export.has_trim() && !export.is_read_only(),
            WRITE_ZEROES => export.has_write_zeroes() && !export.is_read_only(),
            other => panic!("command {other}"),
        };
        assert!(is_permitted, "command {}", request.command);
        let fua = u16::from(export.has_fua() && request.command != READ);
        let no_hole = u16::from(request.command == WRITE_ZEROES) << 1;
        assert_eq!(flags & !(fua | no_hole), 0, "flags");
        let len = u64::from(request.len);
        let blocks = export.blocks();
        let end = request.offset.checked_add(len).expect("no overflow");
        assert!(end <= export.size(), "outside of the export");
        assert!(request.offset.is_multiple_of(blocks.min.into()));
        assert!(len.is_multiple_of(blocks.min.into()) && request.len <= blocks.max);
        let has_extent = !matches!(request.command, DISC | FLUSH);
        assert_eq!(len > 0, has_extent);
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= count).then(|| self.bytes.drain(..count).collect())
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().expect("four"))
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().expect("eight"))
}
