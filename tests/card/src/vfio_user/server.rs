//! Waits for a client on a socket and is its card until it goes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;

use super::cable::Cable;
use super::connection::{Connection, ConnectionError};
use super::device::Device;
use super::memory::ClientMemory;
use super::misbehaviour::Misbehaviour;
use super::orders::Orders;
use super::session::Session;
use super::vectors::Vectors;
use crate::{Card, Function, MsixTable, Plan, PlanError, Served};

/// Refusals that are told of. A client could go on for ever.
const COMPLAINTS_MAX: u32 = 32;

/// A place where one client is waited for. The socket goes when the client has come.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// What the card is and what it does.
#[derive(Debug)]
pub struct Backend {
    /// The card, whose table of vectors is the client's in any case.
    pub plan: Plan,
    /// What is behind it.
    pub function: Function,
    /// The other end of the wire, if that is a cable.
    pub cable: Option<Cable>,
    /// What is wrong with it from the beginning.
    pub misbehaviours: Vec<Misbehaviour>,
}

/// Why a card cannot be had, or is no more.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Somebody waits there already.
    #[error("{0}: another program listens there")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("{0}: {1}")]
    Bind(PathBuf, #[source] io::Error),
    /// No client comes.
    #[error("no client can be accepted: {0}")]
    Accept(#[source] io::Error),
    /// There is no such card.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is nothing to wait for.
    #[error("nothing can be waited for: {0}")]
    Wait(#[source] io::Error),
    /// The client was given up.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Server {
    /// Makes a socket at `path`. One that a program left there that has ended is replaced.
    ///
    /// # Errors
    ///
    /// [`ServeError::InUse`], [`ServeError::Bind`].
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        let failed = |error| ServeError::Bind(path.into(), error);
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                match UnixStream::connect(path).map_err(|error| error.kind()) {
                    Err(io::ErrorKind::ConnectionRefused) if is_socket(path) => {}
                    Err(io::ErrorKind::ConnectionRefused) => return Err(failed(error)),
                    _ => return Err(ServeError::InUse(path.into())),
                }
                fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path).map_err(failed)?
            }
            result => result.map_err(failed)?,
        };
        Ok(Self {
            listener,
            path: path.into(),
        })
    }

    /// Waits for a client and is its card until it goes. Each line of `orders` is a
    /// [`Misbehaviour`] that begins then. Returns the card as the client left it.
    ///
    /// # Errors
    ///
    /// Any [`ServeError`].
    pub fn serve(self, backend: Backend, orders: impl AsFd) -> Result<Arc<Card>, ServeError> {
        let memory = Arc::new(ClientMemory::new());
        let mut plan = Plan {
            table: MsixTable::Hosts,
            ..backend.plan
        };
        for misbehaviour in &backend.misbehaviours {
            misbehaviour.spoil(&mut plan);
        }
        let vectors = Arc::new(Vectors::new(plan.vectors));
        let card = Card::new(plan, backend.function, memory.clone(), vectors.clone())?;
        for misbehaviour in &backend.misbehaviours {
            misbehaviour.begin(&card);
        }
        let mut device = Device::new(Arc::clone(&card), memory, vectors);
        let mut session = Session::new(device.description());
        let mut connection = self.accept().map_err(ServeError::Accept)?;
        let mut orders = Orders::from(orders);
        let mut cable = backend.cable;
        let mut complaints = COMPLAINTS_MAX;
        loop {
            let wait = match card.serve() {
                Served::More => Wait::Not,
                Served::Idle => Wait::ForEver,
            };
            let sources = [
                Some((connection.as_fd(), PollFlags::IN)),
                orders
                    .source()
                    .map(|orders| (orders.as_fd(), PollFlags::IN)),
                cable.as_ref().map(|cable| (cable.as_fd(), cable.events())),
            ];
            let ready = ready(sources, wait).map_err(|errno| ServeError::Wait(errno.into()));
            let [client, order, frame] = ready?;
            if frame && let Some(cable) = &mut cable {
                cable.work();
            }
            if order {
                obey(&card, &orders.take());
            }
            if client {
                let Some(mut request) = connection.receive()? else {
                    return Ok(card);
                };
                let answer = session.answer(&mut request, &mut device);
                if let Err(errno) = &answer
                    && complaints > 0
                {
                    complaints -= 1;
                    eprintln!(
                        "ifcvf-card: command {} is refused: {errno}",
                        request.command
                    );
                }
                connection.answer(&request, answer)?;
            }
        }
    }

    /// Waits for the client. Nobody else can come after it.
    fn accept(self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept()?;
        Connection::new(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Does what the lines say.
fn obey(card: &Card, lines: &[String]) {
    for line in lines.iter().filter(|line| !line.is_empty()) {
        match line.parse::<Misbehaviour>() {
            Ok(misbehaviour) if misbehaviour.can_begin_late() => {
                misbehaviour.begin(card);
                println!("ifcvf-card: {line}");
            }
            Ok(_) => {
                eprintln!("ifcvf-card: {line}: too late, the client has seen the capabilities");
            }
            Err(error) => eprintln!("ifcvf-card: {line}: {error}"),
        }
    }
}

/// Whether there is something to wait for at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Not,
    ForEver,
}

/// Waits until somebody has something to say, and returns who.
fn ready<const N: usize>(
    sources: [Option<(BorrowedFd<'_>, PollFlags)>; N],
    wait: Wait,
) -> Result<[bool; N], Errno> {
    let mut polled: Vec<PollFd<'_>> = sources
        .iter()
        .flatten()
        .map(|(source, events)| PollFd::from_borrowed_fd(*source, *events))
        .collect();
    let limit = (wait == Wait::Not).then(Timespec::default);
    match poll(&mut polled, limit.as_ref()) {
        Err(Errno::INTR) => return Ok([false; N]),
        result => result?,
    };
    let mut polled = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(sources.map(|source| source.is_some() && polled.next() == Some(true)))
}
