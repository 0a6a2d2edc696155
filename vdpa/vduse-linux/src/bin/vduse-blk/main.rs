//! Serves a disk image as a virtio disk of this machine, by VDUSE: `vduse-blk NAME IMAGE`, and then
//! `vdpa dev add name NAME mgmtdev vduse`.
//!
//! It may be killed and started again at any time; requests wait meanwhile.

#![forbid(unsafe_code)]

mod clear;
mod disk;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use vduse_linux::{
    Control, Created, DeviceConfig, DeviceFile, Error, Journal, QueueOptions, Server,
};
use vduse_protocol::ConfigUpdate;
use virtio::F;

use self::disk::{Disk, SEGMENTS};

const USAGE: &str = "usage: vduse-blk [--queues N] [--size N] [--split] [--read-only] \
                     [--journal FILE] NAME IMAGE\n       vduse-blk --destroy NAME";

/// Rings begin at multiples of a page.
const PAGE: u32 = 4096;

/// What the user wants.
struct Wish {
    queues: u16,
    size: u16,
    split: bool,
    read_only: bool,
    journal: Option<PathBuf>,
    destroy: bool,
    help: bool,
    operands: Vec<OsString>,
}

fn main() -> ExitCode {
    let wish = parse(env::args_os().skip(1));
    let ended = match wish.as_ref().map(|wish| (wish, &wish.operands[..])) {
        Some((wish, _)) if wish.help => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some((wish, [name])) if wish.destroy => {
            name_of(name).map(|name| destroy(name).map_err(|error| format!("{name}: {error}")))
        }
        Some((wish, [name, image])) if !wish.destroy => {
            name_of(name).map(|name| serve(wish, name, image.as_ref()))
        }
        _ => None,
    };
    match ended {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(message)) => {
            eprintln!("vduse-blk: {message}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// The name of a device, which is a file in the folder of all of them.
fn name_of(word: &OsStr) -> Option<&str> {
    let name = word.to_str()?;
    let is_file = !["", ".", ".."].contains(&name) && !name.contains('/');
    is_file.then_some(name)
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Wish> {
    let mut wish = Wish {
        queues: 1,
        size: 256,
        split: false,
        read_only: false,
        journal: None,
        destroy: false,
        help: false,
        operands: Vec::new(),
    };
    let number = |word: Option<OsString>| word?.to_str()?.parse().ok();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--queues") => wish.queues = number(words.next()).filter(|&n| n > 0)?,
            Some("--size") => wish.size = number(words.next())?,
            Some("--split") => wish.split = true,
            Some("--read-only") => wish.read_only = true,
            Some("--journal") => wish.journal = Some(words.next()?.into()),
            Some("--destroy") => wish.destroy = true,
            Some("-h" | "--help") => wish.help = true,
            Some(option) if option.starts_with('-') => return None,
            _ => wish.operands.push(word),
        }
    }
    wish.size.is_power_of_two().then_some(wish)
}

fn destroy(name: &str) -> Result<(), Error> {
    Control::open()?.destroy(name)
}

fn serve(wish: &Wish, name: &str, image: &Path) -> Result<(), String> {
    let opened = OpenOptions::new()
        .read(true)
        .write(!wish.read_only)
        .open(image);
    let disk = opened.and_then(|file| Disk::new(file, wish.read_only, name));
    let disk = disk.map_err(|error: io::Error| format!("{}: {error}", image.display()))?;
    let journal = wish.journal.clone().unwrap_or_else(|| {
        // Gone with the machine, as is what it speaks of.
        PathBuf::from(format!("/run/vduse-{name}.journal"))
    });
    run(wish, name, disk, &journal).map_err(|error| format!("{name}: {error}"))
}

fn run(wish: &Wish, name: &str, disk: Disk, journal: &Path) -> Result<(), Error> {
    let packed = if wish.split {
        F::empty()
    } else {
        F::RING_PACKED
    };
    let ring = F::VERSION_1 | F::ACCESS_PLATFORM | F::INDIRECT_DESC | F::EVENT_IDX | packed;
    // All of them are in the first half.
    let features = (ring.bits().to_ne() | disk.features().bits().to_ne()) as u64;
    let config = disk.config(wish.queues);
    let control = Control::open()?;
    let created = control.create(&DeviceConfig {
        name: name.to_owned(),
        vendor_id: 0,
        device_id: u8::from(virtio::Id::Block).into(),
        features,
        queues: wish.queues.into(),
        queue_align: PAGE,
        groups: 1,
        address_spaces: 1,
        config: config.to_vec(),
    })?;
    let device = DeviceFile::open(name)?;
    drop(control);
    // A device that is there keeps the queues that it was made with.
    let queues = match created {
        Created::New => wish.queues,
        Created::Existing => device.queue_count()?,
    };
    if created == Created::Existing {
        // The image may have grown.
        device.set_config(&ConfigUpdate {
            offset: 0,
            bytes: config[..8].to_vec(),
        })?;
    }
    let options = QueueOptions {
        count: queues,
        size_max: wish.size,
        // The data, and a header and a status.
        chain_max: SEGMENTS + 2,
    };
    let journal = Journal::open(journal, name, queues)?;
    let server = Server::new(device, created, options, Some(journal), Arc::new(disk))?;
    eprintln!(
        "vduse-blk: {name}: {}",
        match created {
            Created::New => "`vdpa dev add` makes it a device of this machine",
            Created::Existing => "goes on",
        }
    );
    Err(server.run())
}
