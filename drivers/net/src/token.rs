//! One frame to be received or sent, as the stacks ask for it.

use super::counters::Counters;
use super::receive::Receiver;
use super::transmit::{Delivery, Transmitter, swallow};

/// A received frame. Dropped without being consumed, it is offered again.
#[derive(Debug)]
pub struct RxToken<'a>(pub(super) &'a mut Receiver);

impl RxToken<'_> {
    pub(super) fn read<R>(self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        self.0.consume(read)
    }
}

/// The right to send a frame.
#[derive(Debug)]
pub struct TxToken<'a>(pub(super) Way<'a>);

/// Where a sent frame goes.
#[derive(Debug)]
pub(super) enum Way<'a> {
    Device(&'a mut Transmitter, Delivery),
    /// Nowhere: the device is broken or gone. A stack that could not send at all would also stop its
    /// timers, and with them the time-outs that end its connections.
    Nowhere(&'a Counters),
}

impl TxToken<'_> {
    pub(super) fn write<R>(self, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        match self.0 {
            Way::Device(transmitter, delivery) => transmitter.send(len, delivery, write),
            Way::Nowhere(counters) => {
                counters.tx_no_device.add(1);
                swallow(len, write)
            }
        }
    }
}
