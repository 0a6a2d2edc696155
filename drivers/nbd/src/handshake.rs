//! The negotiation, from the server's greeting to the transmission phase: the fixed newstyle.
//!
//! Structured replies are asked for first, then the export with `NBD_OPT_GO`; a server that does not
//! know that gets `NBD_OPT_EXPORT_NAME`.

use alloc::string::String;
use alloc::vec::Vec;

use super::error::Error;
use super::export::{BlockSizes, Export};
use super::wire;

const GREETING_LEN: usize = 18;
const REPLY_LEN: usize = 20;
/// What follows `NBD_OPT_EXPORT_NAME`, without and with its zeroes.
const EXPORT_LEN: usize = 10;
const EXPORT_ZEROES_LEN: usize = EXPORT_LEN + 124;
/// The longest structure of interest, `NBD_INFO_BLOCK_SIZE`.
const INFO_MAX: u32 = 14;
/// The longest reply to an option that is skipped: texts have up to 4096 bytes.
const REPLY_MAX: u32 = 16 << 10;
/// The most replies to one option: the kinds of information, and some room.
const REPLIES_MAX: u32 = 32;

/// What is awaited next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Greeting,
    /// The head of a reply to this option.
    Head(u32),
    /// Data of a reply to this option that are looked at.
    Info(u32),
    /// Data of a reply to this option that are not: how many are left, and what the reply was.
    Skip(u32, u32, u32),
    /// What follows `NBD_OPT_EXPORT_NAME`.
    Export,
}

/// A negotiation that is under way.
#[derive(Debug)]
pub(crate) struct Handshake {
    name: String,
    step: Step,
    /// What has come of the structure that is awaited.
    bytes: Vec<u8>,
    /// How long it is.
    wanted: usize,
    output: Vec<u8>,
    replies: u32,
    has_zeroes: bool,
    structured: bool,
    size_and_flags: Option<(u64, u16)>,
    blocks: Option<BlockSizes>,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) export: Export,
    pub(crate) structured: bool,
}

impl Handshake {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            step: Step::Greeting,
            bytes: Vec::new(),
            wanted: GREETING_LEN,
            output: Vec::new(),
            replies: 0,
            has_zeroes: true,
            structured: false,
            size_and_flags: None,
            blocks: None,
        }
    }

    /// What is to be sent. What was sent is taken away.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether something is to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Takes bytes of the server, and returns how many: all of them, unless they lead to the end.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(usize, Option<Agreement>), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Step::Skip(option, kind, left) = self.step {
                let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                rest = &rest[count..];
                let left = left - u32::try_from(count).unwrap_or(left);
                self.step = Step::Skip(option, kind, left);
                if left == 0
                    && let Some(done) = self.replied(option, kind)?
                {
                    return Ok((bytes.len() - rest.len(), Some(done)));
                }
                continue;
            }
            let missing = self.wanted - self.bytes.len();
            let (taken, others) = rest.split_at(missing.min(rest.len()));
            rest = others;
            self.bytes.extend_from_slice(taken);
            if self.bytes.len() == self.wanted
                && let Some(done) = self.step()?
            {
                return Ok((bytes.len() - rest.len(), Some(done)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// A structure is complete.
    fn step(&mut self) -> Result<Option<Agreement>, Error> {
        let bytes = core::mem::take(&mut self.bytes);
        match self.step {
            Step::Greeting => self.greet(&bytes).map(|()| None),
            Step::Head(option) => self.head(option, &bytes),
            Step::Info(option) => {
                self.info(&bytes)?;
                self.expect(Step::Head(option), REPLY_LEN);
                Ok(None)
            }
            Step::Export => {
                let (size, flags) = (wire::be64(&bytes, 0), wire::be16(&bytes, 8));
                self.size_and_flags = Some((size, flags));
                self.agree().map(Some)
            }
            Step::Skip(..) => Ok(None),
        }
    }

    fn greet(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if wire::be64(bytes, 0) != wire::INIT {
            return Err(Error::NotNbd);
        }
        match wire::be64(bytes, 8) {
            wire::NEWSTYLE => {}
            wire::OLDSTYLE => return Err(Error::Oldstyle),
            _ => return Err(Error::NotNbd),
        }
        let known = wire::FIXED_NEWSTYLE | wire::NO_ZEROES;
        let flags = wire::be16(bytes, 16) & known;
        self.has_zeroes = flags & wire::NO_ZEROES == 0;
        self.output.extend(u32::from(flags).to_be_bytes());
        if flags & wire::FIXED_NEWSTYLE == 0 {
            // It knows this one alone.
            self.ask_export_name();
        } else {
            self.ask(wire::OPT_STRUCTURED_REPLY, &[]);
        }
        Ok(())
    }

    fn ask(&mut self, option: u32, data: &[u8]) {
        wire::option(&mut self.output, option, data);
        self.replies = 0;
        self.expect(Step::Head(option), REPLY_LEN);
    }

    fn ask_export_name(&mut self) {
        let name = core::mem::take(&mut self.name);
        wire::option(&mut self.output, wire::OPT_EXPORT_NAME, name.as_bytes());
        let len = if self.has_zeroes {
            EXPORT_ZEROES_LEN
        } else {
            EXPORT_LEN
        };
        self.expect(Step::Export, len);
    }

    fn expect(&mut self, step: Step, len: usize) {
        self.step = step;
        self.wanted = len;
    }

    /// The head of a reply.
    fn head(&mut self, option: u32, bytes: &[u8]) -> Result<Option<Agreement>, Error> {
        let (kind, len) = (wire::be32(bytes, 12), wire::be32(bytes, 16));
        self.replies += 1;
        if wire::be64(bytes, 0) != wire::OPTION_REPLY
            || wire::be32(bytes, 8) != option
            || len > REPLY_MAX
            || self.replies > REPLIES_MAX
        {
            return Err(Error::OptionReply);
        }
        if kind == wire::REP_INFO && option == wire::OPT_GO && (2..=INFO_MAX).contains(&len) {
            self.expect(Step::Info(option), usize::try_from(len).unwrap_or(0));
            return Ok(None);
        }
        if kind == wire::REP_ACK && len != 0 {
            return Err(Error::OptionReply);
        }
        if len > 0 {
            self.step = Step::Skip(option, kind, len);
            return Ok(None);
        }
        self.replied(option, kind)
    }

    /// Information on the export.
    fn info(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match (wire::be16(bytes, 0), bytes.len()) {
            (wire::INFO_EXPORT, 12) => {
                self.size_and_flags = Some((wire::be64(bytes, 2), wire::be16(bytes, 10)));
                Ok(())
            }
            (wire::INFO_BLOCK_SIZE, 14) => {
                let [min, preferred, max] = [2, 6, 10].map(|at| wire::be32(bytes, at));
                self.blocks = Some(BlockSizes::new(min, preferred, max)?);
                Ok(())
            }
            (wire::INFO_EXPORT | wire::INFO_BLOCK_SIZE, _) => Err(Error::OptionReply),
            // Names and descriptions, and what comes in later versions.
            _ => Ok(()),
        }
    }

    /// A reply is complete that has no data of interest.
    fn replied(&mut self, option: u32, kind: u32) -> Result<Option<Agreement>, Error> {
        self.expect(Step::Head(option), REPLY_LEN);
        match (option, kind) {
            (wire::OPT_STRUCTURED_REPLY, wire::REP_ERR_TLS_REQD)
            | (wire::OPT_GO, wire::REP_ERR_TLS_REQD) => Err(Error::Tls),
            (wire::OPT_STRUCTURED_REPLY, wire::REP_ACK) => {
                self.structured = true;
                self.go();
                Ok(None)
            }
            (wire::OPT_STRUCTURED_REPLY, kind) if kind & wire::REP_ERROR != 0 => {
                self.go();
                Ok(None)
            }
            (wire::OPT_GO, wire::REP_ACK) => self.agree().map(Some),
            // Long information, such as a name.
            (wire::OPT_GO, wire::REP_INFO) => Ok(None),
            (wire::OPT_GO, wire::REP_ERR_UNSUP) => {
                self.ask_export_name();
                Ok(None)
            }
            (wire::OPT_GO, wire::REP_ERR_UNKNOWN) => Err(Error::NoExport),
            (wire::OPT_GO, kind) if kind & wire::REP_ERROR != 0 => Err(Error::Refused(kind)),
            _ => Err(Error::OptionReply),
        }
    }

    fn go(&mut self) {
        let data = wire::go(&self.name);
        self.ask(wire::OPT_GO, &data);
    }

    fn agree(&self) -> Result<Agreement, Error> {
        let (size, flags) = self.size_and_flags.ok_or(Error::OptionReply)?;
        Ok(Agreement {
            export: Export::new(size, flags, self.blocks)?,
            structured: self.structured,
        })
    }
}
