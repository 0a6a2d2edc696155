//! What is sent, and in what order.

use core::time::Duration;

use super::{Client, OWN_PARTS, PART_MAX, PARTS, Phase, RANGE_MAX, Stage, Store};
use crate::command::{Command, Durability, Holes};
use crate::error::Error;
use crate::export::Export;
use crate::journal::Journal;
use crate::part::{Owner, Part, Progress};
use crate::wire::{self, REQUEST_LEN};

/// A part of which some bytes are sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// `None` is the farewell.
    slot: Option<usize>,
    head: [u8; REQUEST_LEN],
    head_sent: usize,
    data_sent: u32,
}

impl<J: Copy> Client<J> {
    /// Whether there is something to send.
    #[must_use]
    pub fn wants_to_transmit(&self) -> bool {
        match &self.phase {
            Phase::Closed => false,
            Phase::Negotiating(handshake) => handshake.has_output(),
            Phase::Open { .. } => {
                let replays = self.replay.is_some_and(|number| !self.is_replaying(number));
                let sends = self.replay.is_none() && !self.unsent.is_empty();
                let leaves = self.is_leaving && self.replay.is_none();
                self.sending.is_some() || replays || sends || leaves
            }
        }
    }

    /// Fills `room` with what is to be sent, and returns how much of it.
    ///
    /// # Errors
    /// [`Error::TakenBack`]: the connection must be closed.
    pub fn transmit(
        &mut self,
        room: &mut [u8],
        now: Duration,
        store: &mut dyn Store<J>,
    ) -> Result<usize, Error> {
        if let Phase::Negotiating(handshake) = &mut self.phase {
            let output = handshake.output();
            let count = output.len().min(room.len());
            room[..count].copy_from_slice(&output[..count]);
            output.drain(..count);
            return Ok(count);
        }
        let mut filled = 0;
        while filled < room.len() {
            let Some(mut sending) = self.sending.take().or_else(|| self.begin(now)) else {
                break;
            };
            filled += self.fill(&mut sending, &mut room[filled..], store)?;
            if self.is_complete(&sending) {
                self.sent(&sending, now);
            } else {
                self.sending = Some(sending);
            }
        }
        if filled > 0 {
            self.progress = now;
        }
        Ok(filled)
    }

    fn fill(
        &mut self,
        sending: &mut Sending,
        room: &mut [u8],
        store: &mut dyn Store<J>,
    ) -> Result<usize, Error> {
        let head = &sending.head[sending.head_sent..];
        let count = head.len().min(room.len());
        let (for_head, for_data) = room.split_at_mut(count);
        for_head.copy_from_slice(&head[..count]);
        sending.head_sent += count;
        let Some(part) = sending.slot.and_then(|slot| self.parts[slot].as_ref()) else {
            return Ok(count);
        };
        let left = payload(part) - sending.data_sent;
        let len = for_data
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let data = &mut for_data[..len];
        if !data.is_empty() {
            let start = sending.data_sent;
            match part.owner {
                Owner::Request(place) => {
                    let request = self.requests[place].as_ref();
                    let name = request.and_then(|request| request.name);
                    let name = name.ok_or(Error::TakenBack)?;
                    let fetched = store.fetch(name, part.at + u64::from(start), data);
                    if fetched.is_err() {
                        // It would meet with the same over every connection.
                        self.fail(place, store);
                        return Err(Error::TakenBack);
                    }
                }
                Owner::Replay(number) => {
                    let entry = self.journal.get(number);
                    let kept = entry.and_then(|entry| entry.data.get(start as usize..));
                    let kept = kept.and_then(|kept| kept.get(..data.len()));
                    data.copy_from_slice(kept.ok_or(Error::TakenBack)?);
                }
                Owner::Journal => {}
            }
        }
        sending.data_sent += u32::try_from(len).unwrap_or(left);
        Ok(count + len)
    }

    fn is_complete(&self, sending: &Sending) -> bool {
        let part = sending.slot.and_then(|slot| self.parts[slot].as_ref());
        sending.head_sent == REQUEST_LEN && sending.data_sent == part.map_or(0, payload)
    }

    /// A part has been sent in whole.
    fn sent(&mut self, sending: &Sending, now: Duration) {
        match sending.slot {
            Some(slot) => {
                if let Some(part) = &mut self.parts[slot] {
                    part.progress = Progress::Sent(now);
                }
            }
            None => self.phase = Phase::Closed,
        }
    }

    /// The next part: what is done again comes before all others.
    fn begin(&mut self, now: Duration) -> Option<Sending> {
        let Phase::Open { .. } = self.phase else {
            return None;
        };
        if let Some(number) = self.replay {
            return self.begin_replay(number, now);
        }
        if self.is_leaving {
            self.is_leaving = false;
            return Some(Sending::new(
                None,
                wire::request(wire::CMD_DISC, 0, 0, 0, 0),
            ));
        }
        if self.parts.iter().flatten().all(|part| !part.is_sent()) {
            self.progress = now;
        }
        let slot = self.unsent.pop_front()?;
        self.begin_part(slot, now)
    }

    fn begin_replay(&mut self, number: u64, now: Duration) -> Option<Sending> {
        if self.is_replaying(number) {
            return None;
        }
        let command = self.journal.get(number)?.command;
        let slot = PARTS + OWN_PARTS - 1;
        self.serial += 1;
        let part = Part::new(Owner::Replay(number), command, 0, self.serial);
        self.parts[slot] = Some(part);
        self.begin_part(slot, now)
    }

    /// Whether this change has been sent and not answered.
    fn is_replaying(&self, number: u64) -> bool {
        let mut parts = self.parts.iter().flatten();
        parts.any(|part| part.owner == Owner::Replay(number))
    }

    fn begin_part(&mut self, slot: usize, now: Duration) -> Option<Sending> {
        let export = self.export?;
        let part = self.parts[slot].as_mut()?;
        // No two requests of a client have the same one, whatever happens to connections.
        self.cookies += 1;
        part.cookie = self.cookies << 8 | slot as u64;
        part.progress = Progress::Sending(now);
        part.covers = self.journal.end();
        let flags = flags(part.command, &export);
        let (offset, _) = part.command.extent();
        let number = wire::number(part.command);
        let head = wire::request(number, flags, part.cookie, offset, part.len);
        Some(Sending::new(Some(slot), head))
    }

    /// Makes parts of requests, as long as there is room for them.
    pub(super) fn cut(&mut self) {
        let Some(export) = self.export else { return };
        while let Some(&place) = self.uncut.front() {
            let Some(slot) = self.parts[..PARTS].iter().position(Option::is_none) else {
                break;
            };
            let Some(request) = &self.requests[place] else {
                self.uncut.pop_front();
                continue;
            };
            let (start, len) = request.command.extent();
            let (at, command) = match request.stage {
                Stage::Cutting => {
                    let count = (len - request.cut).min(limit(request.command, &export));
                    let command = request.command.with_extent(start + request.cut, count);
                    (request.cut, command)
                }
                Stage::Flushing | Stage::Waiting => (0, Command::Flush),
            };
            if is_kept(command, &export) && !self.has_room_for(command) {
                break;
            }
            let Some(request) = &mut self.requests[place] else {
                continue;
            };
            request.open += 1;
            request.cut = request.cut.max(at + command.extent().1);
            if request.stage == Stage::Flushing || request.cut == len {
                request.stage = Stage::Waiting;
                self.uncut.pop_front();
            }
            self.add(slot, Owner::Request(place), command, at);
        }
        self.shorten_journal(&export);
    }

    fn add(&mut self, slot: usize, owner: Owner, command: Command, at: u64) {
        self.serial += 1;
        self.parts[slot] = Some(Part::new(owner, command, at, self.serial));
        self.unsent.push_back(slot);
    }

    /// Whether the journal could take a change, and all that are under way.
    fn has_room_for(&self, command: Command) -> bool {
        let parts = self.parts.iter().flatten();
        let changes = parts.filter(|part| part.command.durability().is_some());
        let under_way = changes
            .map(|part| Journal::cost(part.command))
            .sum::<usize>();
        self.journal.bytes() + under_way + Journal::cost(command) <= Journal::LIMIT
    }

    /// Flushes before the journal is full.
    fn shorten_journal(&mut self, export: &Export) {
        if self.journal.bytes() > Journal::LIMIT / 2 && export.has_flush() {
            self.flush_journal();
        }
    }

    /// Flushes for the journal, unless that is under way.
    pub(super) fn flush_journal(&mut self) {
        let slot = PARTS;
        if self.parts[slot].is_none() {
            self.add(slot, Owner::Journal, Command::Flush, 0);
        }
    }
}

impl Sending {
    fn new(slot: Option<usize>, head: [u8; REQUEST_LEN]) -> Self {
        Self {
            slot,
            head,
            head_sent: 0,
            data_sent: 0,
        }
    }
}

/// Whether a change is kept until the next flush. What is durable is kept, too: an older change that
/// is done again would undo it.
pub(super) fn is_kept(command: Command, export: &Export) -> bool {
    command.durability().is_some() && export.has_flush()
}

/// The most bytes of one part.
fn limit(command: Command, export: &Export) -> u64 {
    let most = match command {
        Command::Read { .. } | Command::Write { .. } => PART_MAX,
        _ => RANGE_MAX,
    };
    let blocks = export.blocks();
    // A multiple of the smallest block, which is not larger.
    u64::from(blocks.max.min(most))
}

fn payload(part: &Part) -> u32 {
    u32::try_from(part.command.payload()).unwrap_or(0)
}

fn flags(command: Command, export: &Export) -> u16 {
    let durable = command.durability() == Some(Durability::Durable);
    let fua = if durable && export.has_fua() {
        wire::CMD_FLAG_FUA
    } else {
        0
    };
    match command {
        Command::WriteZeroes {
            holes: Holes::Forbidden,
            ..
        } => fua | wire::CMD_FLAG_NO_HOLE,
        _ => fua,
    }
}
