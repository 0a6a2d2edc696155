//! Power: the order in which a system goes down and comes back.
//!
//! The order is that of the device tree: what hangs below a device stops before it, and of two
//! siblings the younger first. Resume is the exact reverse.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Node;
use crate::platform::BoxFuture;

/// A change of power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// The device is in use in a way that does not allow to suspend it.
    #[error("the device is busy")]
    Busy,
    /// The device did not come to rest, or did not come back.
    #[error("the device did not follow")]
    Device,
}

/// What takes part in the power changes of a system: a bus, for each device on it.
pub(crate) trait Managed: Send + Sync {
    fn shutdown(&self) -> BoxFuture<'_, ()>;
    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>>;
    #[cfg(feature = "suspend")]
    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>>;
}

/// Stops every device below `root`, children first and the youngest first.
pub async fn shutdown(root: &Arc<Node>) {
    for device in going_down(root) {
        device.shutdown().await;
    }
}

/// Suspends every device below `root`, in the order of [`shutdown`]. If one refuses, those that
/// were suspended before it are resumed.
///
/// # Errors
/// What the device that refused has answered.
#[cfg(feature = "suspend")]
pub async fn suspend(root: &Arc<Node>) -> Result<(), PowerError> {
    let order = going_down(root);
    for (done, device) in order.iter().enumerate() {
        if let Err(error) = device.suspend().await {
            for suspended in order[..done].iter().rev() {
                // The first failure is the one that counts; the bus has logged the others.
                let _ = suspended.resume().await;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Resumes every suspended device below `root`, parents first and the oldest first. A device that
/// does not come back does not keep the others from it.
///
/// # Errors
/// The first failure.
#[cfg(feature = "suspend")]
pub async fn resume(root: &Arc<Node>) -> Result<(), PowerError> {
    let mut result = Ok(());
    for device in going_down(root).iter().rev() {
        result = result.and(device.resume().await);
    }
    result
}

/// The devices below `root` as they are now, in the order in which they go down.
fn going_down(root: &Arc<Node>) -> Vec<Arc<dyn Managed>> {
    // Parents before children and the oldest first, which is the reverse of what is wanted.
    let mut order = Vec::new();
    let mut rest = Vec::from([Arc::clone(root)]);
    while let Some(node) = rest.pop() {
        rest.extend(node.children().into_iter().rev());
        order.push(node);
    }
    order
        .iter()
        .rev()
        .filter_map(|node| node.managed())
        .collect()
}
