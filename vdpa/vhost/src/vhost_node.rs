//! One device that a client can open: the counterpart of Linux's `/dev/vhost-vdpa-N`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;

use spin::Mutex;
use vdpa::Node;
use vdpa::device::VdpaClaim;
use vdpa::ids::IdGuard;
use vdpa::tree::{Inspect, Report};
use vdpa::wait::Waiters;

use super::client::Client;
use super::worker::work;
use super::{OpenOptions, VhostError};

/// A device that a client can open, one at a time.
pub(super) struct VhostNode {
    node: Arc<Node>,
    device: Arc<VdpaClaim>,
    state: Mutex<State>,
    vacated: Waiters,
    _id: IdGuard,
}

#[derive(Default)]
struct State {
    /// The device is being taken away.
    retired: bool,
    client: Option<Arc<Client>>,
    opens: u64,
}

impl VhostNode {
    pub(super) fn new(device: VdpaClaim, id: IdGuard) -> Arc<Self> {
        let vhost_node = Arc::new(Self {
            node: Node::child(device.node(), &format!("vhost-vdpa-{}", id.number())),
            device: Arc::new(device),
            state: Mutex::default(),
            vacated: Waiters::default(),
            _id: id,
        });
        vhost_node
            .node
            .set_inspector(Some(Arc::new(Inspector(Arc::downgrade(&vhost_node)))));
        vhost_node
    }

    pub(super) fn name(&self) -> &str {
        self.node.name()
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(super) fn device_type(&self) -> u32 {
        self.device.device_type()
    }

    /// Makes a client the only one of the device, with a task of its own that has nothing to do
    /// yet.
    pub(super) fn admit(self: &Arc<Self>, options: OpenOptions) -> Result<Arc<Client>, VhostError> {
        let client = Client::new(&self.device, options);
        self.occupy(&client)?;
        let vhost_node = Arc::clone(self);
        let worker = work(Arc::clone(&client), move || vhost_node.vacate());
        self.device.platform().spawn(self.name(), Box::pin(worker));
        Ok(client)
    }

    /// Takes the device from its client, if there is one, and waits until it is free. No one can
    /// open it any more.
    pub(super) async fn retire(&self) {
        let client = {
            let mut state = self.state.lock();
            state.retired = true;
            state.client.clone()
        };
        if let Some(client) = client {
            client.hang_up();
        }
        let free = || self.state.lock().client.is_none().then_some(());
        self.vacated.until(free).await;
    }

    /// Whether a client has the device.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().client.is_some()
    }

    /// The client has gone, and the device is at rest.
    fn vacate(&self) {
        let client = self.state.lock().client.take();
        drop(client);
        self.vacated.wake();
    }

    fn occupy(&self, client: &Arc<Client>) -> Result<(), VhostError> {
        let mut state = self.state.lock();
        if state.retired {
            return Err(VhostError::NotFound);
        }
        if state.client.is_some() {
            return Err(VhostError::Busy);
        }
        state.client = Some(Arc::clone(client));
        state.opens += 1;
        Ok(())
    }
}

impl fmt::Debug for VhostNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostNode")
            .field("node", &self.node)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// Tells about a device without keeping it.
struct Inspector(Weak<VhostNode>);

impl Inspect for Inspector {
    fn report(&self) -> Report {
        let Some(vhost_node) = self.0.upgrade() else {
            return Report::default();
        };
        let (client, opens) = {
            let state = vhost_node.state.lock();
            (state.client.clone(), state.opens)
        };
        let mut facts = Vec::from([
            (
                "open",
                String::from(if client.is_some() { "yes" } else { "no" }),
            ),
            ("opens", format!("{opens}")),
        ]);
        if let Some(client) = client {
            facts.push(("memory quota", format!("{} bytes", client.options.quota)));
            if let Some(memory) = &*client.memory.lock() {
                let bytes = memory.attachment().mapped_bytes();
                facts.push(("mapped", format!("{bytes} bytes")));
                facts.push(("mappings", format!("{}", memory.mappings())));
                let faults = memory.attachment().dma_faults();
                if faults.count > 0 {
                    facts.push(("DMA faults", format!("{faults}")));
                }
            }
        }
        Report {
            facts,
            ..Report::default()
        }
    }
}
