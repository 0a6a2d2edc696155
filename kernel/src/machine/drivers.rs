//! How drivers come to their buses.

use alloc::sync::Arc;

use vdpa::bus::{Bus, BusDevice, Driver};

/// Adds a driver to a bus. A bus that cannot take it goes on without.
pub(crate) async fn add_driver<D: BusDevice>(bus: &Arc<Bus<D>>, driver: Arc<dyn Driver<D>>) {
    if let Err(error) = bus.add_driver(driver).await {
        log::error!("a driver is not available: {error}");
    }
}
