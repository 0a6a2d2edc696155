//! Simulated devices that are added through the management interface and deleted again, with the
//! drivers that claim them in between.

use alloc::sync::Arc;

use guest_bench::row::Class;
use kernel::System;
use kernel::log::LevelFilter;
use vdpa::device::Removed;
use vdpa_mgmt::{Attributes, Handle, Management};

use crate::Failure;
use crate::stopwatch::{Stopwatch, Work};

/// What the devices are called, one after the other.
const NAME: &str = "bench";

/// Pairs of adding and deleting.
pub struct Pairs {
    management: Arc<Management>,
    maker: Handle,
}

impl Pairs {
    /// Pairs of devices of one class.
    pub fn new(system: &System, class: Class) -> Self {
        let maker = match class {
            Class::Net => "vdpasim_net",
            Class::Block => "vdpasim_blk",
        };
        Self {
            management: Arc::clone(system.management()),
            maker: Handle::named(maker),
        }
    }

    async fn add_and_delete(&self, pairs: u64) -> Result<(), Failure> {
        let attributes = Attributes::default();
        for _ in 0..pairs {
            self.management.add(NAME, &self.maker, &attributes).await?;
            if self.management.delete(NAME).await? != Removed::Clean {
                return Err("the device has left something behind".into());
            }
        }
        Ok(())
    }
}

impl Work for Pairs {
    async fn perform(
        &mut self,
        operations: u64,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<u64, Failure> {
        // Each device is announced in several lines, and the serial port is far slower than all the
        // rest.
        let level = kernel::log::max_level();
        kernel::log::set_max_level(LevelFilter::Off);
        let result = stopwatch.time(self.add_and_delete(operations)).await;
        kernel::log::set_max_level(level);
        result.map(|()| operations)
    }
}
