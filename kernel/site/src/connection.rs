//! The tasks that accept connections, and HTTP on each of them.
//!
//! Each task has one socket, so the number of tasks is the number of connections that can be open at
//! once; further ones are refused until one ends. Nobody keeps a connection without using it: every
//! step has its time limit.

use alloc::vec;

use embassy_net::tcp::TcpSocket;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::Duration;
use log::debug;
use picoserve::io::{Read, Write};
use picoserve::request::{Path, Request};
use picoserve::response::{Content, IntoResponse, Response, ResponseWriter};
use picoserve::routing::PathRouterService;
use picoserve::{Config, ResponseSent, Router, Server, Timeouts};

use web::management::BODY_MAX;

use crate::answer::{self, Payload};
use crate::site::Site;

/// How many connections can be open at once. The stack needs some sockets itself.
pub(crate) const CONNECTIONS: usize = kernel::SOCKETS - 8;

/// With more connections open than this, each is closed after its answer.
const KEPT_ALIVE: usize = CONNECTIONS / 2;

const RECEIVE_BYTES: usize = 4 * 1024;
const SEND_BYTES: usize = 32 * 1024;
const REQUEST_BYTES: usize = 4 * 1024;

const TIMEOUTS: Timeouts = Timeouts {
    start_read_request: Duration::from_secs(10),
    persistent_start_read_request: Duration::from_secs(15),
    read_request: Duration::from_secs(5),
    write: Duration::from_secs(20),
};
const KEEP: Config = Config::new(TIMEOUTS).keep_connection_alive();
const CLOSE: Config = Config::new(TIMEOUTS).close_connection_after_response();

/// Raised when a body cannot be completed: then the connection ends, which is all that HTTP/1.1 has to
/// say so once the headers are out (RFC 9112, 8).
pub(crate) type Abort = Signal<NoopRawMutex, ()>;

/// Accepts one connection after the other and answers their requests.
pub(crate) async fn serve(site: &'static Site, port: u16) {
    let mut receive = vec![0; RECEIVE_BYTES];
    let mut send = vec![0; SEND_BYTES];
    let mut request = vec![0; REQUEST_BYTES];
    let abort = Abort::new();
    let router = Router::from_service(Service {
        site,
        abort: &abort,
    });
    loop {
        let mut socket = TcpSocket::new(site.stack, &mut receive, &mut send);
        if let Err(error) = socket.accept(port).await {
            debug!("site: accept: {error:?}");
            continue;
        }
        socket.set_keep_alive(Some(Duration::from_secs(15)));
        socket.set_timeout(Some(Duration::from_secs(30)));
        let open = &site.counters.open;
        open.update(|open| open + 1);
        let config = if open.get() <= KEPT_ALIVE {
            &KEEP
        } else {
            &CLOSE
        };
        abort.reset();
        let server = Server::new(&router, config, &mut request)
            .with_graceful_shutdown(abort.wait(), Duration::from_ticks(0));
        if let Err(error) = server.serve(socket).await {
            debug!("site: connection: {error}");
        }
        open.update(|open| open - 1);
    }
}

/// Answers the requests of one connection.
struct Service<'a> {
    site: &'a Site,
    abort: &'a Abort,
}

impl PathRouterService for Service<'_> {
    async fn call_path_router_service<R: Read, W: ResponseWriter<Error = R::Error>>(
        &self,
        (): &(),
        (): (),
        _path: Path<'_>,
        request: Request<'_, R>,
        writer: W,
    ) -> Result<ResponseSent, W::Error> {
        let Request {
            parts,
            mut body_connection,
            ..
        } = request;
        // A body that cannot be had is answered as one that is too long: nobody waits for it.
        let body = if body_connection.content_length() <= BODY_MAX {
            body_connection.body().read_all().await.ok()
        } else {
            None
        };
        let answer = self.site.answer(&parts, body.as_deref()).await;
        let connection = body_connection.finalize().await?;
        let headers = answer.headers.as_slice();
        let Some(content) = answer.content else {
            return Response::empty(answer.status)
                .with_headers(headers)
                .write_to(connection, writer)
                .await;
        };
        let Self { site, abort } = *self;
        Response::new(
            answer.status,
            Body {
                site,
                abort,
                content,
            },
        )
        .with_headers(headers)
        .write_to(connection, writer)
        .await
    }
}

/// The body of an answer on its way out.
struct Body<'a> {
    site: &'a Site,
    abort: &'a Abort,
    content: answer::Content,
}

impl Content for Body<'_> {
    fn content_type(&self) -> &'static str {
        self.content.media_type
    }

    fn content_length(&self) -> usize {
        usize::try_from(self.content.payload.length()).unwrap_or(usize::MAX)
    }

    async fn write_content<W: Write>(self, mut writer: W) -> Result<(), W::Error> {
        let Self {
            site,
            abort,
            content,
        } = self;
        match content.payload {
            Payload::Text(text) => {
                writer.write_all(text.as_bytes()).await?;
                site.counters.count_sent(text.len());
                Ok(())
            }
            Payload::Download(download) => {
                download
                    .send(writer, abort, |bytes| site.counters.count_sent(bytes))
                    .await
            }
            Payload::Length(_) => Ok(()),
        }
    }
}
