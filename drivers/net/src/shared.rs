//! What an interface shares with its driver and with reports.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use spin::Mutex;
use vdpa::MacAddress;
use vdpa::ids::IdGuard;
use vdpa::tree::{Inspect, Report};

use super::config::Link;
use super::counters::Counters;

/// What an interface is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Everything.
    Running,
    /// Nothing: its device is broken or about to be reset, and the queues must be left alone.
    Silent,
    /// To free its queues: the device has let go of them, as far as it ever will.
    Released,
}

/// The part of an interface that is not the stack's alone.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) mtu: u16,
    pub(super) counters: Arc<Counters>,
    stage: AtomicU8,
    link_up: AtomicBool,
    mac: Mutex<MacAddress>,
    /// The number in the name.
    _id: IdGuard,
}

/// What an interface is made of.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) mac: MacAddress,
    pub(super) mtu: u16,
    pub(super) id: IdGuard,
}

impl Shared {
    /// An interface that runs.
    pub(super) fn new(identity: Identity, link: Link) -> Arc<Self> {
        let Identity { name, mac, mtu, id } = identity;
        Arc::new(Self {
            name,
            mtu,
            counters: Arc::default(),
            stage: AtomicU8::new(Stage::Running as u8),
            link_up: AtomicBool::new(link == Link::Up),
            mac: Mutex::new(mac),
            _id: id,
        })
    }

    /// Ends all traffic.
    pub(super) fn silence(&self) {
        self.stage.fetch_max(Stage::Silent as u8, Ordering::AcqRel);
        self.set_link(Link::Down);
    }

    /// Lets the interface free its queues when it is polled next.
    pub(super) fn release(&self) {
        self.stage.store(Stage::Released as u8, Ordering::Release);
    }

    #[inline]
    pub(super) fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }

    pub(super) fn link(&self) -> Link {
        if self.link_up.load(Ordering::Relaxed) {
            Link::Up
        } else {
            Link::Down
        }
    }

    pub(super) fn mac(&self) -> MacAddress {
        *self.mac.lock()
    }

    pub(super) fn set_mac(&self, mac: MacAddress) {
        *self.mac.lock() = mac;
    }

    pub(super) fn set_link(&self, link: Link) {
        self.link_up.store(link == Link::Up, Ordering::Relaxed);
    }
}

/// The features and the queues are in the report of the virtio device.
impl Inspect for Shared {
    fn report(&self) -> Report {
        let mut facts = Vec::from([
            ("mac", self.mac().to_string()),
            ("mtu", self.mtu.to_string()),
            ("link", self.link().to_string()),
        ]);
        facts.extend(self.counters.facts());
        Report {
            facts,
            ..Report::default()
        }
    }
}
