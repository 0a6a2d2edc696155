//! The disk as its task serves it.

use nbd_client::Durability;
use spin::Mutex;
use vdpa::Features;
use vdpa_vduse::{Rest, Task, TaskDevice, TaskError, Turn};
use virtio::blk::F;
use virtq::Event;

use crate::device::NbdDevice;

/// What is raised for who has the connection.
#[derive(Debug, Default)]
pub struct Signals {
    /// There may be something to send.
    pub kick: Event,
    /// Somebody waits for the device to come to rest.
    pub rest: Event,
}

/// The disk as [`vdpa_vduse::serve`] runs it.
#[derive(Debug)]
pub struct Served<'d> {
    /// The disk, which the connection has, too.
    pub device: &'d Mutex<NbdDevice>,
    /// What the connection hears.
    pub signals: &'d Signals,
}

impl TaskDevice for Served<'_> {
    fn attached(&mut self) {
        self.device.lock().attached();
        self.signals.kick.raise();
    }

    fn detached(&mut self) {
        self.device.lock().detached();
        self.signals.kick.raise();
    }

    fn start(&mut self, features: Features) {
        // VIRTIO 1.2, 5.2.6.2: who cannot flush relies on every write.
        self.device.lock().start(if features.contains(F::FLUSH) {
            Durability::Cached
        } else {
            Durability::Durable
        });
    }

    fn stop(&mut self) {
        self.device.lock().stop();
        self.signals.kick.raise();
    }

    fn let_go(&mut self) {
        self.device.lock().let_go();
        self.signals.kick.raise();
    }

    fn rest(&mut self) -> Rest {
        let mut device = self.device.lock();
        let before = device.resting();
        let rest = device.rest();
        if device.resting() != before {
            self.signals.rest.raise();
        }
        drop(device);
        self.signals.kick.raise();
        rest
    }

    fn serve(&mut self, _task: &Task) -> Result<Turn, TaskError> {
        self.device.lock().take();
        self.signals.kick.raise();
        Ok(Turn::Idle)
    }
}
