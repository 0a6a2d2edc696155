//! Sends an answer over a connection.

use embassy_net::tcp::TcpSocket;
use embassy_time::{Duration, with_timeout};
use web::http::head::Persistence;
use web::http::response::{self, Extent};

use crate::answer::{Answer, Content, Payload};
use crate::connection::Broken;
use crate::site::Site;

/// A client that takes its answer more slowly holds a connection that others want.
const SLOWEST_BYTES_PER_SECOND: usize = 1024;
/// How long it may stand still besides.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends an answer.
pub(crate) async fn send(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    answer: Answer,
    persistence: Persistence,
) -> Result<(), Broken> {
    let Answer {
        status,
        headers,
        content,
    } = answer;
    let fields = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let media_type = content
        .as_ref()
        .map(|content| ("Content-Type", content.media_type));
    let extent = match &content {
        Some(content) => Extent::Length(content.payload.length()),
        None => Extent::Nowhere,
    };
    let head = response::head(
        status,
        media_type.into_iter().chain(fields),
        extent,
        persistence,
    );
    write_all(socket, head.as_bytes()).await?;
    drop(head);
    if let Some(Content { payload, .. }) = content {
        send_body(site, socket, payload).await?;
    }
    Ok(())
}

async fn send_body(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    payload: Payload,
) -> Result<(), Broken> {
    match payload {
        Payload::Text(text) => {
            write_all(socket, text.as_bytes()).await?;
            site.counters.count_sent(text.len());
            Ok(())
        }
        Payload::Download(download) => {
            download
                .send(socket, |bytes| site.counters.count_sent(bytes))
                .await
        }
        Payload::Length(_) => Ok(()),
    }
}

/// Gives all the bytes to the stack, which may have some of them to send still.
pub(crate) async fn write_all(socket: &mut TcpSocket<'_>, bytes: &[u8]) -> Result<(), Broken> {
    let seconds = u64::try_from(bytes.len() / SLOWEST_BYTES_PER_SECOND).unwrap_or(u64::MAX);
    let written = with_timeout(PATIENCE + Duration::from_secs(seconds), async {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = socket.write(rest).await?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    });
    written.await.unwrap_or(Err(Broken::Slow))
}
