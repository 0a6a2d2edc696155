//! The event log (AMD 48882, 2.5).

use vdpa::platform::InterruptMessage;
use virtq::DmaAddr;

use super::{
    EVENT_BASE, EVENT_HEAD, EVENT_INT_EN, EVENT_INTERRUPT, EVENT_LOG_INT, EVENT_LOG_RUN,
    EVENT_OVERFLOW, EVENT_TAIL, FakeAmdVi, INT_CAP_XT_EN, MSI, STATUS, State,
};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl FakeAmdVi {
    /// Puts an event into the log.
    pub fn report(&self, event: [u64; 2]) {
        let mut state = self.lock();
        self.log(&mut state, event);
        self.finish(state);
    }

    pub(super) fn log(&self, state: &mut State, event: [u64; 2]) {
        let status = state.register(STATUS);
        if status & EVENT_LOG_RUN == 0 || status & EVENT_OVERFLOW != 0 {
            return;
        }
        let base = state.register(EVENT_BASE);
        let size = 16 << (base >> 56 & 0xf);
        let tail = state.register(EVENT_TAIL);
        let next = (tail + 16) % size;
        if next == state.register(EVENT_HEAD) {
            state.set(STATUS, status | EVENT_OVERFLOW | EVENT_LOG_INT);
        } else {
            let bytes: Vec<u8> = event.iter().flat_map(|word| word.to_le_bytes()).collect();
            if self
                .memory
                .write(DmaAddr((base & ADDRESS) + tail), &bytes)
                .is_err()
            {
                state.violation("the event log has been given back");
            }
            state.set(EVENT_TAIL, next);
            state.set(STATUS, status | EVENT_LOG_INT);
        }
        // It is raised when the bit is set, not while it is.
        if status & EVENT_LOG_INT == 0 && state.control(EVENT_INT_EN) {
            let message = self.message(state);
            state.pending.extend(message);
        }
    }

    /// What the IOMMU was told to send.
    fn message(&self, state: &State) -> Option<InterruptMessage> {
        if state.control(INT_CAP_XT_EN) {
            let value = state.register(EVENT_INTERRUPT);
            return Some(InterruptMessage {
                address: 0xfee0_0000 | (value >> 8 & 0xff) << 12,
                data: (value >> 32 & 0xff) as u32,
            });
        }
        let config = |at| state.config.get(&at).copied().unwrap_or(0);
        let is_master = config(0x04) & 0b100 != 0;
        (config(MSI) & 1 << 16 != 0 && is_master).then(|| InterruptMessage {
            address: u64::from(config(MSI + 4)) | u64::from(config(MSI + 8)) << 32,
            data: config(MSI + 12),
        })
    }
}
