//! The tasks that accept connections, and HTTP on each of them.
//!
//! Each task has one socket, so the number of tasks is the number of connections that can be open
//! at once; further ones are refused until one ends. Nobody keeps a connection without using it:
//! every step has its time limit. The buffers are taken at the start, as many as there is memory
//! for.

use alloc::vec::Vec;

use kernel::embassy_net::tcp::TcpSocket;
use kernel::embassy_time::{Duration, Instant, TimeoutError, with_deadline, with_timeout};
use kernel::log::{debug, warn};
use web::http::head::{Head, Persistence};
use web::http::reader::{self, Body, Reader};
use web::http::refusal::Refusal;
use web::http::response;
use web::http::version::Version;

use crate::answer::Answer;
use crate::routes;
use crate::sending;
use crate::site::{RECEIVE_BYTES, Site};
use crate::socket::{Broken, write_all};

/// How long a client may be silent before its first request and between two.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the head of a request may take from its first byte on, and its body.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection is read on after its last answer.
const LINGER: Duration = Duration::from_secs(2);

/// What the wait for a request ends with.
enum Awaited {
    Request,
    /// The client has said all that it wanted to.
    End,
}

/// Accepts one connection after the other and answers their requests.
pub(crate) async fn serve(site: &'static Site, port: u16) {
    let (Some(mut receive), Some(mut send), Some(mut requests)) = (
        buffer(RECEIVE_BYTES),
        buffer(site.shares.send),
        buffer(reader::BUFFER_BYTES),
    ) else {
        warn!("site: no memory for one of the connections");
        return;
    };
    loop {
        let mut socket = TcpSocket::new(site.stack, &mut receive, &mut send);
        if let Err(error) = kernel::accept(&mut socket, port).await {
            debug!("site: {error}");
            continue;
        }
        socket.set_keep_alive(Some(Duration::from_secs(15)));
        socket.set_timeout(Some(Duration::from_secs(30)));
        let open = &site.counters.open;
        open.update(|open| open + 1);
        let end = converse(site, &mut socket, &mut requests).await;
        open.update(|open| open - 1);
        match end {
            Ok(()) => linger(&mut socket, &mut requests).await,
            Err(broken) => {
                debug!("site: connection: {broken}");
                socket.abort();
            }
        }
        // What is still to be sent, the end of the connection with it.
        let _ = with_timeout(LINGER, socket.flush()).await;
    }
}

fn buffer(length: usize) -> Option<Vec<u8>> {
    // `resize` would be a loop over bytes where code is built for size.
    const ZEROS: [u8; 256] = [0; 256];
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).ok()?;
    while bytes.len() < length {
        let missing = length - bytes.len();
        bytes.extend_from_slice(&ZEROS[..missing.min(ZEROS.len())]);
    }
    Some(bytes)
}

/// Answers the requests of one connection.
async fn converse(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    buffer: &mut [u8],
) -> Result<(), Broken> {
    let mut reader = Reader::new(buffer);
    loop {
        match await_head(socket, &mut reader).await? {
            Ok(Awaited::Request) => {}
            Ok(Awaited::End) => return Ok(()),
            Err(refusal) => return refuse(site, socket, refusal, reader.is_for_head()).await,
        }
        let is_for_head = reader.is_for_head();
        let (head, mut body) = match reader.split() {
            Ok(request) => request,
            Err(refusal) => return refuse(site, socket, refusal, is_for_head).await,
        };
        let bytes = match await_body(socket, &head, &mut body).await? {
            Ok(Awaited::Request) => Some(body.bytes()),
            Ok(Awaited::End) => return Ok(()),
            Err(Refusal::BodyTooLong) => None,
            Err(refusal) => return refuse(site, socket, refusal, is_for_head).await,
        };
        let answer = routes::answer(site, &head, bytes).await;
        // With more than half of all connections open, each is closed after its answer.
        let kept = site.counters.open.get() <= site.shares.connections.div_ceil(2);
        let persistence = if bytes.is_some() && kept {
            head.persistence()
        } else {
            Persistence::Close
        };
        let sent = sending::send(site, socket, answer, head.version, persistence);
        if sent.await? == Persistence::Close {
            return Ok(());
        }
        reader.next();
    }
}

async fn await_head(
    socket: &mut TcpSocket<'_>,
    reader: &mut Reader<'_>,
) -> Result<Result<Awaited, Refusal>, Broken> {
    let silence_ends = Instant::now() + SILENCE;
    let mut deadline = None;
    loop {
        match reader.has_head() {
            Ok(true) => return Ok(Ok(Awaited::Request)),
            Ok(false) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        let until = if reader.is_idle() {
            silence_ends
        } else {
            *deadline.get_or_insert_with(|| Instant::now() + REQUEST_DEADLINE)
        };
        match with_deadline(until, socket.read(reader.space())).await {
            Ok(Ok(0)) => return Ok(Ok(Awaited::End)),
            Ok(count) => reader.received(count?),
            Err(TimeoutError) if reader.is_idle() => return Ok(Ok(Awaited::End)),
            Err(TimeoutError) => return Ok(Err(Refusal::Timeout)),
        }
    }
}

async fn await_body(
    socket: &mut TcpSocket<'_>,
    head: &Head<'_>,
    body: &mut Body<'_>,
) -> Result<Result<Awaited, Refusal>, Broken> {
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let mut asks = head.expects_continue && body.is_untouched();
    loop {
        match body.is_complete() {
            Ok(true) => return Ok(Ok(Awaited::Request)),
            Ok(false) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
        if core::mem::take(&mut asks) {
            write_all(socket, response::CONTINUE.as_bytes()).await?;
        }
        match with_deadline(deadline, socket.read(body.space())).await {
            Ok(Ok(0)) => return Ok(Ok(Awaited::End)),
            Ok(count) => body.received(count?),
            Err(TimeoutError) => return Ok(Err(Refusal::Timeout)),
        }
    }
}

/// The one answer to a request that is not read to its end.
async fn refuse(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    refusal: Refusal,
    is_for_head: bool,
) -> Result<(), Broken> {
    debug!("site: refused: {refusal}");
    let answer = Answer::refused(refusal);
    let answer = if is_for_head {
        answer.without_body()
    } else {
        answer
    };
    sending::send(site, socket, answer, Version::Http10, Persistence::Close).await?;
    Ok(())
}

/// Ends the connection on this side, and reads until the other side ends it, so that its last
/// answer is not lost to a reset (RFC 9112, 9.6).
async fn linger(socket: &mut TcpSocket<'_>, buffer: &mut [u8]) {
    socket.close();
    let deadline = Instant::now() + LINGER;
    while let Ok(Ok(1..)) = with_deadline(deadline, socket.read(buffer)).await {}
}
