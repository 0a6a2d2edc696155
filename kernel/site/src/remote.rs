//! A disk over the network: a task behind `vduse` that is a client of an NBD server.
//!
//! It connects when the network is up, makes the device, and goes on for as long as the machine
//! runs: a server that has gone is connected to again.

mod link;

use alloc::sync::Arc;

use embassy_futures::join::join;
use embassy_futures::select::{Either3, select3};
use kernel::System;
use kernel::embassy_net::Stack;
use kernel::embassy_time::{Duration, Timer};
use kernel::log::error;
use nbd_client::Uri;
use spin::Mutex;
use vdpa_mgmt::{Attributes, Handle, MgmtError};
use vdpa_vduse::{CreateError, OpenError, Options, Task, TaskError, serve};
use vduse_nbd::{NbdDevice, Served, Signals, config, set_up};
use virtq::Event;

use self::link::Link;

/// What the device is called.
const NAME: &str = "nbd0";
/// The management device of the devices of tasks.
const MANAGER: &str = "vduse";
/// How long the disk may take to come to rest: less than a task has for an answer.
const REST: Duration = Duration::from_secs(5);
/// How long the last words to a server may take.
const FAREWELL: Duration = Duration::from_millis(50);

/// Why there is no disk, for good.
#[derive(Debug, thiserror::Error)]
enum RemoteError {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Management(#[from] MgmtError),
}

/// The disk that the command line names.
pub(crate) struct Remote {
    /// Raised when the disk is there, and when the first attempt to connect has failed.
    pub(crate) tried: Event,
    /// Raised when the disk has come after that.
    pub(crate) late: Event,
}

impl Remote {
    pub(crate) const fn new() -> Self {
        Self {
            tried: Event::new(),
            late: Event::new(),
        }
    }

    /// Serves the disk, if the command line names one.
    pub(crate) async fn serve(&self, system: &System, stack: Stack<'static>) {
        if let Some(text) = system.command_line().get("nbd") {
            match text.parse::<Uri>() {
                Ok(uri) => {
                    let Err(reason) = self.run(system, stack, &uri).await;
                    error!("nbd: {uri}: {reason}");
                }
                Err(reason) => error!("nbd={text:.80}: {reason}"),
            }
        }
        self.tried.raise();
    }

    async fn run(
        &self,
        system: &System,
        stack: Stack<'static>,
        uri: &Uri,
    ) -> Result<core::convert::Infallible, RemoteError> {
        stack.wait_config_up().await;
        let device = Mutex::new(NbdDevice::new(&uri.export));
        let (signals, known) = (Signals::default(), Event::new());
        let link = Link {
            stack,
            server: uri.server,
            device: &device,
            kick: &signals.kick,
            known: &known,
            failed: &self.tried,
        };
        let work = async {
            known.wait().await;
            let task = offer(system, &device)?;
            let mut served = Served {
                device: &device,
                signals: &signals,
            };
            let add = async {
                let attributes = Attributes::default();
                let manager = Handle::named(MANAGER);
                let added = system.management().add(NAME, &manager, &attributes).await;
                match added {
                    Ok(_) => wait_for_disk(system).await,
                    Err(reason) => error!("nbd: {reason}"),
                }
                if self.tried.count() > 0 {
                    self.late.raise();
                }
                self.tried.raise();
            };
            let (end, ()) = join(serve(&task, &mut served), add).await;
            // The server hears that nothing more comes.
            device.lock().client().leave();
            signals.kick.raise();
            Timer::after(FAREWELL).await;
            Err(RemoteError::Task(end))
        };
        let patience = limit_rests(&device, &signals);
        match select3(work, link.keep_connected(), patience).await {
            Either3::First(end) => end,
            Either3::Second(never) | Either3::Third(never) => match never {},
        }
    }
}

/// Waits until a driver has made a disk of the device, but not for long. A client of vhost is a task of
/// its own, which begins when the device is there.
async fn wait_for_disk(system: &System) {
    const TURN: Duration = Duration::from_millis(5);
    let mut turns = 0..200;
    while system.disks().names().is_empty() && turns.next().is_some() {
        Timer::after(TURN).await;
    }
}

/// Refuses to rest when that takes too long, as without a server it does.
async fn limit_rests(device: &Mutex<NbdDevice>, signals: &Signals) -> core::convert::Infallible {
    loop {
        signals.rest.wait().await;
        let attempt = device.lock().resting();
        if let Some(attempt) = attempt {
            Timer::after(REST).await;
            device.lock().refuse_rest(attempt);
        }
    }
}

/// Creates the device and opens it.
fn offer(system: &System, device: &Mutex<NbdDevice>) -> Result<Arc<Task>, RemoteError> {
    let mut device = device.lock();
    let control = system.vduse();
    let Some(export) = device.export() else {
        // Nobody offers a disk before it is known.
        return Err(TaskError::NotReady.into());
    };
    control.create(&config(NAME, &export), Options::default())?;
    let task = Arc::new(control.open(NAME)?);
    set_up(&task)?;
    device.begin(Arc::clone(&task));
    Ok(task)
}
