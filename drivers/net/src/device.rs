//! The interface: what the network stacks drive, each in its own way, over one receive and one
//! transmit queue.
//!
//! The value owns its queues, so that no lock is taken per frame. What others must know of it, that
//! it shall stop, its counters, its link, is in [`Shared`].

use alloc::sync::Arc;
use core::fmt::{self, Display};
use core::task::Context;
#[cfg(feature = "smoltcp")]
use core::task::Poll;

use vdpa::{Features, MacAddress};
use virtio_bus::VirtioClaim;
use virtq::RewindError;

use super::config::{Link, offered_mac, read_link};
use super::control::{Control, ControlQueue};
use super::receive::{Receiver, RxToken, Violation};
use super::shared::{Shared, Stage};
use super::transmit::{Delivery, Transmitter, TxTarget, TxToken};
use super::wait::ATTEMPTS;

/// A network interface.
///
/// It is an `embassy_net_driver::Driver` and, with the cargo feature `smoltcp`, a
/// `smoltcp::phy::Device`. When its device breaks or goes away, the link is down for good, nothing
/// is received, and what is sent is dropped and counted, so that connections run into their
/// time-outs.
pub struct NetDevice {
    pub(super) features: Features,
    pub(super) offload: Offload,
    /// `None` once the device has stopped: the memory is freed even if the stack keeps this value.
    pub(super) port: Option<Port>,
    pub(super) shared: Arc<Shared>,
}

/// Which TCP and UDP checksums are no business of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offload {
    /// Those of received frames, which the device or this driver has verified.
    pub(super) receive: bool,
    /// Those of sent frames, which the device computes.
    pub(super) transmit: bool,
}

/// What reaches the device.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) device: Arc<VirtioClaim>,
    pub(super) receiver: Receiver,
    pub(super) transmitter: Transmitter,
    /// Of a device with a control queue.
    pub(super) control: Option<Arc<ControlQueue>>,
}

impl Port {
    /// Starts the queues again, if a device that takes over needs that.
    fn follow_move(&mut self) -> Result<(), RewindError> {
        let Some(rewind) = self.device.rewind_wanted() else {
            return Ok(());
        };
        self.receiver.rewind()?;
        self.transmitter.rewind()?;
        if let Some(control) = &self.control {
            control.rewind()?;
        }
        rewind.done();
        Ok(())
    }
}

impl NetDevice {
    /// The interface's name in the device tree, as `net0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The interface's Ethernet address. The device may change it.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        self.shared.mac()
    }

    /// The handle that changes the interface, if its device has a control queue. `None` also once
    /// the device has stopped.
    #[must_use]
    pub fn control(&self) -> Option<Control> {
        let line = self.port.as_ref()?.control.as_ref()?;
        Some(Control::of(line))
    }

    /// The longest IP packet in bytes.
    #[must_use]
    pub fn mtu(&self) -> usize {
        usize::from(self.shared.mtu)
    }

    /// Whether the interface's device has left, and the memory of its queues is free. The value is
    /// of no more use.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.port.is_none()
    }

    /// A received frame and the right to answer it. If there is none, `cx` is woken when there may
    /// be.
    #[inline]
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        delivery: Delivery,
    ) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let ready = self.poll_port(|port| {
            if !port.receiver.poll_ready(cx)? {
                // The end of what came in is the end of the answers.
                port.transmitter.publish();
                return Ok(false);
            }
            Ok(port.transmitter.poll_ready(cx)?)
        });
        let Port {
            receiver,
            transmitter,
            ..
        } = self.port.as_mut().filter(|_| ready)?;
        Some((
            RxToken(receiver),
            TxToken(TxTarget::Device(transmitter, delivery)),
        ))
    }

    /// The right to send a frame. If there is no room, `cx` is woken when there may be.
    #[inline]
    pub(super) fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        delivery: Delivery,
    ) -> Option<TxToken<'_>> {
        let room = self.running().map(|port| port.transmitter.poll_ready(cx));
        match room.and_then(|room| self.note(room)) {
            Some(true) => {
                let port = self.port.as_mut()?;
                Some(TxToken(TxTarget::Device(&mut port.transmitter, delivery)))
            }
            Some(false) => None,
            None => Some(TxToken(TxTarget::Nowhere(&self.shared.counters))),
        }
    }

    /// The state of the link; `cx` is woken when it changes. Gives the device what is still to be
    /// sent.
    pub(super) fn poll_link(&mut self, cx: &mut Context<'_>) -> Link {
        if let Some(port) = self.running() {
            port.transmitter.publish();
        }
        for _ in 0..ATTEMPTS {
            // Also when nothing works any more, to learn when the queues can be freed.
            let Some(port) = &self.port else {
                return Link::Down;
            };
            if port.device.config_event().poll_wait(cx).is_pending() {
                return self.shared.link();
            }
            self.follow_config();
        }
        cx.waker().wake_by_ref();
        self.shared.link()
    }

    /// Waits until the stack should be polled: a frame has arrived, there is room to send again,
    /// the link has changed, or the device is gone.
    #[cfg(feature = "smoltcp")]
    pub async fn wait(&mut self) {
        let before = self.shared.link();
        let starved = self
            .running()
            .is_some_and(|port| port.transmitter.is_starved());
        core::future::poll_fn(|cx| {
            let changed = self.poll_link(cx) != before;
            let received = self.poll_port(|port| port.receiver.poll_ready(cx));
            let room = starved && self.poll_port(|port| Ok(port.transmitter.poll_ready(cx)?));
            let ended = self.running().is_none();
            if changed || received || room || ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// What a queue says, if there are any. The first error silences the interface.
    #[inline]
    fn poll_port(&mut self, poll: impl FnOnce(&mut Port) -> Result<bool, Violation>) -> bool {
        let result = self.running().map(poll);
        result.and_then(|result| self.note(result)).unwrap_or(false)
    }

    /// The device has something to say: that its configuration has changed, that it is another one
    /// now, or that it is no more.
    fn follow_config(&mut self) {
        let features = self.features;
        let Some(port) = self.running() else { return };
        let rewound = port.follow_move();
        let condition = port.device.check();
        let link = read_link(&port.device, features);
        let mac = offered_mac(&port.device, features);
        let chosen = port.control.as_ref().and_then(|control| {
            control.follow();
            control.chosen_mac()
        });
        if self.note(rewound).is_none() || self.note(condition).is_none() {
            return;
        }
        // What the application has chosen goes before what the device shows: it is told again.
        if let Some(mac) = chosen.or(mac.ok().flatten()) {
            self.shared.set_mac(mac);
        }
        match link {
            Ok(link) => {
                if link != self.shared.link() {
                    log::info!("{}: link {link}", self.name());
                }
                self.shared.set_link(link);
            }
            Err(error) => log::warn!(
                "{}: cannot read the state of the link: {error}",
                self.name()
            ),
        }
    }

    /// The queues, if they may be used. Frees them if they never will be again.
    #[inline]
    fn running(&mut self) -> Option<&mut Port> {
        if !self.shared.is(Stage::Running) {
            self.free_if_released();
            return None;
        }
        self.port.as_mut()
    }

    #[cold]
    fn free_if_released(&mut self) {
        if self.shared.is(Stage::Released) {
            self.port = None;
        }
    }

    /// Silences the interface at the first error.
    #[inline]
    fn note<T, E: Display>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.silence(&error);
                None
            }
        }
    }

    #[cold]
    fn silence(&self, error: &dyn Display) {
        log::warn!("{}: {error}", self.name());
        self.shared.silence();
        if let Some(port) = &self.port {
            port.device.mark_broken();
        }
    }
}

impl fmt::Debug for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetDevice")
            .field("name", &self.name())
            .field("mac", &self.mac())
            .field("mtu", &self.mtu())
            .field("offload", &self.offload)
            .finish_non_exhaustive()
    }
}
