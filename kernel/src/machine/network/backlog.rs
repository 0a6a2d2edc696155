//! The backlog of the stack's sockets: see [`crate::pure::backlog`].

use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use embassy_net::tcp::{State, TcpSocket};
use embassy_time::{Duration, Timer};
use spin::Mutex;

use crate::pure::backlog::{Backlog, HALF_OPEN_MAX, Id};

static BACKLOG: Mutex<Backlog> = Mutex::new(Backlog::new());

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The socket cannot listen: it is in use, or the port is 0.
    #[error("the socket cannot listen on this port")]
    Port,
    /// A client began a connection and then said nothing more. The socket is to be given up.
    #[error("the client did not complete the connection")]
    HalfOpen,
}

/// Whether a SYN to `port` is for the stack.
pub(super) fn admits(port: u16) -> bool {
    BACKLOG.lock().admits(port)
}

/// A turn of the stack is over.
pub(super) fn end_turn() {
    BACKLOG.lock().end_turn();
}

/// A socket in the backlog.
struct Entry(Id);

impl Drop for Entry {
    fn drop(&mut self) {
        BACKLOG.lock().remove(self.0);
    }
}

/// Listens on `port` and waits for a connection, which a client has to open within some seconds.
/// While all sockets for a port wait for their clients, the oldest one gives up when another client
/// comes.
///
/// `TcpSocket::accept` alone waits for a client that has sent a SYN, and nothing since, for ever.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept(socket: &mut TcpSocket<'_>, port: u16) -> Result<(), AcceptError> {
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    listen(socket, port).await?;
    let entry = Entry(BACKLOG.lock().listen(port, waker));
    let mut timer = None;
    let mut changed = pin!(socket.wait_write_ready());
    poll_fn(|cx| {
        // It is woken by every change of the state.
        let _ = changed.as_mut().poll(cx);
        match socket.state() {
            State::Listen => return Poll::Pending,
            State::SynReceived => {}
            _ => return Poll::Ready(Ok(())),
        }
        let timer = timer.get_or_insert_with(|| {
            BACKLOG.lock().half_open(entry.0);
            Timer::after(Duration::from_micros(HALF_OPEN_MAX.as_micros() as u64))
        });
        if pin!(timer).poll(cx).is_ready() || BACKLOG.lock().is_evicted(entry.0) {
            return Poll::Ready(Err(AcceptError::HalfOpen));
        }
        Poll::Pending
    })
    .await
}

/// Makes the socket listen, without waiting for anybody.
async fn listen(socket: &mut TcpSocket<'_>, port: u16) -> Result<(), AcceptError> {
    let mut accepted = pin!(socket.accept(port));
    poll_fn(|cx| {
        Poll::Ready(match accepted.as_mut().poll(cx) {
            Poll::Ready(Err(_)) => Err(AcceptError::Port),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        })
    })
    .await
}
