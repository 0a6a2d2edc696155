//! Prints the figures of a boot: from the start of QEMU to the first answer over HTTP, the size of
//! the kernel, and the least memory in which it serves.
//! `cargo bench -p tests --bench boot [-- RUNS]`.
//!
//! It measures and judges nothing: how fast a machine is depends on who else uses it.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use qemu::build::{self, Profile};
use qemu::guest::Guest;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::machine::{Machine, Memory};
use qemu::{prepare, tree};
use tempfile::NamedTempFile;
use tests::web::Site;

/// Boots that are measured unless another number is asked for.
const RUNS: usize = 20;

/// A boot that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(30);

/// The memory sizes that are tried, in MiB.
const MEMORY: [u32; 9] = [6, 8, 10, 12, 16, 20, 24, 32, 64];

fn main() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(RUNS);
    // As it is delivered: not the one with all features that the tests boot.
    prepare::target::ensure()?;
    prepare::emulator::ensure()?;
    let kernel = build::kernel("site", Profile::Compact, &[])?;
    let image = DiskImage::from_directory(&tree::sample_site(), &Interrupt::default())?;
    match stripped_bytes(&kernel) {
        Ok(bytes) => println!("kernel: {} KiB without symbols", bytes / 1024),
        Err(error) => println!("kernel: its size needs binutils' strip ({error})"),
    }
    for machine in [Machine::Q35, Machine::Pc] {
        let mut times = Vec::new();
        for _ in 0..runs {
            times.push(first_answer(&kernel, image.path(), |guest| Guest {
                machine,
                ..guest
            })?);
        }
        times.sort_unstable();
        let [min, median, max] =
            [0, times.len() / 2, times.len() - 1].map(|n| times[n].as_millis());
        println!(
            "{machine}: QEMU start to first answer {min} / {median} / {max} ms (min / median / max of {runs})"
        );
    }
    let serves = |mib: &&u32| {
        let Ok(memory) = Memory::from_mib(**mib) else {
            return false;
        };
        first_answer(&kernel, image.path(), |guest| Guest { memory, ..guest }).is_ok()
    };
    match MEMORY.iter().find(serves) {
        Some(mib) => println!("memory: serves in {mib} MiB"),
        None => println!("memory: does not serve in {} MiB", MEMORY[MEMORY.len() - 1]),
    }
    Ok(())
}

/// From the start of QEMU to the end of the first answer.
fn first_answer(
    kernel: &Path,
    image: &Path,
    change: impl FnOnce(Guest) -> Guest,
) -> Result<Duration, Box<dyn Error>> {
    let (guest, port) = Site::machine(kernel, image)?;
    let guest = change(guest);
    let start = Instant::now();
    let site = Site::boot(&guest, port, PATIENCE)?;
    let (status, _) = site.client().body("/files/", &[])?;
    if status != 200 {
        return Err(format!("the first answer has status {status}").into());
    }
    Ok(start.elapsed())
}

/// The size of the kernel without symbols and debug information.
fn stripped_bytes(kernel: &Path) -> io::Result<u64> {
    let stripped = NamedTempFile::new()?;
    let status = Command::new("strip")
        .arg("-o")
        .arg(stripped.path())
        .arg(kernel)
        .status()?;
    if !status.success() {
        return Err(io::Error::other(status.to_string()));
    }
    Ok(stripped.path().metadata()?.len())
}
