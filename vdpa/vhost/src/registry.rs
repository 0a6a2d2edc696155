//! Where clients find the devices that they can open.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use vdpa::dma::Trust;
use vdpa::ids::{IdAllocator, IdGuard, OutOfIds};
use vdpa::wait::Waiters;

use super::vhost_node::VhostNode;
use super::{VERSION, VhostError, VhostHandle};

/// What a client says when it opens a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// The version of the protocol that it speaks: [`VERSION`].
    pub version: u32,
    /// How many bytes it may map; a byte that is mapped twice counts twice.
    pub quota: u64,
    /// How many mappings it may have.
    pub mappings: usize,
    /// Whether it takes a device whose memory accesses nothing isolates.
    pub trust: Trust,
}

/// 64 MiB in at most 4096 mappings, of an isolated device.
impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            version: VERSION,
            quota: 64 << 20,
            mappings: 4096,
            trust: Trust::Isolated,
        }
    }
}

/// The devices that clients can open.
pub struct VhostRegistry {
    ids: Arc<IdAllocator>,
    entries: Mutex<Vec<Entry>>,
    arrived: Waiters,
}

struct Entry {
    vhost_node: Arc<VhostNode>,
    /// [`VhostRegistry::next`] has told of it.
    announced: bool,
}

impl VhostRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            ids: IdAllocator::new(u32::MAX),
            entries: Mutex::default(),
            arrived: Waiters::default(),
        })
    }

    /// The names of the devices, such as `vhost-vdpa-0`, in the order of their arrival.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = self.entries.lock();
        entries
            .iter()
            .map(|entry| entry.vhost_node.name().to_owned())
            .collect()
    }

    /// The virtio device type of a device, without opening it; `None`, if there is no such device.
    #[must_use]
    pub fn device_type(&self, name: &str) -> Option<u32> {
        self.find(name).map(|vhost_node| vhost_node.device_type())
    }

    /// The name of the next device; waits for one that it has not told of. Dropped half-way, it
    /// forgets none.
    pub async fn next(&self) -> String {
        let unannounced = || {
            let mut entries = self.entries.lock();
            let entry = entries.iter_mut().find(|entry| !entry.announced)?;
            entry.announced = true;
            Some(entry.vhost_node.name().to_owned())
        };
        self.arrived.until(unannounced).await
    }

    /// Opens a device: it is reset and belongs to the caller alone, until the handle is closed or
    /// the device is taken away.
    ///
    /// # Errors
    /// [`VhostError::NotFound`]; [`VhostError::Busy`], if another client has it, or is being taken
    /// down; [`VhostError::WrongVersion`]; [`VhostError::NotIsolated`]; [`VhostError::UnitTaken`];
    /// [`VhostError::HungUp`]; [`VhostError::Timeout`], if the device does not come out of its
    /// reset.
    pub async fn open(&self, name: &str, options: OpenOptions) -> Result<VhostHandle, VhostError> {
        if options.version != VERSION {
            return Err(VhostError::WrongVersion);
        }
        let vhost_node = self.find(name).ok_or(VhostError::NotFound)?;
        VhostHandle::open(vhost_node, options).await
    }

    fn find(&self, name: &str) -> Option<Arc<VhostNode>> {
        let entries = self.entries.lock();
        let entry = entries
            .iter()
            .find(|entry| entry.vhost_node.name() == name)?;
        Some(Arc::clone(&entry.vhost_node))
    }

    pub(super) fn allocate_id(&self) -> Result<IdGuard, OutOfIds> {
        self.ids.allocate()
    }

    pub(super) fn add(&self, vhost_node: Arc<VhostNode>) {
        self.entries.lock().push(Entry {
            vhost_node,
            announced: false,
        });
        self.arrived.wake();
    }

    pub(super) fn remove(&self, vhost_node: &Arc<VhostNode>) {
        let mut entries = self.entries.lock();
        entries.retain(|entry| !Arc::ptr_eq(&entry.vhost_node, vhost_node));
    }
}

impl fmt::Debug for VhostRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
