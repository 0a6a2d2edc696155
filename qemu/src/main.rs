//! The program behind `cargo run`: prepares, builds, boots, and ends as the guest ends.

#![forbid(unsafe_code)]

mod cli;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use cli::{Cli, Command, Source};
use qemu::format::Image;
use qemu::guest::{Debugger, Guest};
use qemu::image::DiskImage;
use qemu::interrupt::{INTERRUPTED, Interrupt};
use qemu::passthrough::host::Host;
use qemu::passthrough::ids::Kind;
use qemu::passthrough::survey::Survey;
use qemu::port::DEFAULT_PORT;
use qemu::{bench, build, host_check, interactive, prepare};

/// The unikernel that `cargo run` boots.
const DEFAULT_PACKAGE: &str = "site";

/// The exit code for options that make no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprintln!(
                "{} (--help explains the options)",
                in_one_line(&error.to_string())
            );
            return ExitCode::from(USAGE);
        }
        // The help and the version.
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong, without the advice and the usage that follow behind an empty line.
fn in_one_line(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

fn run(cli: &Cli) -> Result<u8> {
    cli.check()?;
    let host = Host::at(&cli.host_root);
    let survey = Survey::new(&host, &cli.request());
    if cli.dry_run {
        return plan(cli, &survey).map(|()| 0);
    }
    let interrupt = Interrupt::install().context("Ctrl-C cannot be caught")?;
    let outcome = match &cli.command {
        Some(Command::Bench(options)) => bench::run(options, &interrupt)
            .map(|()| 0)
            .map_err(Into::into),
        None => boot(cli, &survey, &interrupt),
    };
    if interrupt.happened() {
        Ok(INTERRUPTED)
    } else {
        outcome
    }
}

/// Prints what would be done: QEMU's command line on standard output, with a name where the disk
/// image would be made, and all else on standard error.
fn plan(cli: &Cli, survey: &Survey) -> Result<()> {
    let given = survey.kinds();
    cli.check_beside(given)?;
    eprint!("{survey}");
    if let Err(error) = survey.verdict() {
        eprintln!("note: without --dry-run it would end here, with code 1: {error}");
    }
    let steps = survey.steps();
    if !steps.is_empty() {
        eprintln!("--bind would do this, and undo it at the end:");
    }
    for step in steps {
        eprintln!("    {step}");
    }
    announce_replaced(cli, given);
    let kernel = match &cli.kernel {
        Some(kernel) => kernel.clone(),
        None => build::expected_kernel(DEFAULT_PACKAGE, cli.profile())?,
    };
    let image = match cli.source(given) {
        Some(Source::Image(image)) => Some(cli.image(&image)?),
        Some(Source::Directory(_)) => {
            let copy = env::temp_dir().join("ringway.img");
            Some(Image::raw(copy, cli.access()))
        }
        Some(Source::Remote(_)) | None => None,
    };
    let guest = cli.guest(kernel, image, cli.host_port(given)?, given);
    println!("{}", guest.command_line());
    Ok(())
}

/// Everything up to the guest's end.
fn boot(cli: &Cli, survey: &Survey, interrupt: &Interrupt) -> Result<u8> {
    let given = survey.kinds();
    eprint!("{survey}");
    survey.verdict()?;
    cli.check_beside(given)?;
    let port = cli.host_port(given)?;
    prepare::emulator::ensure()?;
    let kernel = match &cli.kernel {
        Some(kernel) => kernel.clone(),
        None => {
            prepare::target::ensure()?;
            build::kernel(DEFAULT_PACKAGE, cli.profile(), &cli.features())?
        }
    };
    // The copy of a directory lives as long as the guest.
    let (image, _copy) = match cli.source(given) {
        Some(Source::Image(image)) => (Some(cli.image(&image)?), None),
        Some(Source::Directory(directory)) => {
            let copy = DiskImage::from_directory(&directory, interrupt)?;
            (Some(Image::raw(copy.path(), cli.access())), Some(copy))
        }
        Some(Source::Remote(_)) | None => (None, None),
    };
    if let Some(image) = image
        .as_ref()
        .filter(|image| image.is_iso && !cli.read_only)
    {
        eprintln!(
            "{} is the image of a CD: the guest may not write to it",
            image.path.display()
        );
    }
    let guest = cli.guest(kernel, image, port, given);
    host_check::check(&guest, Path::new("/"))?;
    announce(cli, &guest, port, given);
    // Whatever ends this function gives the functions back. A panic does not, so nothing is printed
    // from here on by what panics when the terminal has gone.
    let _binding = survey.bind(interrupt)?;
    let bound = survey.again();
    if let Err(error) = bound.verdict() {
        bail!("what was bound cannot be used\n{bound}{error}");
    }
    Ok(interactive::run(&guest, interrupt)?)
}

/// Says where the guest will be found.
fn announce(cli: &Cli, guest: &Guest, port: Option<u16>, given: &[Kind]) {
    announce_replaced(cli, given);
    if let Some(port) = port {
        if cli.port.is_none() && port != DEFAULT_PORT {
            eprintln!("port {DEFAULT_PORT} is in use, so it is {port} this time");
        }
        let what = match cli.source(given) {
            Some(Source::Image(path) | Source::Directory(path)) => path.display().to_string(),
            Some(Source::Remote(uri)) => uri.to_string(),
            None => "the disk that is passed through".into(),
        };
        eprintln!("serving {what} at http://localhost:{port} (Ctrl-C ends)");
    }
    if cli.has_unconfined_vhost() {
        eprintln!(
            "vhost without an IOMMU: nothing keeps the device from the kernel's memory (vhost.noiommu=unsafe)"
        );
    }
    if guest.debugger == Debugger::Awaited {
        eprintln!("the guest waits for: {}", guest.debugger_line());
    }
}

/// Says what functions that are passed through take the place of.
fn announce_replaced(cli: &Cli, given: &[Kind]) {
    if given.contains(&Kind::Blk) && cli.source(given).is_none() {
        eprintln!("the disk that is passed through takes the place of a copy of a directory");
    }
    if given.contains(&Kind::Net) {
        if cli.network(given) != &cli.net.network {
            eprintln!("the card that is passed through takes the place of the user network");
        }
        eprintln!(
            "the guest gets its address from the network of that card: its console says \
             \"net0: ADDRESS by DHCP\", and the page is at http://ADDRESS/ from there (Ctrl-C ends)"
        );
    }
}
