//! The messages of a device: those that its task has not read, and those that it owes an answer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use vduse_protocol::{Message, Request, Response};

/// All messages that somebody waits for. There are no more than operations under way.
#[derive(Default)]
pub(super) struct Mailbox {
    next_id: u32,
    unread: VecDeque<Message>,
    owed: Vec<Message>,
    answers: Vec<Response>,
}

impl Mailbox {
    /// Puts a message in, and returns its number.
    pub(super) fn post(&mut self, request: Request) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.unread.push_back(Message { id, request });
        id
    }

    /// The next message for the task, which owes an answer from now on.
    pub(super) fn read(&mut self) -> Option<Message> {
        let message = self.unread.pop_front()?;
        self.owed.push(message);
        Some(message)
    }

    /// Takes an answer. False, if nobody waits for it: it was given before, is late, or was never
    /// asked for.
    pub(super) fn answer(&mut self, response: Response) -> bool {
        let owed = self.owed.iter().position(|owed| owed.id == response.id);
        let Some(place) = owed else {
            return false;
        };
        self.owed.remove(place);
        self.answers.push(response);
        true
    }

    /// The answer to a message, if it has come.
    pub(super) fn take_answer(&mut self, id: u32) -> Option<Response> {
        let place = self.answers.iter().position(|answer| answer.id == id)?;
        Some(self.answers.swap_remove(place))
    }

    /// Nobody waits for an answer to this any more.
    pub(super) fn forget(&mut self, id: u32) {
        self.unread.retain(|message| message.id != id);
        self.owed.retain(|message| message.id != id);
        self.answers.retain(|answer| answer.id != id);
    }

    #[cfg(all(test, loom))]
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.owed.is_empty() && self.answers.is_empty()
    }

    /// The task is another one: it reads what its predecessor has not answered, in the order in
    /// which it was asked.
    pub(super) fn take_back(&mut self) {
        while let Some(message) = self.owed.pop() {
            self.unread.push_front(message);
        }
    }
}
