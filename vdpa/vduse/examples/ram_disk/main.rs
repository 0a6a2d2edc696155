//! A disk that a task serves from its memory, from its creation to its end: put through the checks
//! that every parent driver passes.
//!
//! Run it on the host: `cargo run -p vdpa-vduse --example ram_disk`.

mod disk;
#[path = "../common/machine.rs"]
mod machine;

use std::error::Error;

use vdpa::conformance::Service;
use vdpa_vduse::Options;

use disk::RamDisk;
use machine::{Checked, Machine};

const NAME: &str = "ram";

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(Checked {
        name: NAME,
        device_type: virtio::Id::Block,
        service: Service::Blk,
        requests: None,
    });
    let disk = RamDisk::new(vec![0; 1 << 20], 1);
    let control = &machine.control;
    control.create(&disk.config(NAME), Options::default())?;
    let task = control.open(NAME)?;
    disk.set_up(&task)?;
    machine.spawn(task, disk);
    machine.check()
}
