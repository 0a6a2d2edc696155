//! A server by the protocol, whose cache dies with it, and whose answers come in any order.

use std::collections::VecDeque;

/// What a server is like, and how it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    None,
    /// The cookie of nobody.
    Cookie,
    /// Every answer comes twice.
    Twice,
    /// Data lie outside of the request.
    Outside,
    /// A part of the data comes twice, and another one not at all.
    Overlap,
    /// A part of the data does not come.
    Short,
    /// Another magic.
    Magic,
    /// A chunk of an unknown type.
    Chunk,
    /// An error that is none.
    NoError,
    /// Data come from before the request.
    Before,
    /// Data lie so far behind the request that their end has no number.
    Overflow,
    /// More data than were asked for.
    Long,
    /// A hole of no length.
    NoHole,
    /// Data in a reply to what reads nothing.
    DataOfFlush,
    /// Another kind of reply than the one that was agreed on.
    OtherKind,
    /// An error with a text of gigabytes.
    Text,
    /// A text that is longer than its chunk.
    TextBeyond,
    /// A chunk that has no end and is not the last one.
    Nothing,
    /// More pieces than anybody keeps books of.
    Crumbs,
    /// A reply to an option of gigabytes.
    Option,
    /// A reply to an option that has data where it may have none.
    AckWithData,
    /// A reply to another option.
    OtherOption,
    /// Information without end.
    Endless,
    /// No information before the end of it.
    NoInfo,
    /// A smallest block of no bytes.
    BlockOfNothing,
    /// The size of the export is none.
    NegativeSize,
    /// The export is refused: it is not there, for TLS alone, or for another reason.
    Unknown,
    Tls,
    Policy,
    /// Nothing is ever answered.
    Silence,
}

/// The options of a server.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub structured: bool,
    pub go: bool,
    pub flags: u16,
    /// Largest request.
    pub max: u32,
    pub lie: Lie,
}

/// The medium, and what is in the cache before it.
pub struct Disk {
    pub stable: Vec<u8>,
    pub cache: Vec<u8>,
}

impl Disk {
    pub fn new(len: usize) -> Self {
        Self {
            stable: vec![0; len],
            cache: vec![0; len],
        }
    }

    /// The process dies.
    pub fn die(&mut self) {
        self.cache.clone_from(&self.stable);
    }
}

/// A connection of a server.
pub struct Server {
    options: Options,
    input: VecDeque<u8>,
    pub output: Vec<u8>,
    step: Step,
    structured: bool,
    /// Requests that have come and were not carried out.
    pub pending: Vec<(u16, u16, u64, u64, u32, Vec<u8>)>,
    pub left: bool,
}

#[derive(PartialEq)]
enum Step {
    Flags,
    Options,
    Requests,
}

impl Server {
    pub fn new(options: Options) -> Self {
        let mut output = b"NBDMAGICIHAVEOPT".to_vec();
        output.extend(3u16.to_be_bytes());
        Self {
            options,
            input: VecDeque::new(),
            output,
            step: Step::Flags,
            structured: false,
            pending: Vec::new(),
            left: false,
        }
    }

    pub fn receive(&mut self, bytes: &[u8], disk: &Disk) {
        self.input.extend(bytes);
        while self.step(disk) {}
    }

    fn peek<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let bytes = self.input.iter().skip(at).take(N).copied();
        bytes.collect::<Vec<u8>>().try_into().ok()
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        (self.input.len() >= count).then(|| self.input.drain(..count).collect())
    }

    fn step(&mut self, disk: &Disk) -> bool {
        match self.step {
            Step::Flags => {
                let Some(flags) = self.take(4) else {
                    return false;
                };
                assert_eq!(flags, [0, 0, 0, 3]);
                self.step = Step::Options;
                true
            }
            Step::Options => self.option(disk),
            Step::Requests => self.request(),
        }
    }

    fn option(&mut self, disk: &Disk) -> bool {
        let Some(len) = self.peek(12).map(u32::from_be_bytes) else {
            return false;
        };
        let Some(bytes) = self.take(16 + len as usize) else {
            return false;
        };
        assert_eq!(bytes[..8], *b"IHAVEOPT");
        let number = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
        let mut about = (disk.cache.len() as u64).to_be_bytes().to_vec();
        about.extend(self.options.flags.to_be_bytes());
        match number {
            8 if self.options.structured => {
                self.structured = true;
                self.answer(number, 1, &[]);
            }
            7 if self.lies_of_export(number, &about) => {}
            7 if self.options.go => {
                assert_eq!(bytes[20..24], *b"disk");
                self.answer(number, 3, &[&[0, 0][..], &about].concat());
                let sizes = [512, 4096, self.options.max].map(u32::to_be_bytes);
                self.answer(number, 3, &[&[0, 3][..], sizes.as_flattened()].concat());
                // A name, which nobody has asked for.
                self.answer(number, 3, b"\0\x01disk");
                self.answer(number, 1, &[]);
                self.step = Step::Requests;
            }
            1 => {
                assert_eq!(bytes[16..], *b"disk");
                self.output.extend(about);
                self.step = Step::Requests;
            }
            _ => self.answer(number, 1 << 31 | 1, b"what?"),
        }
        true
    }

    /// Lies in answer to `NBD_OPT_GO`.
    fn lies_of_export(&mut self, number: u32, about: &[u8]) -> bool {
        let info = [&[0, 0][..], about].concat();
        match self.options.lie {
            Lie::Option => self.answer_head(number, 3, u32::MAX),
            Lie::AckWithData => self.answer(number, 1, &[0]),
            Lie::OtherOption => self.answer(number ^ 1, 3, &info),
            Lie::Endless => (0..1000).for_each(|_| self.answer(number, 3, &info)),
            Lie::NoInfo => self.answer(number, 1, &[]),
            Lie::BlockOfNothing => self.answer(number, 3, &[[0, 3].as_slice(), &[0; 12]].concat()),
            Lie::NegativeSize => {
                self.answer(number, 3, &[[0, 0].as_slice(), &[0xff; 10]].concat());
                self.answer(number, 1, &[]);
            }
            Lie::Tls => self.answer(number, 1 << 31 | 5, &[]),
            Lie::Unknown => self.answer(number, 1 << 31 | 6, b"no such export"),
            Lie::Policy => self.answer(number, 1 << 31 | 2, &[b'x'; 4096]),
            _ => return false,
        }
        true
    }

    fn answer_head(&mut self, option: u32, kind: u32, len: u32) {
        self.output.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
        for word in [option, kind, len] {
            self.output.extend(word.to_be_bytes());
        }
    }

    fn answer(&mut self, option: u32, kind: u32, data: &[u8]) {
        self.answer_head(option, kind, data.len() as u32);
        self.output.extend(data);
    }

    fn request(&mut self) -> bool {
        let Some(head) = self.peek::<28>(0) else {
            return false;
        };
        assert_eq!(head[..4], 0x2560_9513_u32.to_be_bytes());
        let short = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap());
        let len = u32::from_be_bytes(head[24..].try_into().unwrap());
        let data = if short(6) == 1 { len as usize } else { 0 };
        let Some(bytes) = self.take(28 + data) else {
            return false;
        };
        if short(6) == 2 {
            self.left = true;
            return true;
        }
        if short(6) < 2 {
            assert!(len <= self.options.max || !self.options.go);
        }
        let data = bytes[28..].to_vec();
        self.pending
            .push((short(6), short(4), long(8), long(16), len, data));
        true
    }

    /// Carries out one of the requests and answers it. `cut` says where data are cut.
    pub fn serve(&mut self, which: usize, cut: usize, disk: &mut Disk) {
        if self.pending.is_empty() || self.options.lie == Lie::Silence {
            return;
        }
        let place = which % self.pending.len();
        let (kind, flags, mut cookie, offset, len, data) = self.pending.remove(place);
        let range = offset as usize..offset as usize + len as usize;
        match kind {
            1 => disk.cache[range.clone()].copy_from_slice(&data),
            6 => disk.cache[range.clone()].fill(0),
            3 => disk.stable.clone_from(&disk.cache),
            _ => {}
        }
        if flags & 1 != 0 {
            disk.stable[range.clone()].copy_from_slice(&disk.cache[range.clone()]);
        }
        if self.options.lie == Lie::Cookie {
            cookie ^= 1 << 40;
        }
        let from = self.output.len();
        let structured = self.structured ^ (self.options.lie == Lie::OtherKind);
        if self.options.lie == Lie::DataOfFlush {
            self.chunk(1, 1, cookie, &[0; 8 + 512]);
        } else if kind == 0 && structured {
            self.chunks(cookie, offset, &disk.cache[range], cut);
        } else {
            let magic = 0x6744_6698_u32 ^ u32::from(self.options.lie == Lie::Magic);
            self.output.extend(magic.to_be_bytes());
            self.output.extend(0u32.to_be_bytes());
            self.output.extend(cookie.to_be_bytes());
            if kind == 0 {
                self.output.extend(&disk.cache[range]);
            }
        }
        if self.options.lie == Lie::Twice {
            self.output.extend_from_within(from..);
        }
    }

    /// Data in two chunks, the later ones first, zeroes as a hole.
    fn chunks(&mut self, cookie: u64, offset: u64, data: &[u8], cut: usize) {
        let lie = self.options.lie;
        let cut = cut % data.len();
        if lie == Lie::Crumbs {
            for at in (0..data.len()).step_by(2) {
                let place = (offset + at as u64).to_be_bytes();
                self.chunk(0, 1, cookie, &[&place[..], &data[at..=at]].concat());
            }
        }
        let mut pieces = vec![(cut, &data[cut..]), (0, &data[..cut])];
        match lie {
            Lie::Short => {
                pieces[0].1 = &pieces[0].1[1..];
            }
            Lie::Overlap => pieces[1] = pieces[0],
            Lie::Outside => pieces[0].0 += 1,
            Lie::Before => pieces[1].0 = 0_usize.wrapping_sub(1),
            Lie::Overflow => pieces[0].0 = usize::MAX - offset as usize,
            _ => {}
        }
        for (at, piece) in pieces {
            if piece.is_empty() {
                continue;
            }
            let place = offset.wrapping_add(at as u64).to_be_bytes();
            if piece.iter().all(|byte| *byte == 0) {
                let len = (piece.len() as u32).to_be_bytes();
                self.chunk(0, 2, cookie, &[&place[..], &len].concat());
            } else {
                self.chunk(0, 1, cookie, &[&place[..], piece].concat());
            }
        }
        match lie {
            Lie::Chunk => self.chunk(1, 5, cookie, &[0; 12]),
            Lie::NoError => self.chunk(1, 1 << 15 | 1, cookie, &[0; 6]),
            Lie::Long => self.chunk(1, 1, cookie, &[0; 8 + 8192]),
            Lie::NoHole => self.chunk(1, 2, cookie, &[0; 12]),
            Lie::Nothing => self.chunk(0, 0, cookie, &[]),
            Lie::Text => self.chunk_head(1, 1 << 15 | 1, cookie, u32::MAX),
            Lie::TextBeyond => self.chunk(1, 1 << 15 | 1, cookie, &[0, 0, 0, 5, 0, 9, b'x']),
            Lie::Magic => self.output.extend([0; 20]),
            _ => self.chunk(1, 0, cookie, &[]),
        }
    }

    fn chunk(&mut self, flags: u16, kind: u16, cookie: u64, data: &[u8]) {
        self.chunk_head(flags, kind, cookie, data.len() as u32);
        self.output.extend(data);
    }

    fn chunk_head(&mut self, flags: u16, kind: u16, cookie: u64, len: u32) {
        self.output.extend(0x668e_33ef_u32.to_be_bytes());
        self.output.extend(flags.to_be_bytes());
        self.output.extend(kind.to_be_bytes());
        self.output.extend(cookie.to_be_bytes());
        self.output.extend(len.to_be_bytes());
    }
}
