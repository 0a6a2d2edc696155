//! The task that does for a client what may wait for the device, and takes everything down at the
//! end.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;
use vdpa::dma::Owner;
use vdpa::ops::{OpError, QueueState};
use virtio::DeviceStatus;

use super::client::Client;
use super::error::frozen;
use super::kick::Forwarder;
use super::memory::ClientMemory;
use super::worker_channel::Command;
use super::{BackendFeatures, VhostError};

/// Serves the client of a device until it closes the device or the device is taken away. `vacate`
/// is told when the device is at rest.
pub(super) async fn work(client: Arc<Client>, vacate: impl FnOnce()) {
    let forwarders = (0..client.device.queue_count()).map(|_| None).collect();
    let mut worker = Worker { client, forwarders };
    while let Some((command, reply)) = worker.client.channel.next().await {
        let outcome = worker.carry_out(command).await;
        reply.answer(outcome);
    }
    let outcome = worker.tear_down().await;
    vacate();
    worker.client.channel.ended(outcome);
}

struct Worker {
    client: Arc<Client>,
    /// By queue.
    forwarders: Vec<Option<Forwarder>>,
}

impl Worker {
    async fn carry_out(&mut self, command: Command) -> Result<(), VhostError> {
        let outcome = match command {
            Command::Open => self.open().await,
            Command::SetStatus(status) if status.is_empty() => self.reset().await,
            Command::SetStatus(status) => self.set_status(status).await,
            Command::EnableVring(queue) => self.enable(queue).await,
            Command::DisableVring(queue) => self.disable(queue).await,
            Command::SetVringKick(queue, event) => {
                self.client.with(|state| {
                    state.vring(queue).kick = event;
                    Ok(())
                })?;
                self.forward_kicks(queue).await
            }
            Command::GetVringBase(queue, base) => self.vring_base(queue, &base).await,
            Command::SetGroupAsid(group, asid) => {
                let moved = self.client.device.set_group_space(group, asid).await;
                moved.map_err(frozen)
            }
            Command::Suspend => self.suspend().await,
            Command::Resume => self.resume().await,
            Command::Settle(space) => self.settle(space).await,
        };
        if matches!(outcome, Err(VhostError::Broken | VhostError::Timeout)) {
            self.client.raise_errors();
        }
        outcome
    }

    /// A device that has just been reset becomes the client's.
    async fn open(&mut self) -> Result<(), VhostError> {
        let client = &self.client;
        client.device.reset().await?;
        let attachment = client.device.attach(Owner::Client, client.options.trust)?;
        *client.memory.lock() = Some(ClientMemory::new(attachment, &client.options));
        Ok(())
    }

    async fn set_status(&mut self, status: DeviceStatus) -> Result<(), VhostError> {
        self.client.device.set_status(status).await?;
        self.client.with(|state| {
            let agreed = status
                .difference(state.status)
                .contains(DeviceStatus::FEATURES_OK);
            state.status = status;
            if agreed {
                state.apply_calls(&self.client.device)?;
            }
            Ok(())
        })?;
        self.forward_all_kicks().await
    }

    async fn reset(&mut self) -> Result<(), VhostError> {
        self.stop_forwarding().await;
        let persist = self
            .client
            .with(|state| Ok(state.backend.contains(BackendFeatures::IOTLB_PERSIST)))?;
        let batch = self.with_memory(ClientMemory::finish_batch);
        let result = self.client.device.reset().await;
        self.client.forget_session();
        result?;
        if !persist {
            self.with_memory(ClientMemory::clear)?;
        }
        batch
    }

    async fn enable(&mut self, queue: u16) -> Result<(), VhostError> {
        if self.is_enabled(queue) {
            return Ok(());
        }
        self.client.device.start_queue(queue).await?;
        self.set_enabled(queue, Enabled::Yes)?;
        self.forward_kicks(queue).await
    }

    async fn disable(&mut self, queue: u16) -> Result<(), VhostError> {
        self.client.device.stop_queue(queue).await?;
        self.set_enabled(queue, Enabled::No)?;
        self.forward_kicks(queue).await
    }

    async fn vring_base(
        &self,
        queue: u16,
        base: &Mutex<Option<QueueState>>,
    ) -> Result<(), VhostError> {
        let state = self.client.device.queue_state(queue).await?;
        *base.lock() = Some(state);
        Ok(())
    }

    /// A device that does not run has nothing to stop.
    async fn suspend(&mut self) -> Result<(), VhostError> {
        if self.client.with(|state| Ok(state.is_running()))? {
            self.client.device.suspend().await?;
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), VhostError> {
        if self.client.with(|state| Ok(state.is_running()))? {
            self.client.device.resume().await?;
        }
        Ok(())
    }

    fn is_enabled(&self, queue: u16) -> bool {
        let enabled = self.client.with(|state| Ok(state.vring(queue).enabled));
        enabled == Ok(true)
    }

    fn set_enabled(&self, queue: u16, enabled: Enabled) -> Result<(), VhostError> {
        self.client.with(|state| {
            state.vring(queue).enabled = enabled == Enabled::Yes;
            Ok(())
        })
    }

    /// Listens to the kick event of a queue if, and only if, its raising is a kick now.
    async fn forward_kicks(&mut self, queue: u16) -> Result<(), VhostError> {
        let wanted = self.client.kick_to_forward(queue);
        let Some(place) = self.forwarders.get_mut(usize::from(queue)) else {
            return Err(VhostError::NoSuchQueue);
        };
        let listens = match (&*place, &wanted) {
            (Some(forwarder), Some(kick)) => forwarder.listens_to(kick),
            _ => false,
        };
        if listens {
            return Ok(());
        }
        if let Some(forwarder) = place.take() {
            forwarder.stop().await;
        }
        if let Some(kick) = wanted {
            let device = &self.client.device;
            let doorbell = device.doorbell(queue)?;
            *place = Some(Forwarder::start(device, queue, &kick, doorbell));
        }
        Ok(())
    }

    async fn forward_all_kicks(&mut self) -> Result<(), VhostError> {
        for queue in 0..self.client.device.queue_count() {
            self.forward_kicks(queue).await?;
        }
        Ok(())
    }

    async fn stop_forwarding(&mut self) {
        for forwarder in self.forwarders.iter_mut().filter_map(Option::take) {
            forwarder.stop().await;
        }
    }

    async fn settle(&self, space: u16) -> Result<(), VhostError> {
        let attachment = self.with_memory(|memory| Ok(Arc::clone(memory.attachment())))?;
        Ok(attachment.settle(space).await?)
    }

    fn with_memory<R>(
        &self,
        act: impl FnOnce(&mut ClientMemory) -> Result<R, VhostError>,
    ) -> Result<R, VhostError> {
        let mut memory = self.client.memory.lock();
        act(memory.as_mut().ok_or(VhostError::HungUp)?)
    }

    /// Queues stop, callbacks are dropped, the device is reset; then, and only then, its memory is
    /// unmapped and the device is free again.
    async fn tear_down(&mut self) -> Result<(), VhostError> {
        self.stop_forwarding().await;
        self.client.finish();
        let memory = self.client.memory.lock().take();
        self.client.device.quiesce().await;
        // A device that has not confirmed its reset keeps what is mapped until it does.
        match memory {
            Some(memory) => memory.attachment().detach().await.map_err(not_at_rest),
            None => Ok(()),
        }
    }
}

fn not_at_rest(error: OpError) -> VhostError {
    match error {
        OpError::WrongState => VhostError::Timeout,
        other => other.into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enabled {
    Yes,
    No,
}
