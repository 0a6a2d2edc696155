//! A model of an Intel IFC VF as a program of its own, which QEMU 10.1 or newer has as a device of
//! its machine (`-device vfio-user-pci`).

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use ifcvf_card::vfio_user::{Backend, Cable, Misbehaviour, ServeError, Server};
use ifcvf_card::{Doorbells, FileDisk, Function, Kind, Loopback, Plan, Product};
use thiserror::Error;

/// An Intel IFC VF for QEMU 10.1 or newer
///
/// Waits for one QEMU with -device
/// '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"SOCKET"}}', -object
/// memory-backend-memfd,id=m,size=SIZE,share=on and -machine memory-backend=m, and ends with it.
/// Each line of the standard input is a misbehaviour that begins then, as for --misbehave.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where QEMU finds the card
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Which card: n3000-net, c5000x-net, c5000x-blk, modern-blk, modern-blk-default
    #[arg(long)]
    product: Product,
    /// The image of a block card's disk
    #[arg(long, value_name = "IMAGE")]
    disk: Option<PathBuf>,
    /// What the disk says its name is, of which 20 bytes count
    #[arg(long, value_name = "TEXT", default_value = "ifcvf-card")]
    id: String,
    /// Sockets of a network card's cable, this end's and the other's (-netdev dgram); without them
    /// the card receives what it sends
    #[arg(long, num_args = 2, value_names = ["OWN", "PEER"])]
    cable: Option<Vec<PathBuf>>,
    /// A network card's address, as 02:1f:c0:00:00:01
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<Mac>,
    /// Pairs of queues of a network card, or queues of a block card
    #[arg(long, value_name = "N", visible_alias = "queue-pairs", value_parser = clap::value_parser!(u16).range(1..=32))]
    queues: Option<u16>,
    /// Descriptors of each queue
    #[arg(long, value_name = "N")]
    queue_size: Option<u16>,
    /// MSI-X vectors; by default one for each queue and the configuration
    #[arg(long, value_name = "N")]
    vectors: Option<u16>,
    /// Gives each doorbell a page for itself
    #[arg(long)]
    page_per_queue: bool,
    /// What the card does wrong, may be repeated; a wrong name lists them
    #[arg(long, value_name = "KIND")]
    misbehave: Vec<Misbehaviour>,
}

/// A network card's address.
#[derive(Clone, Copy, Debug)]
struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let byte = |digits: &str| match digits.len() {
            2 => u8::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or("six bytes of two hexadecimal digits, with colons between")
    }
}

/// Why there is no card.
#[derive(Debug, Error)]
enum OptionError {
    #[error("a block card needs --disk IMAGE")]
    NoDisk,
    #[error("--disk is for block cards, and this is a network card")]
    DiskOfNet,
    #[error("--cable is for network cards, and this is a block card")]
    CableOfBlk,
    #[error("{0}: {1}")]
    Disk(PathBuf, #[source] io::Error),
    #[error("{0}: {1}")]
    Cable(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ifcvf-card: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), OptionError> {
    let (function, cable) = function(&options)?;
    let backend = Backend {
        plan: plan(&options),
        function,
        cable,
        misbehaviours: options.misbehave,
    };
    let server = Server::bind(&options.socket)?;
    println!("ifcvf-card: {} waits", options.product);
    let card = server.serve(backend, io::stdin())?;
    println!("ifcvf-card: {:?}", card.counters());
    for violation in card.violations() {
        println!("ifcvf-card: the driver: {violation}");
    }
    Ok(())
}

fn plan(options: &Options) -> Plan {
    let usual = Plan::new(options.product);
    let queues = options.queues.unwrap_or(usual.queues);
    let plan = Plan {
        queues,
        mac: options.mac.map_or(usual.mac, |mac| mac.0),
        queue_size: options.queue_size.unwrap_or(usual.queue_size),
        doorbells: if options.page_per_queue {
            Doorbells::PagePerQueue
        } else {
            Doorbells::Close
        },
        ..usual
    };
    let for_each = plan.queue_count().saturating_add(1);
    Plan {
        vectors: options.vectors.unwrap_or(for_each),
        ..plan
    }
}

/// What is behind the card.
fn function(options: &Options) -> Result<(Function, Option<Cable>), OptionError> {
    match (options.product.kind(), &options.disk, &options.cable) {
        (Kind::Net, Some(_), _) => Err(OptionError::DiskOfNet),
        (Kind::Blk, _, Some(_)) => Err(OptionError::CableOfBlk),
        (Kind::Blk, None, _) => Err(OptionError::NoDisk),
        (Kind::Blk, Some(image), None) => {
            let disk = disk(image, &options.id)
                .map_err(|error| OptionError::Disk(image.clone(), error))?;
            Ok((Function::Blk(Box::new(disk)), None))
        }
        (Kind::Net, None, None) => Ok((Function::Net(Box::new(Loopback::default())), None)),
        (Kind::Net, None, Some(ends)) => {
            let [own, peer] = &ends[..] else {
                unreachable!("the parser takes two");
            };
            let made = Cable::new(own, peer.clone());
            let (cable, plug) = made.map_err(|error| OptionError::Cable(own.clone(), error))?;
            Ok((Function::Net(Box::new(plug)), Some(cable)))
        }
    }
}

fn disk(image: &Path, id: &str) -> io::Result<FileDisk> {
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    FileDisk::new(file, id)
}
