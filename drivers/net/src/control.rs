//! What an application may tell a network card to be: its address, and which frames it takes
//! (VIRTIO 1.2, 5.1.6.5).
//!
//! A [`Control`] is a handle that does not depend on the stack, which owns the interface. What has
//! been set holds until the driver lets go of the card: should the card lose it, because it has
//! slept or another one has taken over, it is told again. Tables of addresses and VLANs are not
//! offered.

mod command;
mod queue;
mod setting;
mod worker;

use alloc::sync::{Arc, Weak};
use core::fmt;

use vdpa::MacAddress;

pub(super) use self::command::{Command, Slot};
pub(super) use self::queue::ControlQueue;
pub use self::setting::Switch;
pub(super) use self::setting::{CONTROL_FEATURES, is_usable};
pub(super) use self::worker::Worker;

use self::setting::Setting;

/// Why a network card was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The address does not name one station.
    #[error("an interface cannot have this address")]
    BadAddress,
    /// The card does not offer the change.
    #[error("the network card does not support it")]
    Unsupported,
    /// The card answered with an error.
    #[error("the network card refuses")]
    Refused,
    /// The card broke the protocol and is not used any more.
    #[error("the network card broke the protocol")]
    Broken,
    /// The card has been removed, or its driver has let it go.
    #[error("the network card is gone")]
    Gone,
}

/// The way to change a network card while it works.
///
/// Any number of tasks may use it at once, through as many clones as they like; the card is told
/// one thing after the other. It answers when it likes: a caller that does not want to wait for
/// ever drops the future, and then whether the card has changed is unknown. A handle keeps neither
/// the card nor its memory.
#[derive(Clone)]
pub struct Control(Weak<ControlQueue>);

impl Control {
    pub(super) fn of(control_queue: &Arc<ControlQueue>) -> Self {
        Self(Arc::downgrade(control_queue))
    }

    /// Gives the interface another address, which [`NetDevice::mac`](super::NetDevice::mac) tells
    /// from then on.
    ///
    /// # Errors
    /// [`ControlError`]; the address is as it was.
    pub async fn set_mac(&self, mac: MacAddress) -> Result<(), ControlError> {
        if !mac.is_unicast() {
            return Err(ControlError::BadAddress);
        }
        self.set(Setting::Mac(mac)).await
    }

    /// Whether the card takes every frame, for any address. How a card begins is its own affair.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed.
    pub async fn set_promiscuous(&self, switch: Switch) -> Result<(), ControlError> {
        self.set(Setting::Promiscuous(switch)).await
    }

    /// Whether the card takes every frame for a group. How a card begins is its own affair.
    ///
    /// # Errors
    /// [`ControlError`]; nothing has changed.
    pub async fn set_all_multicast(&self, switch: Switch) -> Result<(), ControlError> {
        self.set(Setting::AllMulticast(switch)).await
    }

    async fn set(&self, setting: Setting) -> Result<(), ControlError> {
        let control_queue = self.0.upgrade().ok_or(ControlError::Gone)?;
        control_queue.perform(|_| Some(setting)).await
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control_queue = self.0.upgrade();
        f.debug_tuple("Control")
            .field(
                &control_queue
                    .as_ref()
                    .map(|control_queue| control_queue.name()),
            )
            .finish()
    }
}
