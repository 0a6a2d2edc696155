//! What the server answers, and what it has no right to.

use core::time::Duration;

use super::{Client, Phase, Store};
use crate::error::{Error, RequestError};
use crate::handshake::Agreement;
use crate::part::{Owner, Part};
use crate::replies::{Body, Fields, Head};
use crate::wire;

/// What of a reply comes next.
#[derive(Debug)]
pub(super) enum Reading {
    Head(Fields),
    /// What a chunk has before its data.
    Body(Chunk, Body, Fields),
    /// Data of a read: where, and how many.
    Data(Chunk, u32, u32),
    /// Bytes that do not matter.
    Skip(Chunk, u32),
}

/// Which part a chunk is of, and whether it is its last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    slot: usize,
    is_last: bool,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self::Head(Fields::new())
    }
}

impl<J: Copy> Client<J> {
    /// Takes what the server has sent.
    ///
    /// # Errors
    /// [`Error`]: the connection must be closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now: Duration,
        store: &mut dyn Store<J>,
    ) -> Result<(), Error> {
        let mut rest = bytes;
        if let Phase::Negotiating(handshake) = &mut self.phase {
            let (count, agreement) = handshake.receive(bytes)?;
            rest = &bytes[count..];
            if let Some(agreement) = agreement {
                self.open(agreement)?;
                self.progress = now;
            }
        }
        if !matches!(self.phase, Phase::Open { .. }) {
            return Ok(());
        }
        if !rest.is_empty() {
            self.progress = now;
        }
        while !rest.is_empty() {
            self.read(&mut rest, store)?;
        }
        Ok(())
    }

    fn open(&mut self, agreement: Agreement) -> Result<(), Error> {
        let Agreement { export, structured } = agreement;
        if *self.export.get_or_insert(export) != export {
            return Err(Error::Changed);
        }
        self.phase = Phase::Open { structured };
        self.refusals = 0;
        let first = self.journal.first();
        self.replay = (first < self.journal.end()).then_some(first);
        self.cut();
        Ok(())
    }

    /// Takes as much as belongs together.
    fn read(&mut self, rest: &mut &[u8], store: &mut dyn Store<J>) -> Result<(), Error> {
        match core::mem::replace(&mut self.reading, Reading::new()) {
            Reading::Head(mut fields) => match fields.head(rest)? {
                Some(head) => self.head(head, store),
                None => {
                    self.reading = Reading::Head(fields);
                    Ok(())
                }
            },
            Reading::Body(chunk, body, fields) => self.body(chunk, body, fields, rest, store),
            Reading::Data(chunk, at, left) => {
                let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let (data, others) = rest.split_at(count);
                *rest = others;
                self.put(chunk.slot, at, data, store);
                let count = u32::try_from(count).unwrap_or(left);
                self.data(chunk, at + count, left - count, store)
            }
            Reading::Skip(chunk, left) => {
                let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                *rest = &rest[count..];
                self.skip(chunk, left - u32::try_from(count).unwrap_or(left), store)
            }
        }
    }

    fn head(&mut self, head: Head, store: &mut dyn Store<J>) -> Result<(), Error> {
        let Phase::Open { structured } = self.phase else {
            return Ok(());
        };
        match head {
            Head::Simple { cookie, error } => {
                let slot = self.find(cookie)?;
                let part = self.part(slot)?;
                // Data have the form that was agreed on.
                if part.is_read() && structured {
                    return Err(Error::Reply);
                }
                let chunk = Chunk {
                    slot,
                    is_last: true,
                };
                if error == wire::ESHUTDOWN {
                    return Err(Error::Leaving);
                }
                part.failed = RequestError::from_number(error);
                if part.is_read() && part.failed.is_none() {
                    let len = part.len;
                    part.come.add(0..len);
                    return self.data(chunk, 0, len, store);
                }
                self.done(chunk, store)
            }
            Head::Chunk { .. } if !structured => Err(Error::Reply),
            Head::Chunk {
                cookie,
                is_last,
                body,
            } => {
                let slot = self.find(cookie)?;
                let has_data = matches!(body, Body::Data(_) | Body::Hole);
                if has_data && !self.part(slot)?.is_read() {
                    return Err(Error::Chunk);
                }
                let chunk = Chunk { slot, is_last };
                if body == Body::Nothing {
                    return self.done(chunk, store);
                }
                self.reading = Reading::Body(chunk, body, Fields::new());
                Ok(())
            }
        }
    }

    fn body(
        &mut self,
        chunk: Chunk,
        body: Body,
        mut fields: Fields,
        rest: &mut &[u8],
        store: &mut dyn Store<J>,
    ) -> Result<(), Error> {
        match body {
            Body::Data(len) => {
                if let Some(offset) = fields.position(rest) {
                    let at = self.arrive(chunk.slot, offset, len)?;
                    return self.data(chunk, at, len, store);
                }
            }
            Body::Hole => {
                if let Some((offset, len)) = fields.hole(rest) {
                    let at = self.arrive(chunk.slot, offset, len)?;
                    self.put_zeroes(chunk.slot, at, len, store);
                    return self.done(chunk, store);
                }
            }
            Body::Error(left) => {
                if let Some((number, text)) = fields.error(rest) {
                    if number == wire::ESHUTDOWN {
                        return Err(Error::Leaving);
                    }
                    let error = RequestError::from_number(number).ok_or(Error::Chunk)?;
                    if u32::from(text) > left {
                        return Err(Error::Chunk);
                    }
                    self.part(chunk.slot)?.failed.get_or_insert(error);
                    return self.skip(chunk, left, store);
                }
            }
            Body::Nothing => {}
        }
        self.reading = Reading::Body(chunk, body, fields);
        Ok(())
    }

    /// Bytes of a read come: where in its part.
    fn arrive(&mut self, slot: usize, offset: u64, len: u32) -> Result<u32, Error> {
        let part = self.part(slot)?;
        let (start, _) = part.command.extent();
        let at = offset.checked_sub(start).ok_or(Error::Outside)?;
        let at = u32::try_from(at).map_err(|_| Error::Outside)?;
        let end = at.checked_add(len).ok_or(Error::Outside)?;
        if len == 0 || end > part.len || !part.come.add(at..end) {
            return Err(Error::Outside);
        }
        Ok(at)
    }

    fn data(
        &mut self,
        chunk: Chunk,
        at: u32,
        left: u32,
        store: &mut dyn Store<J>,
    ) -> Result<(), Error> {
        if left == 0 {
            return self.done(chunk, store);
        }
        self.reading = Reading::Data(chunk, at, left);
        Ok(())
    }

    fn skip(&mut self, chunk: Chunk, left: u32, store: &mut dyn Store<J>) -> Result<(), Error> {
        if left == 0 {
            return self.done(chunk, store);
        }
        self.reading = Reading::Skip(chunk, left);
        Ok(())
    }

    /// A chunk is complete.
    fn done(&mut self, chunk: Chunk, store: &mut dyn Store<J>) -> Result<(), Error> {
        if !chunk.is_last {
            return Ok(());
        }
        let part = self.part(chunk.slot)?;
        let outcome = match part.failed {
            Some(error) => Err(error),
            None if part.is_read() && !part.come.cover(part.len) => return Err(Error::Incomplete),
            None => Ok(()),
        };
        self.answers += 1;
        self.end_part(chunk.slot, outcome, store);
        self.cut();
        Ok(())
    }

    /// The part that a reply is to: one that was sent in whole.
    fn find(&self, cookie: u64) -> Result<usize, Error> {
        let slot = usize::try_from(cookie & 0xff).unwrap_or(usize::MAX);
        let part = self.parts.get(slot).and_then(Option::as_ref);
        let is_it = part.is_some_and(|part| part.is_sent() && part.cookie == cookie);
        is_it.then_some(slot).ok_or(Error::Cookie)
    }

    fn part(&mut self, slot: usize) -> Result<&mut Part, Error> {
        self.parts[slot].as_mut().ok_or(Error::Cookie)
    }

    /// Copies data that came for a part. What is missing before them is zero until it comes.
    fn put(&mut self, slot: usize, at: u32, data: &[u8], store: &mut dyn Store<J>) {
        let Some(part) = &self.parts[slot] else {
            return;
        };
        let Owner::Request(place) = part.owner else {
            return;
        };
        let offset = part.at + u64::from(at);
        let Some(request) = &mut self.requests[place] else {
            return;
        };
        let Some(name) = request.name else { return };
        const ZEROES: [u8; 512] = [0; 512];
        while request.filled < offset {
            let count = (offset - request.filled).min(ZEROES.len() as u64);
            if store
                .put(name, request.filled, &ZEROES[..count as usize])
                .is_err()
            {
                request.failed.get_or_insert(RequestError::Io);
            }
            request.filled += count;
        }
        if store.put(name, offset, data).is_err() {
            request.failed.get_or_insert(RequestError::Io);
        }
        request.filled = request.filled.max(offset + data.len() as u64);
    }

    fn put_zeroes(&mut self, slot: usize, at: u32, len: u32, store: &mut dyn Store<J>) {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let count = (len - done).min(ZEROES.len() as u32);
            self.put(slot, at + done, &ZEROES[..count as usize], store);
            done += count;
        }
    }
}
