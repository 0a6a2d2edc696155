//! The connection to the server, and the next one when it has ended.

use alloc::vec;
use core::convert::Infallible;
use core::future::pending;
use core::net::SocketAddr;
use core::time;

use embassy_futures::select::{Either4, select4};
use kernel::embassy_net::Stack;
use kernel::embassy_net::tcp::TcpSocket;
use kernel::embassy_time::{Duration, Instant, Timer, with_timeout};
use kernel::log::{error, info, warn};
use nbd_client::{Backoff, Error};
use spin::Mutex;
use vduse_nbd::NbdDevice;
use virtq::Event;

const RECEIVE_BYTES: usize = 64 * 1024;
const SEND_BYTES: usize = 32 * 1024;
/// How long a server may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last words may take to reach it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no connection any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Lost {
    #[error("it cannot be reached")]
    Unreachable,
    #[error("the connection has ended")]
    Closed,
    #[error("nobody needs it any more")]
    Left,
    #[error(transparent)]
    Error(#[from] Error),
}

/// What a connection is made and used with.
pub(super) struct Link<'d> {
    pub(super) stack: Stack<'static>,
    pub(super) server: SocketAddr,
    pub(super) device: &'d Mutex<NbdDevice>,
    /// Raised when there may be something to send.
    pub(super) kick: &'d Event,
    /// Raised when the export is known.
    pub(super) known: &'d Event,
    /// Raised when an attempt has failed.
    pub(super) failed: &'d Event,
}

impl Link<'_> {
    /// Connects, and connects again.
    pub(super) async fn keep_connected(&self) -> Infallible {
        let mut receive = vec![0; RECEIVE_BYTES];
        let mut send = vec![0; SEND_BYTES];
        let mut backoff = Backoff::default();
        let (mut said, mut told) = (None, false);
        loop {
            while !self.device.lock().needs_server() {
                self.kick.wait().await;
            }
            let mut socket = TcpSocket::new(self.stack, &mut receive, &mut send);
            socket.set_nagle_enabled(false);
            let answers = self.device.lock().client().answers();
            let lost = match with_timeout(CONNECT, socket.connect(self.server)).await {
                Ok(Ok(())) => self.converse(&mut socket, &mut said, &mut told).await,
                Ok(Err(_)) | Err(_) => Lost::Unreachable,
            };
            socket.abort();
            let error = match lost {
                Lost::Error(error) => Some(error),
                Lost::Unreachable | Lost::Closed | Lost::Left => None,
            };
            let mut device = self.device.lock();
            if device.client().answers() != answers {
                backoff.reset();
            }
            device.disconnected(error);
            drop(device);
            if lost == Lost::Left {
                info!("nbd: {}: {lost}", self.server);
                // Not before somebody has something for it again.
                self.kick.wait().await;
                continue;
            }
            if said.replace(lost) != Some(lost) {
                warn!("nbd: {}: {lost}; trying again", self.server);
            }
            self.failed.raise();
            Timer::after_micros(micros(backoff.wait())).await;
        }
    }

    /// Uses a connection until its end.
    async fn converse(
        &self,
        socket: &mut TcpSocket<'_>,
        said: &mut Option<Lost>,
        told: &mut bool,
    ) -> Lost {
        self.device.lock().client().connected(now());
        let mut is_new = true;
        let (mut reader, mut writer) = socket.split();
        loop {
            let mut device = self.device.lock();
            let client = device.client();
            if let Err(error) = client.check_time(now()) {
                return error.into();
            }
            if client.has_left() {
                drop(device);
                // Without an answer it is closed nevertheless.
                let _ = with_timeout(FAREWELL, writer.flush()).await;
                return Lost::Left;
            }
            if client.is_open() && is_new {
                is_new = false;
                *said = None;
                let size = client.export().map_or(0, |export| export.size());
                info!("nbd: {}: connected, {} MiB", self.server, size >> 20);
                self.known.raise();
            }
            if client.has_lost() && !*told {
                *told = true;
                error!(
                    "nbd: {}: a write that was acknowledged is lost",
                    self.server
                );
            }
            let (wants, deadline) = (client.wants_to_transmit(), client.deadline());
            drop(device);
            let send = async {
                if !wants {
                    return pending().await;
                }
                let filled =
                    writer.write_with(|room| match self.device.lock().transmit(room, now()) {
                        Ok(count) => (count, Ok(())),
                        Err(error) => (0, Err(Lost::Error(error))),
                    });
                filled.await.unwrap_or(Err(Lost::Closed))
            };
            let receive = reader.read_with(|bytes| {
                let received = self.device.lock().receive(bytes, now());
                (bytes.len(), received.map_err(Lost::Error))
            });
            let timer = async {
                match deadline {
                    Some(at) => Timer::at(Instant::from_micros(micros(at))).await,
                    None => pending().await,
                }
            };
            let done = match select4(receive, send, self.kick.wait(), timer).await {
                Either4::First(received) => received.unwrap_or(Err(Lost::Closed)),
                Either4::Second(sent) => sent,
                Either4::Third(()) | Either4::Fourth(()) => Ok(()),
            };
            if let Err(lost) = done {
                return lost;
            }
        }
    }
}

fn now() -> time::Duration {
    time::Duration::from_micros(Instant::now().as_micros())
}

fn micros(duration: time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
