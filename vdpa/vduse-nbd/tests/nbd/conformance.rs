//! What every parent must do, a disk on a server does.

use std::sync::Arc;

use vdpa::conformance::{Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::{Platform, VdpaOps};

use crate::link::{ALL, Link};
use crate::world::World;

struct Machine(World);

impl Subject for Machine {
    fn name(&self) -> &str {
        "nbd"
    }

    fn device_type(&self) -> u32 {
        u8::from(virtio::Id::Block).into()
    }

    fn abilities(&self) -> Abilities {
        Abilities::all() - Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.0.kernel)
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let attached = self.0.control.attach("nbd");
        Box::pin(std::future::ready(attached.map_err(|_| OpError::Invalid)))
    }

    fn service(&self) -> Service {
        Service::Blk
    }
}

#[test]
fn the_suite_passes() {
    let machine = Machine(World::new());
    machine.0.offer("nbd", &Link::new(1 << 20, ALL));
    let report = machine.0.platform.block_on(run(&machine));
    assert!(report.is_passed(), "{report}");
}
