//! The site on a disk over the network: NBD servers that people have, killed and started again
//! while their disk is read.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Completion, Failed, Trial};
use qemu::build::Profile;
use qemu::image::DiskImage;
use qemu::interrupt::Interrupt;
use qemu::prepare::package::{self, Names};
use sha2::{Digest, Sha256};
use tests::web::Site;
use tests::{kernels, noise, requirement};

/// A boot that takes longer hangs, and so does an answer of the console.
const PATIENCE: Duration = Duration::from_secs(60);
/// The length of the file that is read while the server dies, and how much of it has come then.
const LENGTH: usize = 12 << 20;
const AT_DEATH: usize = 3 << 20;

/// A server of NBD.
#[derive(Clone, Copy)]
struct Kind {
    program: &'static str,
    /// Debian's package with it.
    package: &'static str,
    arguments: fn(port: &str, image: &str) -> Vec<String>,
    /// Who drives the disk, for the command line.
    driver: &'static str,
}

/// Structured replies, block sizes and holes.
const QEMU_NBD: Kind = Kind {
    program: "qemu-nbd",
    package: "qemu-utils",
    arguments: |port, image| {
        let options = [
            "-f",
            "raw",
            "-t",
            "-e",
            "4",
            "-b",
            "127.0.0.1",
            "-x",
            "disk",
            "-p",
        ];
        let words = options.into_iter().chain([port, image]);
        words.map(Into::into).collect()
    },
    driver: "blk=virtio",
};

/// Another implementation, read-only and without structured replies.
const NBDKIT: Kind = Kind {
    program: "nbdkit",
    package: "nbdkit",
    arguments: |port, image| {
        let options = ["-f", "-r", "--no-sr", "-i", "127.0.0.1", "-p", port, "file"];
        let words = options.into_iter().chain([image]);
        words.map(Into::into).collect()
    },
    driver: "blk=vhost",
};

pub fn trials() -> Vec<Trial> {
    [QEMU_NBD, NBDKIT]
        .map(|kind| {
            let name = format!(
                "remote_disk::download_outlives_its_server::{}",
                kind.program
            );
            Trial::ignorable_test(name, move || {
                download_outlives_its_server(kind)
                    .map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .into()
}

/// A server that runs until it is killed.
struct Server(Child);

impl Server {
    fn start(kind: Kind, port: u16, image: &Path) -> Result<Self> {
        let image = image.to_str().context("a path of this program")?;
        let child = Command::new(kind.program)
            .args((kind.arguments)(&port.to_string(), image))
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL; both fail if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn download_outlives_its_server(kind: Kind) -> Result<Completion> {
    if let Err(missing) = package::ensure(kind.program, &Names::debian(kind.package)) {
        return Ok(Completion::ignored_with(requirement::skip(missing)?));
    }
    let files = tempfile::tempdir()?;
    let bytes = noise::bytes(12, LENGTH);
    std::fs::write(files.path().join("large.bin"), &bytes)?;
    let image = DiskImage::from_directory(files.path(), &Interrupt::default())?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let server = Server::start(kind, port, image.path())?;

    let kernel = kernels::build("site", Profile::Compact);
    let kernel = kernel.map_err(|error| anyhow!("{error}"))?;
    let (mut guest, web) = Site::machine(&kernel, image.path())?;
    guest.disks.clear();
    let words = format!("{} nbd=nbd://10.0.2.2:{port}/disk", kind.driver);
    guest.append = format!("{} {words}", guest.append);
    let site = Site::boot(&guest, web, PATIENCE);
    let mut site = site.map_err(|error| anyhow!("{error}"))?;
    let console = site.console().join("\n");
    ensure!(
        console.contains("serving blk0 (FAT32, 1 file)"),
        "{console}"
    );

    let response = site.client().get("/files/large.bin", &[])?;
    ensure!(response.status() == 200, "{}", response.status());
    let mut reader = response.into_body().into_reader();
    let mut body = vec![0; AT_DEATH];
    reader.read_exact(&mut body)?;
    drop(server);
    // The machine notices before anybody is there again.
    site.wait_for("trying again", PATIENCE)?;
    let _server = Server::start(kind, port, image.path())?;
    let begin = Instant::now();
    reader.read_to_end(&mut body)?;
    ensure!(body.len() == LENGTH, "{} bytes", body.len());
    let same = Sha256::digest(&body) == Sha256::digest(&bytes);
    ensure!(same, "other bytes than those of the file");
    ensure!(begin.elapsed() < PATIENCE, "after {:?}", begin.elapsed());

    for (line, answer) in [
        ("vdpa dev show", "nbd0: type block mgmtdev vduse"),
        // The server is told, and the connection closed, once nothing needs it.
        ("vdpa dev del nbd0", "nobody needs it any more"),
        ("vdpa dev add name nbd0 mgmtdev vduse", "connected"),
    ] {
        site.type_line(line, answer, PATIENCE)
            .map_err(|error| anyhow!("the console, {line}: {error}"))?;
    }
    Ok(Completion::Completed)
}
