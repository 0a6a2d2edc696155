//! A disk over the network: a task behind `vduse` that is a client of an NBD server.
//!
//! It connects when the network is up, makes the device, and goes on for as long as the machine
//! runs: a server that has gone is connected to again.

mod device;
mod link;

use alloc::sync::Arc;

use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use kernel::System;
use kernel::embassy_net::Stack;
use kernel::embassy_time::{Duration, Timer};
use kernel::log::error;
use nbd_client::{Client, Uri};
use spin::Mutex;
use vdpa_mgmt::{Attributes, Handle, MgmtError};
use vdpa_vduse::protocol::ProtocolFeatures;
use vdpa_vduse::{CreateError, OpenError, Options, Task, TaskError, serve};
use virtq::Event;

use self::device::{NbdDevice, REQUESTS, Served, config, set_up};
use self::link::Link;

/// What the device is called.
const NAME: &str = "nbd0";
/// The management device of the devices of tasks.
const MANAGER: &str = "vduse";
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
        let device = Mutex::new(NbdDevice::new(Client::new(&uri.export, REQUESTS)));
        let (kick, known) = (Event::new(), Event::new());
        let link = Link {
            stack,
            server: uri.server,
            device: &device,
            kick: &kick,
            known: &known,
            failed: &self.tried,
        };
        let work = async {
            known.wait().await;
            let task = offer(system, &device, &uri.export)?;
            let mut served = Served(&device, &kick);
            let add = async {
                let attributes = Attributes::default();
                let manager = Handle::named(MANAGER);
                let added = system.management().add(NAME, &manager, &attributes).await;
                if let Err(reason) = added {
                    error!("nbd: {reason}");
                }
                if self.tried.count() > 0 {
                    self.late.raise();
                }
                self.tried.raise();
            };
            let (end, ()) = join(serve(&task, &mut served), add).await;
            // The server hears that nothing more comes.
            device.lock().client().leave();
            kick.raise();
            Timer::after(FAREWELL).await;
            Err(RemoteError::Task(end))
        };
        match select(work, link.keep_connected()).await {
            Either::First(end) => end,
            Either::Second(never) => match never {},
        }
    }
}

/// Creates the device and opens it.
fn offer(
    system: &System,
    device: &Mutex<NbdDevice>,
    export_name: &str,
) -> Result<Arc<Task>, RemoteError> {
    let mut device = device.lock();
    let control = system.vduse();
    // A server answers in any order, so that the requests cannot be put back into the queue.
    let options = Options {
        features: ProtocolFeatures::QUEUE_READY,
        ..Options::default()
    };
    control.create(&config(NAME, device.export()), options)?;
    let task = Arc::new(control.open(NAME)?);
    set_up(&task)?;
    device.begin(Arc::clone(&task), export_name);
    Ok(task)
}
