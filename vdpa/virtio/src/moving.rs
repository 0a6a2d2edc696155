//! Moving a running device: the driver keeps its rings, and another device takes them up.
//!
//! At no time do both run. The old device is brought to rest and reset, the new one gets the same
//! features, memory, rings and places, and then the notifications lead there. If that fails, the
//! old one is taken up again.

use alloc::boxed::Box;
use alloc::sync::Arc;

use vdpa::moving::MoveError;
use vdpa::ops::OpError;
use vdpa::platform::BoxFuture;

use super::bring_up::agree;
use super::queue::QueueEntry;
use super::quiesce::{QuiesceError, Setup, StateTransfer};
use super::{Transport, VirtioDevice};

impl VirtioDevice {
    /// Moves the device to what `to` leads to, which has been reset and is used by nobody, while
    /// the driver works. What is in flight completes there. On success the old transport has been
    /// given back; on failure the new one has, and the old device runs again. Where that is not
    /// possible either, the device has been [marked broken](crate::VirtioClaim::mark_broken).
    ///
    /// A device that tells no queue state gets again what it had begun and not finished.
    ///
    /// # Errors
    /// [`MoveError`].
    pub fn move_to(&self, to: Arc<dyn Transport>) -> BoxFuture<'_, Result<(), MoveError>> {
        Box::pin(self.move_in_turn(to))
    }

    async fn move_in_turn(&self, to: Arc<dyn Transport>) -> Result<(), MoveError> {
        let _turn = self.turn.lock().await;
        let from = match self.transport() {
            Ok(from) => from,
            Err(error) => {
                to.close().await;
                return Err(MoveError::From(error));
            }
        };
        let result = self.try_move(&from, &to).await;
        let unused = match result {
            Ok(()) => from,
            Err(error) => {
                log::warn!(
                    "{}: not moved to {}: {error}",
                    self.node.path(),
                    to.info().node.name()
                );
                to
            }
        };
        unused.close().await;
        result
    }

    async fn try_move(
        &self,
        from: &Arc<dyn Transport>,
        to: &Arc<dyn Transport>,
    ) -> Result<(), MoveError> {
        self.check().map_err(MoveError::From)?;
        let setup = self.setup().ok_or(MoveError::NotRunning)?;
        if setup.notification_data() {
            return Err(MoveError::NotificationData);
        }
        check_match(from, to, &setup)?;
        // As much as possible before the old device stops.
        if let Err(error) = agree(to, setup.features, &|_| setup.features).await {
            return Err(self.stop(to, error).await);
        }
        // The configuration of a device is not read before somebody drives it (VIRTIO 1.2, 3.1.1).
        if let Err(error) = check_config(to, &setup) {
            let _ = to.reset().await;
            return Err(error);
        }
        let places = StateTransfer::between(from, to);
        let states = match self.bring_to_rest(&setup, places).await {
            Ok(states) => states,
            Err(restless) => {
                // It has been told of no memory yet.
                let _ = to.reset().await;
                return Err(match restless {
                    QuiesceError::Device(error) => MoveError::From(error),
                    QuiesceError::Driver => MoveError::DriverSilent,
                });
            }
        };
        let space = &self.memory.space;
        space.detach();
        let result = async {
            space.attach(to.map_target())?;
            self.set_up_queues(to, &setup, &states).await?;
            self.let_go(to, &setup)
        };
        if let Err(error) = result.await {
            for queue in &setup.queues {
                queue.park();
            }
            let error = self.stop(to, error).await;
            space.detach();
            let back = async {
                self.check()?;
                space.attach(from.map_target())?;
                self.take_up(from, &setup, &states).await?;
                self.let_go(from, &setup)
            };
            if back.await.is_err() {
                self.give_up();
            }
            return Err(error);
        }
        self.node.reparent(&to.info().node);
        *self.transport.lock() = Some(Arc::clone(to));
        // Who has looked before now has seen the old configuration.
        self.config_event.raise();
        log::info!(
            "{}: moved from {}",
            self.node.path(),
            from.info().node.name()
        );
        Ok(())
    }

    /// Resets a device that did not take over. If it does not confirm that, nothing else may run in
    /// its place.
    async fn stop(&self, to: &Arc<dyn Transport>, error: OpError) -> MoveError {
        match to.reset().await {
            Ok(()) | Err(OpError::Gone) => {}
            Err(_) => self.give_up(),
        }
        MoveError::To(error)
    }
}

impl Setup {
    /// Whether a notification tells where the driver stands.
    pub(super) fn notification_data(&self) -> bool {
        self.features.contains(virtio::F::NOTIFICATION_DATA)
    }
}

/// Compares what a driver relies on.
fn check_match(
    from: &Arc<dyn Transport>,
    to: &Arc<dyn Transport>,
    setup: &Setup,
) -> Result<(), MoveError> {
    if from.info().device_type != to.info().device_type {
        return Err(MoveError::OtherType);
    }
    let offered = to.device_features().map_err(MoveError::To)?;
    if !offered.contains(setup.features) {
        return Err(MoveError::LacksFeatures);
    }
    if !setup.queues.iter().all(|queue| fits(to, queue)) {
        return Err(MoveError::LacksQueues);
    }
    Ok(())
}

/// Compares the fields of the configuration that a driver keeps to.
fn check_config(to: &Arc<dyn Transport>, setup: &Setup) -> Result<(), MoveError> {
    match setup.fixed.is_allowed_by(to) {
        Ok(true) => Ok(()),
        Ok(false) => Err(MoveError::OtherConfig),
        Err(error) => Err(MoveError::To(error)),
    }
}

/// Whether a device can have a queue, where it lies.
fn fits(to: &Arc<dyn Transport>, queue: &QueueEntry) -> bool {
    let address = queue.address;
    let align = u64::try_from(to.info().queue_align).unwrap_or(u64::MAX);
    let aligned = [address.descriptor, address.driver, address.device]
        .iter()
        .all(|part| part.0.is_multiple_of(align));
    let sizes = to.info().queue_size_limits(queue.index);
    aligned && sizes.is_ok_and(|(min, max)| (min..=max).contains(&queue.size))
}
