//! The control queue of one interface, and what has been told through it.

use alloc::sync::Arc;

use spin::Mutex;
use vdpa::ops::OpError;
use vdpa::{Features, MacAddress};
use virtio_bus::{VirtQueue, VirtioClaim};
use virtq::{Event, RequestReason, Requests, RewindError};

use super::ControlError;
use super::command::{Ack, Command, Slot};
use super::setting::{Setting, Settings};
use crate::config::offered_mac;
use crate::shared::Shared;

/// What the handles of an interface, its driver and its task share.
#[derive(Debug)]
pub(crate) struct ControlQueue {
    pub(super) device: Arc<VirtioClaim>,
    pub(super) requests: Requests<Command>,
    pub(super) slot: Arc<Slot>,
    /// Raised when a command is about to be given to the card, and at the end.
    pub(super) work: Event,
    /// Raised when the card may have lost what it was told.
    pub(super) doubt: Event,
    interface: Arc<Shared>,
    features: Features,
    settings: Mutex<Settings>,
}

impl ControlQueue {
    /// The control queue of an interface whose device runs, and the event of its queue.
    pub(crate) fn new(
        device: &Arc<VirtioClaim>,
        features: Features,
        interface: &Arc<Shared>,
        queue: VirtQueue<Command>,
        slot: Arc<Slot>,
    ) -> (Arc<Self>, Arc<Event>) {
        let (requests, event) = queue.into_requests();
        let control_queue = Arc::new(Self {
            device: Arc::clone(device),
            requests,
            slot,
            work: Event::new(),
            doubt: Event::new(),
            interface: Arc::clone(interface),
            features,
            settings: Mutex::default(),
        });
        (control_queue, event)
    }

    /// What the interface is called.
    pub(super) fn name(&self) -> &str {
        &self.interface.name
    }

    /// The address that the application has given the interface, if it has.
    pub(crate) fn chosen_mac(&self) -> Option<MacAddress> {
        self.settings.lock().mac
    }

    /// The configuration has changed, and another card may have taken over.
    pub(crate) fn follow(&self) {
        self.doubt.raise();
    }

    /// Starts the queue again, while its device is at rest.
    pub(crate) fn rewind(&self) -> Result<(), RewindError> {
        self.requests.rewind()
    }

    /// Ends every command, present and future.
    pub(crate) fn stop(&self) {
        self.requests.stop();
        self.slot.close();
        self.work.raise();
    }

    /// Frees what the card had when it was reset.
    pub(crate) fn reclaim(&self) {
        self.requests.reclaim();
    }

    /// Tells the card what `choose` picks when it is this command's turn, and waits for its answer.
    pub(super) async fn perform(
        &self,
        choose: impl FnOnce(&Settings) -> Option<Setting>,
    ) -> Result<(), ControlError> {
        if self.device.check().is_err() {
            return Err(self.end());
        }
        let loan = self.slot.take().await.ok_or_else(|| self.end())?;
        let settings = *self.settings.lock();
        let Some(setting) = choose(&settings) else {
            return Ok(());
        };
        if !self.features.contains(setting.feature()) {
            return Err(ControlError::Unsupported);
        }
        let command = Command::new(loan, setting);
        self.work.raise();
        let used = self.requests.submit(command).await;
        let used = used.map_err(|error| self.explain(error.reason))?;
        // The next command has its turn when this one's memory is dropped, so this is in order.
        match used.chain.answer(used.written) {
            Ok(Ack::Ok) => {
                self.accept(setting);
                Ok(())
            }
            Ok(Ack::Error) => Err(ControlError::Refused),
            Err(violation) => {
                log::error!("{}: {violation}", self.name());
                self.device.mark_broken();
                self.stop();
                Err(ControlError::Broken)
            }
        }
    }

    /// Tells the card again what the application has told it, unless it shows that it knows.
    pub(super) async fn restore(&self) {
        for choose in Settings::EACH {
            match self.perform(|settings| self.lost(choose(settings)?)).await {
                Ok(()) => {}
                Err(ControlError::Broken | ControlError::Gone) => return,
                Err(error) => {
                    log::warn!("{}: does not take up what was set: {error}", self.name());
                    self.give_up(choose);
                }
            }
        }
    }

    /// The setting, if the card may not have it any more.
    fn lost(&self, setting: Setting) -> Option<Setting> {
        // VIRTIO 1.2, 5.1.6.5.2: the configuration space shows the address that was set.
        let shown = match setting {
            Setting::Mac(mac) => offered_mac(&self.device, self.features) == Ok(Some(mac)),
            Setting::Promiscuous(_) | Setting::AllMulticast(_) => false,
        };
        (!shown).then_some(setting)
    }

    fn accept(&self, setting: Setting) {
        self.settings.lock().remember(setting);
        if let Setting::Mac(mac) = setting {
            self.interface.set_mac(mac);
        }
    }

    /// The card does not accept any more what it once has.
    fn give_up(&self, choose: fn(&Settings) -> Option<Setting>) {
        let mut settings = self.settings.lock();
        match choose(&settings) {
            Some(Setting::Mac(_)) => settings.mac = None,
            Some(Setting::Promiscuous(_)) => settings.promiscuous = None,
            Some(Setting::AllMulticast(_)) => settings.all_multicast = None,
            None => return,
        }
        drop(settings);
        let shown = offered_mac(&self.device, self.features);
        if let (None, Ok(Some(mac))) = (self.chosen_mac(), shown) {
            self.interface.set_mac(mac);
        }
    }

    /// Why the card is told nothing any more.
    fn end(&self) -> ControlError {
        match self.device.check() {
            Err(OpError::Broken) => ControlError::Broken,
            _ => ControlError::Gone,
        }
    }

    fn explain(&self, reason: RequestReason) -> ControlError {
        match reason {
            RequestReason::Stopped => self.end(),
            RequestReason::Broken(_) => ControlError::Broken,
            // A queue of one entry takes no command.
            RequestReason::TooLong | RequestReason::Empty | RequestReason::Foreign => {
                ControlError::Unsupported
            }
        }
    }
}
