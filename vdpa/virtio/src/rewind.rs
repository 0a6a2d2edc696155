//! How a driver makes its rings start again, for a device that can take a queue up nowhere else.
//!
//! Hardware without a way to set the state of a queue begins with the first entry after each reset
//! (VIRTIO 1.2, 4.1.4.3 has no register for it). Only the driver knows what was in flight, so it is
//! asked to [rewind](virtq::Queue::rewind) while the device is at rest. It is asked first whether
//! it listens at all, before anything has been stopped.

use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use super::{VirtioClaim, VirtioDevice};

/// How long a driver has to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often is looked whether it has.
const PERIOD: Duration = Duration::from_millis(1);

/// What is being asked of the driver.
#[derive(Debug, Default)]
pub(super) struct Rewinding {
    stage: AtomicU8,
}

mod stage {
    /// Nothing.
    pub(super) const IDLE: u8 = 0;
    /// Whether it listens.
    pub(super) const ASKED: u8 = 1;
    /// It does.
    pub(super) const ANSWERED: u8 = 2;
    /// To rewind.
    pub(super) const WANTED: u8 = 3;
    /// It does so now.
    pub(super) const AT_WORK: u8 = 4;
    /// It has.
    pub(super) const DONE: u8 = 5;
    /// It could not.
    pub(super) const FAILED: u8 = 6;
}

/// The request to rewind every queue of a device, which is at rest meanwhile.
#[derive(Debug)]
#[must_use = "the device waits until it is said to be done"]
pub struct Rewind<'a> {
    rewinding: &'a Rewinding,
    outcome: u8,
}

impl Rewind<'_> {
    /// Every queue has been rewound. Dropped instead, the request has failed.
    pub fn done(mut self) {
        self.outcome = stage::DONE;
    }
}

impl Drop for Rewind<'_> {
    fn drop(&mut self) {
        self.rewinding.stage.store(self.outcome, Ordering::Release);
    }
}

/// The driver did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DriverSilent;

impl VirtioClaim {
    /// Whether the driver has to [rewind](virtq::Queue::rewind) its queues, which it should ask
    /// whenever [`config_event`](VirtioDevice::config_event) has been raised. A driver that does
    /// not ask cannot be moved to a device that only starts afresh, nor away from one.
    #[must_use]
    pub fn rewind_wanted(&self) -> Option<Rewind<'_>> {
        let rewinding = &self.rewinding;
        if rewinding.exchange(stage::ASKED, stage::ANSWERED)
            || !rewinding.exchange(stage::WANTED, stage::AT_WORK)
        {
            return None;
        }
        let outcome = stage::FAILED;
        Some(Rewind { rewinding, outcome })
    }
}

impl VirtioDevice {
    /// Finds out whether the driver would rewind.
    pub(super) async fn ask_driver(&self) -> Result<(), DriverSilent> {
        let answer = self.put(stage::ASKED, stage::ANSWERED).await;
        self.rewinding.stage.store(stage::IDLE, Ordering::Release);
        answer
    }

    /// Has the driver rewind all its queues. The device is at rest.
    pub(super) async fn have_rewound(&self) -> Result<(), DriverSilent> {
        let answer = self.put(stage::WANTED, stage::DONE).await;
        self.rewinding.stage.store(stage::IDLE, Ordering::Release);
        answer
    }

    /// Puts a question and waits for the answer. Afterwards the driver is not at it any more.
    async fn put(&self, question: u8, answer: u8) -> Result<(), DriverSilent> {
        let rewinding = &self.rewinding;
        rewinding.stage.store(question, Ordering::Release);
        self.config_event.raise();
        let deadline = self.platform.now() + PATIENCE;
        loop {
            match rewinding.stage.load(Ordering::Acquire) {
                now if now == answer => return Ok(()),
                stage::FAILED => return Err(DriverSilent),
                // It is straight code: it will not take long.
                stage::AT_WORK => {}
                _ if self.platform.now() < deadline => {}
                _ if rewinding.exchange(question, stage::IDLE) => return Err(DriverSilent),
                _ => {}
            }
            self.platform.sleep(PERIOD).await;
        }
    }
}

impl Rewinding {
    fn exchange(&self, from: u8, to: u8) -> bool {
        self.stage
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
