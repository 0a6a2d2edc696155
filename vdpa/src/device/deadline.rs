//! The end of the patience with a parent.
//!
//! A parent has a deadline of its own for everything that waits. One that is wrong about that, or
//! waits for a program that has none, must not hold up the device's owner, least of all the removal
//! of the device: the future is dropped.

use core::time::Duration;

use embassy_futures::select::{Either, select};

use crate::ops::OpError;
use crate::platform::BoxFuture;

use super::VdpaDevice;

/// Longer than any parent should take for anything.
const LONGEST: Duration = Duration::from_secs(30);

impl VdpaDevice {
    /// Waits for an operation of the parent. Nobody knows how far it has come when the time is
    /// over.
    pub(super) async fn in_time<T>(
        &self,
        operation: BoxFuture<'_, Result<T, OpError>>,
    ) -> Result<T, OpError> {
        match select(operation, self.platform().sleep(LONGEST)).await {
            Either::First(result) => result,
            Either::Second(()) => {
                log::error!("{}: the parent does not answer", self.node.path());
                Err(OpError::Timeout)
            }
        }
    }
}
