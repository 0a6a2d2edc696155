//! A hostile server behind a client with requests. Each request ends once, with bytes that were
//! asked for; what the client sends makes sense; and nobody waits for ever: something is to be sent,
//! or there is a time at which the server has taken too long.

use std::time::Duration;

use nbd_client::{Client, Command, Durability, Error, Export, Holes};

use super::answers::{self, ACK, DATA, ERROR, ERROR_OFFSET, HOLE, INFO, NONE, UNSUPPORTED};
use super::books::Books;
use super::input::Input;
use super::line::{Line, READ, Request};

const REQUESTS: usize = 16;
/// The most bytes of a request.
const LEN_MAX: u64 = 300 << 10;
/// The most bytes that are passed at once.
const ROOM: usize = 16 << 10;

/// Runs one program.
///
/// # Panics
/// If the client breaks a promise.
pub fn hostile_server(data: &[u8]) {
    let mut input = Input::new(data);
    let mut trial = Trial {
        client: Client::new("disk", REQUESTS),
        books: Books::default(),
        line: None,
        cookies: 0,
        now: Duration::ZERO,
        structured: input.flag(),
    };
    while !input.is_empty() {
        trial.step(&mut input);
        trial.look();
    }
    trial.finish();
}

struct Trial {
    client: Client<usize>,
    books: Books,
    /// The connection, if there is one.
    line: Option<Line>,
    cookies: u64,
    now: Duration,
    /// Whether an honest server has structured replies.
    structured: bool,
}

impl Trial {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0..7 => self.submit(input),
            7..14 => {
                let room = if input.flag() {
                    ROOM
                } else {
                    1 + input.below(64)
                };
                self.transmit(room);
            }
            14..20 => {
                let bytes = self.answer(input);
                self.say(&bytes, input);
            }
            20..23 => {
                let bytes = to_negotiation(input);
                self.say(&bytes, input);
            }
            23 => {
                let bytes = input.bytes();
                self.say(&bytes, input);
            }
            24..26 => self.be_honest(input),
            26 => {
                self.now += Duration::from_millis(500 * u64::from(input.byte()));
                if let Err(error) = self.client.check_time(self.now) {
                    self.end(Some(error));
                }
            }
            27 => {
                self.client.abandon();
                self.books.taken_back();
            }
            28 => {
                if input.flag() {
                    self.client.rest();
                } else {
                    self.client.leave();
                }
            }
            29 => self.end(None),
            _ => self.connect(),
        }
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let command = self.command(input);
        let readable = input.below(16) != 1;
        let number = self.books.add(command, readable);
        self.client.submit(number, command, &mut self.books);
    }

    fn command(&self, input: &mut Input<'_>) -> Command {
        let kind = input.below(8);
        let blocks = self
            .client
            .export()
            .map_or_else(Default::default, |it| it.blocks());
        let block = u64::from(blocks.min);
        let len = match input.below(16) {
            0 => match input.u64() {
                len if len >> 62 == 0 => len % (64 * u64::from(blocks.max)),
                len => len,
            },
            1 => LEN_MAX,
            count => count as u64 * block,
        };
        let offset = match input.below(8) {
            0 => input.u64(),
            place => u64::from(input.byte()) * place as u64 * block,
        };
        // Nobody has so much memory. The others have no data.
        let data = len.min(LEN_MAX);
        let durability = if input.flag() {
            Durability::Durable
        } else {
            Durability::Cached
        };
        let holes = if input.flag() {
            Holes::Allowed
        } else {
            Holes::Forbidden
        };
        match kind {
            0..2 => Command::Read { offset, len: data },
            2..5 => Command::Write {
                offset,
                len: data,
                durability,
            },
            5 => Command::Flush,
            6 => Command::Trim {
                offset,
                len,
                durability,
            },
            _ => Command::WriteZeroes {
                offset,
                len,
                durability,
                holes,
            },
        }
    }

    /// Lets the client send. How many bytes there were.
    fn transmit(&mut self, room: usize) -> usize {
        let Some(line) = &mut self.line else {
            return 0;
        };
        let wanted = self.client.wants_to_transmit();
        let mut bytes = vec![0; room];
        match self.client.transmit(&mut bytes, self.now, &mut self.books) {
            Ok(count) => {
                assert_eq!(count > 0, wanted, "it has something to send, or not");
                assert!(count == room || !self.client.wants_to_transmit());
                let export = self.client.export();
                line.receive(&bytes[..count], export, &mut self.cookies);
                count
            }
            Err(error) => {
                self.end(Some(error));
                0
            }
        }
    }

    /// Lets the server say something, at once or in two pieces.
    fn say(&mut self, bytes: &[u8], input: &mut Input<'_>) {
        let cut = usize::from(input.byte()).min(bytes.len());
        for piece in [&bytes[..cut], &bytes[cut..]] {
            self.receive(piece);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.line.is_none() || bytes.is_empty() {
            return;
        }
        if let Err(error) = self.client.receive(bytes, self.now, &mut self.books) {
            self.end(Some(error));
        }
    }

    /// An answer to a request that is under way, or nearly.
    fn answer(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let pending = self.line.as_mut().map(|line| &mut line.pending);
        let mut none = Vec::new();
        let pending = pending.unwrap_or(&mut none);
        let place = input.below(pending.len().max(1));
        let Some(mut request) = pending.get(place).copied() else {
            return input.bytes();
        };
        if input.below(4) > 0 {
            pending.remove(place);
        }
        if input.below(8) == 1 {
            request.cookie ^= 1 << input.below(64);
        }
        if input.flag() {
            simple(request, input)
        } else {
            chunk(request, input)
        }
    }

    /// Answers what is there as a server by the protocol.
    fn be_honest(&mut self, input: &mut Input<'_>) {
        let export = self.client.export();
        if self.line.is_none() {
            self.connect();
            self.receive(&answers::greeting(3));
        }
        let size = u64::from(input.byte()) << input.below(32);
        let flags = input.u16();
        for _ in 0..1 + input.below(4) {
            while self.transmit(ROOM) > 0 {}
            let Some(line) = &mut self.line else { return };
            let mut bytes = Vec::new();
            for option in line.options.drain(..) {
                bytes.extend(match export {
                    Some(export) => answers::to_option(option, export, self.structured),
                    None if option == 7 => first_export(size, flags),
                    None => answers::option_reply(option, ACK, 0, &[]),
                });
            }
            for request in line.pending.drain(..) {
                bytes.extend(answers::to_request(request, self.structured));
            }
            self.receive(&bytes);
        }
    }

    fn connect(&mut self) {
        self.end(None);
        self.line = Some(Line::default());
        self.client.connected(self.now);
    }

    fn end(&mut self, error: Option<Error>) {
        if self.line.take().is_some() {
            self.client.disconnected(error, &mut self.books);
        }
    }

    /// Nobody waits for nothing.
    fn look(&self) {
        let waits = !self.client.is_idle() && self.client.is_open();
        if waits {
            let comes = self.client.wants_to_transmit() || self.client.deadline().is_some();
            assert!(comes, "a request waits for ever");
        }
        if self.client.has_lost() {
            assert!(self.books.all_have_ended());
        }
    }

    /// Before a server by the protocol everything comes to its end.
    fn finish(&mut self) {
        let Some(export) = self.client.export() else {
            assert!(self.books.all_have_ended());
            return;
        };
        // A connection ends over each request whose bytes cannot be had.
        for _ in 0..=REQUESTS {
            self.serve(export);
            if self.line.is_some() {
                break;
            }
        }
        assert!(self.line.is_some(), "it ends such connections, too");
        assert!(self.client.is_idle() && self.books.all_have_ended());
        assert!(!self.client.wants_to_transmit());
        if !self.client.rest() {
            self.serve_line(export);
            assert!(self.client.rest(), "a flush brings it to rest");
        }
        assert_eq!(self.client.deadline(), None, "nothing is awaited");
    }

    fn serve(&mut self, export: Export) {
        self.connect();
        self.receive(&answers::greeting(3));
        self.serve_line(export);
    }

    fn serve_line(&mut self, export: Export) {
        loop {
            let sent = self.transmit(ROOM);
            let Some(line) = &mut self.line else { return };
            let mut bytes = Vec::new();
            for option in line.options.drain(..) {
                bytes.extend(answers::to_option(option, export, self.structured));
            }
            for request in line.pending.drain(..) {
                bytes.extend(answers::to_request(request, self.structured));
            }
            if bytes.is_empty() && sent == 0 {
                return;
            }
            self.receive(&bytes);
        }
    }
}

/// Says of an export that it is there.
fn first_export(size: u64, flags: u16) -> Vec<u8> {
    let about = answers::info(0, &answers::export(size, flags | 1));
    let mut bytes = answers::option_reply(7, INFO, about.len() as u32, &about);
    bytes.extend(answers::option_reply(7, ACK, 0, &[]));
    bytes
}

/// Something of the negotiation.
fn to_negotiation(input: &mut Input<'_>) -> Vec<u8> {
    let option = [8, 7, 7, 7, 7, 1, 1, input.u32()][input.below(8)];
    let (kind, data) = match input.below(8) {
        0 => return answers::greeting(input.u16()),
        1 => (UNSUPPORTED, Vec::new()),
        2 => (
            INFO,
            answers::info(0, &answers::export(input.u64(), input.u16())),
        ),
        3 => {
            let sizes = [(); 3].map(|()| input.u32());
            (INFO, answers::info(3, &answers::block_sizes(sizes)))
        }
        4 => {
            let sizes = [(); 3].map(|()| 1 << input.below(32));
            (INFO, answers::info(3, &answers::block_sizes(sizes)))
        }
        5 => return answers::export(u64::from(input.u16()) << 9, input.u16()),
        6 => (input.u32(), input.bytes()),
        _ => (ACK, Vec::new()),
    };
    let len = if input.below(8) == 1 {
        input.u32()
    } else {
        data.len() as u32
    };
    answers::option_reply(option, kind, len, &data)
}

fn simple(request: Request, input: &mut Input<'_>) -> Vec<u8> {
    let error = match input.below(4) {
        0..2 => 0,
        2 => u32::from(input.byte()),
        _ => input.u32(),
    };
    let data = match input.below(8) {
        1 => input.u32(),
        _ if request.command == READ && error == 0 => request.len,
        _ => 0,
    };
    answers::simple(request.cookie, error, data)
}

fn chunk(request: Request, input: &mut Input<'_>) -> Vec<u8> {
    let flags = match input.below(8) {
        0 => input.u16(),
        flags => flags as u16 & 1,
    };
    let kind = match input.below(8) {
        0 => NONE,
        1..4 => DATA,
        4 => HOLE,
        5 => ERROR,
        6 => ERROR_OFFSET,
        _ => input.u16(),
    };
    let (at, len) = match input.below(8) {
        0..3 => (0, request.len),
        3..6 => {
            let half = request.len / 2;
            let second = u32::from(input.flag());
            (u64::from(second * half), half)
        }
        6 => (input.below(256) as u64, input.byte().into()),
        _ => (input.u64(), input.u32()),
    };
    let place = request.offset.wrapping_add(at).to_be_bytes();
    let (fields, mut filler) = match kind {
        DATA => (place.to_vec(), len),
        HOLE => ([&place[..], &len.to_be_bytes()].concat(), 0),
        ERROR | ERROR_OFFSET => {
            let text = input.u16();
            let number = u32::from(input.byte());
            let fields = [&number.to_be_bytes()[..], &text.to_be_bytes()].concat();
            let place = if kind == ERROR { 0 } else { 8 };
            (fields, u32::from(text) + place)
        }
        _ => (Vec::new(), 0),
    };
    if input.below(16) == 1 {
        filler = input.u32();
    }
    answers::chunk(flags, kind, request.cookie, &fields, filler)
}
