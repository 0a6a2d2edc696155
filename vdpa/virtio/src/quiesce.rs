//! Bringing a running device to rest so that its driver does not notice, and taking it up again,
//! there or elsewhere.
//!
//! The driver keeps its rings and goes on filling them. Its notifications reach nobody meanwhile,
//! and are made up for afterwards.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;

use vdpa::Features;
use vdpa::features::ring_features;
use vdpa::ops::{Abilities, OpError, QueueState};

use super::bring_up::agree;
use super::fixed::FixedConfig;
use super::queue::{QueueEntry, start};
use super::status::RUNNING;
use super::{Transport, VirtioDevice};

/// How long a device that cannot be suspended has to stand still to be believed.
const STILL: u32 = 10;
/// How long is waited for that at most.
const STILL_MAX: u32 = 200;
/// The unit of both.
const LOOK: Duration = Duration::from_millis(1);

/// What a driver has made of a device: enough to make it anew.
pub(super) struct Setup {
    pub(super) features: Features,
    pub(super) fixed: FixedConfig,
    pub(super) queues: Vec<QueueEntry>,
}

/// How the places of the queues survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateTransfer {
    /// The device tells where its queues stand, and the next one starts there.
    Told,
    /// The driver rewinds, and every queue starts afresh.
    Rewound,
}

impl StateTransfer {
    /// What both devices can do.
    pub(super) fn between(from: &Arc<dyn Transport>, to: &Arc<dyn Transport>) -> Self {
        let told = Abilities::SUSPEND | Abilities::QUEUE_STATE;
        if from.info().abilities.contains(told)
            && to.info().abilities.contains(Abilities::QUEUE_STATE)
        {
            Self::Told
        } else {
            Self::Rewound
        }
    }
}

/// Why a device was not brought to rest. It runs again, unless it has been marked broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuiesceError {
    /// The device did not follow.
    Device(OpError),
    /// The driver does not rewind.
    Driver,
}

impl VirtioDevice {
    /// What the driver has made of the device, if it runs.
    pub(super) fn setup(&self) -> Option<Setup> {
        let state = self.state.lock();
        let runs = state.monitor.is_some() && state.resting.is_none();
        runs.then(|| Setup {
            features: state.features,
            fixed: state.fixed.clone(),
            queues: state.queues.clone(),
        })
    }

    /// Brings the device to rest and resets it. Returns where each queue goes on.
    pub(super) async fn bring_to_rest(
        &self,
        setup: &Setup,
        places: StateTransfer,
    ) -> Result<Vec<QueueState>, QuiesceError> {
        if places == StateTransfer::Rewound
            && (!setup.can_rewind() || self.ask_driver().await.is_err())
        {
            return Err(QuiesceError::Driver);
        }
        let transport = self.transport().map_err(QuiesceError::Device)?;
        for queue in &setup.queues {
            queue.park();
        }
        let told = match self.stand_still(&transport, setup, places).await {
            Ok(told) => told,
            Err(error) => {
                self.go_on(&transport, setup).await;
                return Err(QuiesceError::Device(error));
            }
        };
        if let Err(error) = transport.reset().await {
            self.give_up();
            return Err(QuiesceError::Device(error));
        }
        let Some(states) = told else {
            if self.have_rewound().await.is_ok() {
                return Ok(setup.fresh());
            }
            // Nobody knows where the queues stood.
            self.give_up();
            return Err(QuiesceError::Driver);
        };
        Ok(states)
    }

    /// Makes a device that has been reset run as `setup` says, from `states` on. Its memory is
    /// attached. Afterwards [`let_go`](Self::let_go) makes up for what the driver wanted to tell
    /// meanwhile.
    pub(super) async fn take_up(
        &self,
        transport: &Arc<dyn Transport>,
        setup: &Setup,
        states: &[QueueState],
    ) -> Result<(), OpError> {
        agree(transport, setup.features, &|_| setup.features).await?;
        self.set_up_queues(transport, setup, states).await
    }

    /// The part of [`take_up`](Self::take_up) after the agreement on features.
    pub(super) async fn set_up_queues(
        &self,
        transport: &Arc<dyn Transport>,
        setup: &Setup,
        states: &[QueueState],
    ) -> Result<(), OpError> {
        for (queue, state) in setup.queues.iter().zip(states) {
            queue.set_up(transport, *state).await?;
        }
        let monitor = self.state.lock().monitor.clone();
        let monitor = monitor.ok_or(OpError::WrongState)?;
        transport.set_config_event(Arc::clone(monitor.event()))?;
        transport.set_status(RUNNING).await
    }

    /// Lets the driver's notifications through to a device that runs, and makes up for those that
    /// got lost, in both directions.
    pub(super) fn let_go(
        &self,
        transport: &Arc<dyn Transport>,
        setup: &Setup,
    ) -> Result<(), OpError> {
        let doorbells = setup
            .queues
            .iter()
            .map(|queue| transport.doorbell(queue.index))
            .collect::<Result<Vec<_>, _>>()?;
        for (queue, doorbell) in setup.queues.iter().zip(&doorbells) {
            queue.switch.switch(doorbell);
        }
        // A ring before the switch was published before that; the device must find it.
        fence(Ordering::SeqCst);
        for (queue, doorbell) in setup.queues.iter().zip(&doorbells) {
            doorbell.ring(0);
            queue.event.raise();
        }
        // The configuration may be another one.
        self.config_event.raise();
        Ok(())
    }

    /// Waits until the device uses no queue any more. Returns where they stand, if it tells.
    async fn stand_still(
        &self,
        transport: &Arc<dyn Transport>,
        setup: &Setup,
        places: StateTransfer,
    ) -> Result<Option<Vec<QueueState>>, OpError> {
        if transport.info().abilities.contains(Abilities::SUSPEND) {
            transport.suspend().await?;
        } else {
            self.wait_for_stillness(setup).await;
        }
        if places == StateTransfer::Rewound {
            return Ok(None);
        }
        let mut states = Vec::new();
        for queue in &setup.queues {
            states.push(transport.queue_state(queue.index).await?);
        }
        Ok(Some(states))
    }

    /// Nobody notifies the device any more, so it finishes what it knows of. What it has begun and
    /// not finished when it is reset, it gets again.
    async fn wait_for_stillness(&self, setup: &Setup) {
        let look = || -> Vec<Option<u16>> {
            let used = setup.queues.iter().map(|queue| queue.used.as_ref());
            used.map(|used| used.map(|used| used.index())).collect()
        };
        let (mut before, mut still) = (look(), 0);
        for _ in 0..STILL_MAX {
            self.platform.sleep(LOOK).await;
            let now = look();
            still = if now == before { still + 1 } else { 0 };
            before = now;
            if still >= STILL {
                return;
            }
        }
    }

    /// Lets a device go on that has not been reset; if it does not, it is broken.
    async fn go_on(&self, transport: &Arc<dyn Transport>, setup: &Setup) {
        let resumed = if transport.info().abilities.contains(Abilities::RESUME) {
            transport.resume().await
        } else {
            Err(OpError::Unsupported)
        };
        let result = match resumed {
            Ok(()) => self.let_go(transport, setup),
            Err(_) => self.start_over(transport, setup).await,
        };
        if result.is_err() {
            self.give_up();
        }
    }

    /// Resets a device of which nobody knows where it stands, and lets it start afresh.
    async fn start_over(
        &self,
        transport: &Arc<dyn Transport>,
        setup: &Setup,
    ) -> Result<(), OpError> {
        transport.reset().await?;
        self.have_rewound().await.map_err(|_| OpError::Timeout)?;
        self.take_up(transport, setup, &setup.fresh()).await?;
        self.let_go(transport, setup)
    }
}

impl Setup {
    /// Whether rings of this format can be rewound ([`virtq::RewindError::InOrder`]).
    fn can_rewind(&self) -> bool {
        let features = ring_features(self.features);
        features.packed || !features.in_order
    }

    /// Where new queues start.
    fn fresh(&self) -> Vec<QueueState> {
        let states = self.queues.iter().map(|_| start(self.features));
        states.collect()
    }
}
