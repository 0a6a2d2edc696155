//! How a running device tells that it has used buffers: its interrupt line, from `DRIVER_OK` to the
//! next reset.
//!
//! Without a line that can be had, a task looks at the interrupt status every millisecond. The
//! handler takes the reasons back before it wakes anybody, so that what the device does afterwards
//! is told again.
//!
//! Source: VIRTIO 1.2, 4.2.3.4.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use spin::Mutex;
use vdpa::Platform;
use vdpa::platform::{Callback, ConnectedLine, InterruptLine};

use super::registers::Registers;

/// How often the interrupt status is looked at without a line.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// A device that always has a reason to interrupt must not keep the processor in the handler.
const ROUNDS: usize = 8;

const USED_BUFFERS: u32 = 1;
const CONFIG_CHANGED: u32 = 2;

/// What to call for what, and what counts how often the queues were.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) queues: Vec<(Callback, Arc<AtomicU64>)>,
    pub(crate) config: Option<Callback>,
}

impl Callbacks {
    /// Takes the reasons of the device and does what they ask for. False, if nobody answers.
    fn serve(&self, registers: &Registers) -> bool {
        for _ in 0..ROUNDS {
            match registers.take_interrupt() {
                // An edge comes only after the last reason has gone.
                Ok(0) => return true,
                Ok(reasons) => self.call(reasons),
                Err(_) => {
                    // A waiter finds out by asking the device.
                    self.call(USED_BUFFERS | CONFIG_CHANGED);
                    return false;
                }
            }
        }
        true
    }

    fn call(&self, reasons: u32) {
        if reasons & USED_BUFFERS != 0 {
            for (callback, calls) in &self.queues {
                calls.fetch_add(1, Ordering::Relaxed);
                callback.call();
            }
        }
        if reasons & CONFIG_CHANGED != 0 {
            self.config.iter().for_each(Callback::call);
        }
    }
}

/// The interrupts of a running device. Dropped, no callback is called any more.
pub(crate) enum Interrupts {
    /// Nobody wants to be called.
    None,
    Line {
        _line: Box<dyn ConnectedLine>,
    },
    Polled {
        _poller: Poller,
    },
}

impl Interrupts {
    pub(crate) fn start(
        registers: &Arc<Registers>,
        line: InterruptLine,
        platform: &Arc<dyn Platform>,
        callbacks: Callbacks,
    ) -> Self {
        if callbacks.queues.is_empty() && callbacks.config.is_none() {
            return Self::None;
        }
        let callbacks = Arc::new(callbacks);
        let (handled, device) = (Arc::clone(&callbacks), Arc::clone(registers));
        let handler = Callback::new(move || {
            handled.serve(&device);
        });
        match platform.connect_line(line, handler) {
            Ok(line) => Self::Line { _line: line },
            Err(error) => {
                log::debug!("virtio_mmio: interrupt {}: {error}; polled", line.number);
                let _poller = Poller::start(Arc::clone(registers), platform, callbacks);
                Self::Polled { _poller }
            }
        }
    }
}

/// A task that looks at the interrupt status until this value is dropped.
pub(crate) struct Poller(Arc<Mutex<Option<Polled>>>);

/// What it needs. It goes with the callbacks.
struct Polled {
    registers: Arc<Registers>,
    callbacks: Arc<Callbacks>,
}

impl Poller {
    fn start(
        registers: Arc<Registers>,
        platform: &Arc<dyn Platform>,
        callbacks: Arc<Callbacks>,
    ) -> Self {
        let polled = Polled {
            registers,
            callbacks,
        };
        let shared = Arc::new(Mutex::new(Some(polled)));
        let (polled, clock) = (Arc::clone(&shared), Arc::clone(platform));
        let task = async move {
            loop {
                clock.sleep(POLL_INTERVAL).await;
                let polled = polled.lock();
                let Some(Polled {
                    registers,
                    callbacks,
                }) = &*polled
                else {
                    return;
                };
                if !callbacks.serve(registers) {
                    return;
                }
            }
        };
        platform.spawn("virtio_mmio poll", Box::pin(task));
        Self(shared)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // The task holds the lock while it calls: afterwards it does not any more.
        let polled = self.0.lock().take();
        drop(polled);
    }
}
