//! What every connection shares: the files, the network, the counters and the memory.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use kernel::System;
use kernel::embassy_net::Stack;
use kernel::log::info;
use vdpa_mgmt::REPORT_BYTES;
use web::http::reader;
use web::shares::{Pool, Shares};
use web::status::Http;

use crate::files::{Files, NoFiles};

/// How many connections can be open at once, if there is memory for them. The stack needs some
/// sockets itself.
const CONNECTIONS: usize = kernel::SOCKETS - 8;

/// What a connection's socket receives into.
pub(crate) const RECEIVE_BYTES: usize = 4 * 1024;
/// What a connection takes from the start besides the bytes that it sends, with its task.
const CONNECTION_BYTES: usize = RECEIVE_BYTES + reader::BUFFER_BYTES + 8 * 1024;

/// The application's state.
pub(crate) struct Site {
    pub(crate) system: System,
    pub(crate) stack: Stack<'static>,
    files: RefCell<Result<Rc<Files>, NoFiles>>,
    pub(crate) counters: Counters,
    /// How memory is divided.
    pub(crate) shares: Shares,
    /// What long pages may take together.
    pub(crate) pages: Rc<Pool>,
}

/// What the server counts. All connections run on one processor.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: Cell<usize>,
    pub(crate) requests: Cell<u64>,
    pub(crate) sent: Cell<u64>,
}

impl Counters {
    pub(crate) fn count_sent(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sent.update(|sent| sent.saturating_add(bytes));
    }

    pub(crate) fn http(&self, limit: usize) -> Http {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Http {
            open: count(self.open.get()),
            limit: count(limit),
            requests: self.requests.get(),
            sent: self.sent.get(),
        }
    }
}

impl Site {
    pub(crate) fn new(
        system: System,
        stack: Stack<'static>,
        files: Result<Files, NoFiles>,
    ) -> Self {
        let free = system.memory().free();
        let shares = Shares::of(free, CONNECTIONS, CONNECTION_BYTES);
        Self {
            pages: Pool::new(shares.pages),
            shares,
            system,
            stack,
            files: RefCell::new(files.map(Rc::new)),
            counters: Counters::default(),
        }
    }

    /// The files that are served. If their disk is gone, or there was none, those of a disk that
    /// has come since.
    pub(crate) async fn files(&self) -> Result<Rc<Files>, NoFiles> {
        let files = self.files.borrow().clone();
        let gone = match &files {
            Ok(files) => files.disk.is_gone(),
            Err(_) => true,
        };
        if !gone {
            return files;
        }
        match Files::open(&self.system).await {
            Err(NoFiles::NoDisk | NoFiles::NoSuchDisk) => files,
            other => {
                let other = other.map(Rc::new);
                drop(self.files.replace(other.clone()));
                if let Ok(files) = &other {
                    info!("site: serving {}", files.describe().await);
                }
                other
            }
        }
    }

    /// Whether there is memory to say something about all devices at once. It is never held while
    /// somebody waits.
    pub(crate) fn has_room_for_devices(&self) -> bool {
        const BESIDES: u64 = 64 * 1024;
        let devices = u64::try_from(self.system.vdpa().devices().len()).unwrap_or(u64::MAX);
        devices.saturating_mul(REPORT_BYTES).saturating_add(BESIDES) < self.system.memory().free()
    }
}
