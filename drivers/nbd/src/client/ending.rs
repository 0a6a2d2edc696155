//! How parts, requests and connections end.

use alloc::vec;
use alloc::vec::Vec;

use super::sending::is_kept;
use super::{Client, Phase, Reading, Request, Stage, Store};
use crate::command::{Command, Durability};
use crate::error::{Error, RequestError};
use crate::part::{Owner, Part};

/// How many connections may end over the same part by an error of the server.
const ATTEMPTS: u8 = 4;
/// How many servers in a row may refuse the export before requests fail.
const REFUSALS: u8 = 8;

impl<J: Copy> Client<J> {
    /// The connection has ended: by itself, or because of an error. What was not answered will be
    /// sent again over the next one, unless it has met with errors of the server too often.
    pub fn disconnected(&mut self, error: Option<Error>, store: &mut dyn Store<J>) {
        let was_open = self.is_open();
        let was_negotiating = matches!(self.phase, Phase::Negotiating(_));
        self.phase = Phase::Closed;
        self.reading = Reading::new();
        self.sending = None;
        self.is_leaving = false;
        // Of these nobody knows when they will be good.
        let is_fault = !matches!(error, None | Some(Error::Leaving | Error::TakenBack));
        let is_refused = is_fault && was_negotiating && error != Some(Error::Silent);
        let is_fault = is_fault && was_open;
        let mut given_up = Vec::new();
        for (slot, place) in self.parts.iter_mut().enumerate() {
            let Some(part) = place else { continue };
            let is_named = match part.owner {
                Owner::Request(place) => {
                    let request = self.requests[place].as_ref();
                    request.is_some_and(|request| request.name.is_some())
                }
                Owner::Journal => true,
                Owner::Replay(_) => {
                    self.replay_attempts += u8::from(is_fault);
                    false
                }
            };
            if !is_named {
                *place = None;
                continue;
            }
            part.attempts += u8::from(is_fault && part.is_sent());
            part.rewind();
            if part.attempts >= ATTEMPTS {
                given_up.push(slot);
            }
        }
        // Nobody waits for what was taken back any more.
        for place in &mut self.requests {
            place.take_if(|request| request.name.is_none());
        }
        for slot in given_up {
            self.end_part(slot, Err(RequestError::Io), store);
        }
        if self.replay_attempts >= ATTEMPTS {
            self.lose(store);
        }
        self.refusals = self.refusals.saturating_add(is_refused.into());
        if is_refused && self.refusals >= REFUSALS {
            self.fail_all(store);
        }
        self.unsent.clear();
        let parts = self.parts.iter().enumerate();
        let mut unsent: Vec<(u64, usize)> = parts
            .filter_map(|(slot, part)| Some((part.as_ref()?.serial, slot)))
            .collect();
        unsent.sort_unstable();
        self.unsent.extend(unsent.into_iter().map(|(_, slot)| slot));
    }

    /// A part has come to its end.
    pub(super) fn end_part(
        &mut self,
        slot: usize,
        outcome: Result<(), RequestError>,
        store: &mut dyn Store<J>,
    ) {
        let Some(part) = self.parts[slot].take() else {
            return;
        };
        if outcome.is_ok() && part.command == Command::Flush {
            self.journal.flushed(part.covers);
        }
        match part.owner {
            Owner::Request(place) => self.end_part_of(place, &part, outcome, store),
            Owner::Replay(number) if outcome.is_ok() => {
                self.replay_attempts = 0;
                let next = number + 1;
                self.replay = (next < self.journal.end()).then_some(next);
            }
            Owner::Journal if outcome.is_ok() => {}
            // Something that was acknowledged does not last.
            Owner::Replay(_) | Owner::Journal => self.lose(store),
        }
    }

    fn end_part_of(
        &mut self,
        place: usize,
        part: &Part,
        outcome: Result<(), RequestError>,
        store: &mut dyn Store<J>,
    ) {
        let Some(export) = self.export else { return };
        let Some(request) = &mut self.requests[place] else {
            return;
        };
        request.open -= 1;
        if let Err(error) = outcome {
            request.failed.get_or_insert(error);
        }
        if let Some(name) = request.name
            && outcome.is_ok()
            && is_kept(part.command, &export)
        {
            let len = usize::try_from(part.command.payload()).unwrap_or(0);
            let mut data = vec![0; len];
            // What was taken back is not acknowledged to anybody.
            if data.is_empty() || store.fetch(name, part.at, &mut data).is_ok() {
                self.journal.push(part.command, data);
            } else {
                request.failed.get_or_insert(RequestError::Io);
            }
        }
        if request.open > 0 || request.stage != Stage::Waiting {
            return;
        }
        let durable = request.command.durability() == Some(Durability::Durable);
        let flushes = durable && !export.has_fua() && export.has_flush();
        let is_change = part.command != Command::Flush;
        if flushes && is_change && request.failed.is_none() && request.name.is_some() {
            request.stage = Stage::Flushing;
            self.uncut.push_back(place);
            return;
        }
        let Some(Request { name, failed, .. }) = self.requests[place].take() else {
            return;
        };
        if let Some(name) = name {
            store.finish(name, failed.map_or(Ok(()), Err));
        }
    }

    /// Nothing is good any more: a change that was acknowledged is lost.
    fn lose(&mut self, store: &mut dyn Store<J>) {
        self.is_lost = true;
        self.replay = None;
        self.replay_attempts = 0;
        self.journal.flushed(u64::MAX);
        self.fail_all(store);
    }

    fn fail_all(&mut self, store: &mut dyn Store<J>) {
        let requests = self.requests.iter_mut().flatten();
        let names: Vec<J> = requests.filter_map(|request| request.name.take()).collect();
        for name in names {
            store.finish(name, Err(RequestError::Io));
        }
        self.abandon();
    }

    /// A request fails over whose bytes a connection ends.
    pub(super) fn fail(&mut self, place: usize, store: &mut dyn Store<J>) {
        for part in &mut self.parts {
            part.take_if(|part| part.owner == Owner::Request(place));
        }
        let parts = &self.parts;
        self.unsent.retain(|slot| parts[*slot].is_some());
        self.uncut.retain(|other| *other != place);
        if let Some(name) = self.requests[place].take().and_then(|it| it.name) {
            store.finish(name, Err(RequestError::Io));
        }
    }

    /// Whether a change that was acknowledged is lost, so that every request fails.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.is_lost
    }
}
