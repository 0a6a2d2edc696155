//! Sends an answer over a connection.

use alloc::format;

use kernel::embassy_net::tcp::TcpSocket;
use web::http::head::Persistence;
use web::http::response::{self, Extent};
use web::http::version::Version;

use crate::answer::{Answer, Content, Payload};
use crate::site::Site;
use crate::socket::{Broken, write_all};

/// A text that is longer counts in the memory that all of them share.
const LONG_TEXT: usize = 12 * 1024;

/// Sends an answer to a client of this version, and returns what becomes of the connection.
pub(crate) async fn send(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    mut answer: Answer,
    version: Version,
    mut persistence: Persistence,
) -> Result<Persistence, Broken> {
    let mut part = None;
    if let Some(Content {
        payload: Payload::Text(text),
        ..
    }) = &answer.content
        && text.len() > LONG_TEXT
    {
        part = site.pages.take(text.capacity());
        if part.is_none() {
            answer = Answer::busy();
        }
    }
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
        None => Extent::Nowhere,
        Some(content) => match (content.payload.length(), &content.payload) {
            (Some(length), _) => Extent::Length(length),
            (None, Payload::Length(_)) => Extent::Head,
            (None, _) if version >= Version::Http11 => Extent::Chunks,
            (None, _) => Extent::Connection,
        },
    };
    if extent == Extent::Connection {
        persistence = Persistence::Close;
    }
    let head = response::head(
        status,
        media_type.into_iter().chain(fields),
        extent,
        persistence,
    );
    write_all(socket, head.as_bytes()).await?;
    drop(head);
    if let Some(Content { payload, .. }) = content {
        send_body(site, socket, payload, extent).await?;
    }
    drop(part);
    Ok(persistence)
}

async fn send_body(
    site: &Site,
    socket: &mut TcpSocket<'_>,
    payload: Payload,
    extent: Extent,
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
        Payload::Listing(mut page, files) => {
            while let Some(piece) = page.next(&files.volume).await {
                if extent == Extent::Chunks {
                    let size = format!("{:x}\r\n", piece.len());
                    write_all(socket, size.as_bytes()).await?;
                }
                write_all(socket, piece.as_bytes()).await?;
                site.counters.count_sent(piece.len());
                if extent == Extent::Chunks {
                    write_all(socket, b"\r\n").await?;
                }
            }
            match extent {
                Extent::Chunks => write_all(socket, response::LAST_CHUNK.as_bytes()).await,
                _ => Ok(()),
            }
        }
        Payload::Length(_) => Ok(()),
    }
}
