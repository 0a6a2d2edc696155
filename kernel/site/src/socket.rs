//! Writes to a socket, and gives up on a client that does not read.

use kernel::embassy_net::tcp::{self, TcpSocket};
use kernel::embassy_time::{Duration, with_timeout};

/// A client that takes its answer more slowly holds a connection that others want.
const SLOWEST_BYTES_PER_SECOND: usize = 1024;
/// How long it may stand still besides.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a connection is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the client broke it off")]
    Reset,
    #[error("the client does not take its answer")]
    Slow,
    #[error("the answer cannot be completed")]
    Incomplete,
}

impl From<tcp::Error> for Broken {
    fn from(error: tcp::Error) -> Self {
        match error {
            tcp::Error::ConnectionReset => Self::Reset,
        }
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
