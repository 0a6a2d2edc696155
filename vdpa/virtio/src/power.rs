//! Sleep and awakening: the device may lose power in between, and with it everything it knew.

use vdpa::power::PowerError;

use super::VirtioClaim;
use super::quiesce::{QuiesceError, StateTransfer};

impl VirtioClaim {
    /// Brings the device to rest so that it can lose power. The queues stay as they are, with what
    /// is in flight; the driver may go on filling them.
    ///
    /// # Errors
    /// [`PowerError::Busy`], if the driver would have to [rewind](Self::rewind_wanted) and does
    /// not; [`PowerError::Device`]. The device runs, unless it has been marked broken.
    pub async fn suspend(&self) -> Result<(), PowerError> {
        let _turn = self.turn.lock().await;
        self.usable().map_err(|_| PowerError::Device)?;
        let Some(setup) = self.setup() else {
            return Ok(());
        };
        if self.check().is_err() {
            return Err(PowerError::Device);
        }
        if setup.notification_data() {
            return Err(PowerError::Busy);
        }
        let transport = self.transport().map_err(|_| PowerError::Device)?;
        let places = StateTransfer::between(&transport, &transport);
        match self.bring_to_rest(&setup, places).await {
            Ok(states) => {
                self.state.lock().resting = Some(states);
                Ok(())
            }
            Err(QuiesceError::Driver) => Err(PowerError::Busy),
            Err(QuiesceError::Device(_)) => Err(PowerError::Device),
        }
    }

    /// Goes on where [`suspend`](Self::suspend) has stopped.
    ///
    /// # Errors
    /// [`PowerError::Device`]: the device has been marked broken.
    pub async fn resume(&self) -> Result<(), PowerError> {
        let _turn = self.turn.lock().await;
        self.usable().map_err(|_| PowerError::Device)?;
        let Some(states) = self.state.lock().resting.take() else {
            return Ok(());
        };
        let Some(setup) = self.setup() else {
            return Ok(());
        };
        let transport = self.transport().map_err(|_| PowerError::Device)?;
        let result = async {
            transport.reset().await?;
            // What the device translates itself may have gone with its power.
            self.memory.space.detach();
            self.memory.space.attach(transport.map_target())?;
            self.take_up(&transport, &setup, &states).await?;
            self.let_go(&transport, &setup)
        };
        result.await.map_err(|error| {
            log::error!("{}: does not come back: {error}", self.node.path());
            self.give_up();
            PowerError::Device
        })
    }
}
