//! The messages: what the kernel asks of the program, and what the program answers.

use crate::DecodeError;
use crate::layout::{DevRequest, DevResponse, at};
use crate::queue::{RawState, yes_or_no};
use crate::wire::{Record, put};

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Where a queue stands: the answer has a state.
    GetQueueState {
        /// Which queue.
        queue: u32,
    },
    /// The driver has written the device status; 0 is a reset.
    SetStatus(u8),
    /// What lies behind a range of addresses is another memory now, or none.
    UpdateIotlb {
        /// The first address.
        start: u64,
        /// The last one.
        last: u64,
        /// The address space; 0 in version 0.
        address_space: u32,
    },
    /// A group of queues is in this address space now. Version 1.
    SetGroupAddressSpace {
        /// Which group.
        group: u32,
        /// Which address space.
        address_space: u32,
    },
    /// A queue is in use now, or not any more. With
    /// [`QUEUE_READY`](crate::ProtocolFeatures::QUEUE_READY).
    SetQueueReady {
        /// Which queue.
        queue: u32,
        /// Whether it is in use.
        ready: bool,
    },
    /// The device comes to rest, and keeps what it knows. With
    /// [`SUSPEND`](crate::ProtocolFeatures::SUSPEND).
    Suspend,
}

/// A request with the number that its answer has (`vduse_dev_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number.
    pub id: u32,
    /// What is asked for.
    pub request: Request,
}

const PAYLOAD: usize = at!(DevRequest.payload);

impl Message {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<DevRequest>();

    /// The bytes of the message.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let kind: u32 = match self.request {
            Request::GetQueueState { queue } => {
                put(
                    &mut bytes,
                    PAYLOAD + at!(VqState.index),
                    queue.to_ne_bytes(),
                );
                0
            }
            Request::SetStatus(status) => {
                put(&mut bytes, PAYLOAD, [status]);
                1
            }
            Request::UpdateIotlb {
                start,
                last,
                address_space,
            } => {
                put(
                    &mut bytes,
                    PAYLOAD + at!(IovaRangeV2.start),
                    start.to_ne_bytes(),
                );
                put(
                    &mut bytes,
                    PAYLOAD + at!(IovaRangeV2.last),
                    last.to_ne_bytes(),
                );
                put(
                    &mut bytes,
                    PAYLOAD + at!(IovaRangeV2.asid),
                    address_space.to_ne_bytes(),
                );
                2
            }
            Request::SetGroupAddressSpace {
                group,
                address_space,
            } => {
                put_pair(&mut bytes, group, address_space);
                3
            }
            Request::SetQueueReady { queue, ready } => {
                put_pair(&mut bytes, queue, ready.into());
                4
            }
            Request::Suspend => 5,
        };
        put(&mut bytes, at!(DevRequest.kind), kind.to_ne_bytes());
        put(
            &mut bytes,
            at!(DevRequest.request_id),
            self.id.to_ne_bytes(),
        );
        bytes
    }

    /// The number of a message, whatever it asks for, so that it can be answered.
    #[must_use]
    pub fn id_in(bytes: &[u8]) -> Option<u32> {
        let record = Record::new(bytes, Self::SIZE).ok()?;
        Some(record.u32(at!(DevRequest.request_id)))
    }

    /// Takes a message apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        record.check_reserved(at!(DevRequest.reserved)..PAYLOAD)?;
        let first = record.u32(PAYLOAD + at!(Pair.first));
        let second = record.u32(PAYLOAD + at!(Pair.second));
        let request = match record.u32(at!(DevRequest.kind)) {
            0 => Request::GetQueueState { queue: first },
            1 => Request::SetStatus(record.u8(PAYLOAD)),
            2 => Request::UpdateIotlb {
                start: record.u64(PAYLOAD + at!(IovaRangeV2.start)),
                last: record.u64(PAYLOAD + at!(IovaRangeV2.last)),
                address_space: record.u32(PAYLOAD + at!(IovaRangeV2.asid)),
            },
            3 => Request::SetGroupAddressSpace {
                group: first,
                address_space: second,
            },
            4 => Request::SetQueueReady {
                queue: first,
                ready: yes_or_no(second)?,
            },
            5 => Request::Suspend,
            other => return Err(DecodeError::UnknownRequest(other)),
        };
        Ok(Self {
            id: record.u32(at!(DevRequest.request_id)),
            request,
        })
    }
}

fn put_pair(bytes: &mut [u8], first: u32, second: u32) {
    put(bytes, PAYLOAD + at!(Pair.first), first.to_ne_bytes());
    put(bytes, PAYLOAD + at!(Pair.second), second.to_ne_bytes());
}

/// Whether the program has done what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `VDUSE_REQ_RESULT_OK`.
    Done = 0,
    /// `VDUSE_REQ_RESULT_FAILED`.
    Failed = 1,
}

/// An answer (`vduse_dev_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The number of the message that it answers.
    pub id: u32,
    /// Whether it was done.
    pub outcome: Outcome,
    /// The queue whose state follows.
    pub queue: u32,
    /// Where it stands, if that was asked for.
    pub state: RawState,
}

impl Response {
    /// How many bytes it takes.
    pub const SIZE: usize = size_of::<DevResponse>();

    /// An answer without a state.
    #[must_use]
    pub fn new(id: u32, outcome: Outcome) -> Self {
        Self {
            id,
            outcome,
            queue: 0,
            state: RawState::default(),
        }
    }

    /// The bytes of the answer.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        put(
            &mut bytes,
            at!(DevResponse.request_id),
            self.id.to_ne_bytes(),
        );
        let result = self.outcome as u32;
        put(&mut bytes, at!(DevResponse.result), result.to_ne_bytes());
        put(
            &mut bytes,
            PAYLOAD + at!(VqState.index),
            self.queue.to_ne_bytes(),
        );
        put(&mut bytes, PAYLOAD + at!(VqState.state), self.state.0);
        bytes
    }

    /// Takes an answer apart.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record = Record::new(bytes, Self::SIZE)?;
        record.check_reserved(at!(DevResponse.reserved)..at!(DevResponse.payload))?;
        Ok(Self {
            id: record.u32(at!(DevResponse.request_id)),
            outcome: match record.u32(at!(DevResponse.result)) {
                0 => Outcome::Done,
                1 => Outcome::Failed,
                other => return Err(DecodeError::UnknownResult(other)),
            },
            queue: record.u32(PAYLOAD + at!(VqState.index)),
            state: RawState(record.bytes(PAYLOAD + at!(VqState.state))),
        })
    }
}
