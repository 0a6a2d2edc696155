//! A disk that a task serves from its memory, from its creation to its end: put through the checks
//! that every parent driver passes.
//!
//! Run it on the host: `cargo run -p vdpa-vduse --example ram_disk`.

mod disk;

use std::error::Error;
use std::sync::Arc;

use vdpa::conformance::{Service, Subject, run};
use vdpa::ops::{Abilities, OpError};
use vdpa::platform::BoxFuture;
use vdpa::testing::FakePlatform;
use vdpa::{Platform, VdpaOps};
use vdpa_vduse::{Control, Options, serve};

use disk::RamDisk;

const NAME: &str = "ram";

/// A machine with the devices of its tasks.
struct Machine {
    platform: Arc<FakePlatform>,
    control: Arc<Control>,
}

impl Subject for Machine {
    fn name(&self) -> &str {
        "a disk of a task"
    }

    fn device_type(&self) -> u32 {
        2
    }

    fn abilities(&self) -> Abilities {
        Abilities::all() - Abilities::DIRTY_LOG
    }

    fn platform(&self) -> Arc<dyn Platform> {
        Arc::clone(&self.platform) as Arc<dyn Platform>
    }

    fn make(&self) -> BoxFuture<'_, Result<Box<dyn VdpaOps>, OpError>> {
        let attached = self.control.attach(NAME).map_err(|_| OpError::Invalid);
        Box::pin(std::future::ready(attached))
    }

    fn service(&self) -> Service {
        Service::Blk
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let platform = FakePlatform::new();
    let kernel: Arc<dyn Platform> = platform.clone();
    let control = Control::new(&kernel);

    let mut disk = RamDisk::new(vec![0; 1 << 20], 1);
    control.create(&disk.config(NAME), Options::default())?;
    let task = control.open(NAME)?;
    disk.set_up(&task)?;
    let running = async move {
        let end = serve(&task, &mut disk).await;
        eprintln!("the task ends: {end}");
    };
    platform.spawn("ram disk", Box::pin(running));

    let machine = Machine {
        platform: Arc::clone(&platform),
        control,
    };
    let report = platform.block_on(run(&machine));
    println!("{report}");
    if report.is_passed() {
        Ok(())
    } else {
        Err("the device does not conform".into())
    }
}
