//! Waiting for a device, which must not take for ever.

use core::time::Duration;

use vdpa::Platform;
use vdpa::ops::OpError;

/// How long a device may take to reset itself, to stop a queue or to be suspended.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What a device says so far to what it has been asked for; nothing, as long as it is at it.
pub(super) type Answer<'a> = dyn Fn() -> Option<Result<(), OpError>> + Send + Sync + 'a;

/// Asks until there is an answer or the deadline has passed; the first time at once.
pub(super) async fn wait(platform: &dyn Platform, answer: &Answer<'_>) -> Result<(), OpError> {
    let deadline = platform.now().saturating_add(DEADLINE);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        if platform.now() >= deadline {
            return Err(OpError::Timeout);
        }
        platform.sleep(POLL_INTERVAL).await;
    }
}
