//! The program behind `cargo run`: prepares, builds, boots, and ends as the guest ends.

#![forbid(unsafe_code)]

mod cli;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cli::{Cli, Command, Source};
use qemu::guest::{Debugger, Guest};
use qemu::image::DiskImage;
use qemu::interrupt::{INTERRUPTED, Interrupt};
use qemu::port::DEFAULT_PORT;
use qemu::{bench, build, interactive, prepare};

/// The unikernel that `cargo run` boots.
const DEFAULT_PACKAGE: &str = "site";

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    cli.check()?;
    if cli.dry_run {
        println!("{}", planned(cli)?.command_line());
        return Ok(0);
    }
    let interrupt = Interrupt::install().context("Ctrl-C cannot be caught")?;
    let outcome = match &cli.command {
        Some(Command::Bench(options)) => bench::run(options, &interrupt)
            .map(|()| 0)
            .map_err(Into::into),
        None => boot(cli, &interrupt),
    };
    if interrupt.happened() {
        Ok(INTERRUPTED)
    } else {
        outcome
    }
}

/// The machine as it would be run, with a name where the disk image would be made.
fn planned(cli: &Cli) -> Result<Guest> {
    let kernel = match &cli.kernel {
        Some(kernel) => kernel.clone(),
        None => build::expected_kernel(DEFAULT_PACKAGE, cli.profile())?,
    };
    let image = match cli.source() {
        Source::Image(image) => image,
        Source::Directory(_) => env::temp_dir().join("ringway.img"),
    };
    Ok(cli.guest(kernel, image, cli.host_port()?))
}

/// Everything up to the guest's end.
fn boot(cli: &Cli, interrupt: &Interrupt) -> Result<u8> {
    let port = cli.host_port()?;
    prepare::emulator::ensure()?;
    let kernel = match &cli.kernel {
        Some(kernel) => kernel.clone(),
        None => {
            prepare::target::ensure()?;
            build::kernel(DEFAULT_PACKAGE, cli.profile())?
        }
    };
    // The copy of a directory lives as long as the guest.
    let (image, _copy) = match cli.source() {
        Source::Image(image) => (image, None),
        Source::Directory(directory) => {
            let copy = DiskImage::from_directory(&directory, interrupt)?;
            (copy.path().to_path_buf(), Some(copy))
        }
    };
    let guest = cli.guest(kernel, image, port);
    announce(cli, &guest, port);
    Ok(interactive::run(&guest, interrupt)?)
}

/// Says where the guest will be found.
fn announce(cli: &Cli, guest: &Guest, port: Option<u16>) {
    if let Some(port) = port {
        if cli.port.is_none() && port != DEFAULT_PORT {
            eprintln!("port {DEFAULT_PORT} is in use, so it is {port} this time");
        }
        let what = match cli.source() {
            Source::Image(path) | Source::Directory(path) => path,
        };
        eprintln!(
            "serving {} at http://localhost:{port} (Ctrl-C ends)",
            what.display()
        );
    }
    if cli.has_vhost() {
        eprintln!(
            "vhost without an IOMMU: nothing keeps the device from the kernel's memory (vhost.noiommu=unsafe)"
        );
    }
    if guest.debugger == Debugger::Awaited {
        eprintln!("the guest waits for: {}", guest.debugger_line());
    }
}
