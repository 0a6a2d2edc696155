//! Bringing an interface up and taking it down: the driver on the virtio bus (VIRTIO 1.2, 5.1.5).

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use vdpa::bus::{Bound, Claim, Driver, ProbeError};
use vdpa::platform::BoxFuture;
#[cfg(feature = "suspend")]
use vdpa::power::PowerError;
use vdpa::{Features, Node};
use virtio::net::F;
use virtio_bus::Registry;
use virtio_bus::{Completion, VirtQueue, VirtioClaim, VirtioDevice, VirtioId};
use virtq::{Chain, DmaBuffer, Readable, Writable};

use super::config::{Link, read_link, read_mac, read_mtu};
use super::control::{CONTROL_FEATURES, Command, ControlQueue, Slot, Worker, is_usable};
use super::device::{NetDevice, Offload, Port};
use super::header::ETHERNET_LEN;
use super::receive::{ReceiveConfig, Receiver};
use super::shared::{Identity, Shared};
use super::transmit::{TransmitChecksum, Transmitter};
use super::wait::InterruptQueue;

/// The queues of the first pair (VIRTIO 1.2, 5.1.2).
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
/// The control queue, as `VIRTIO_NET_F_MQ` is not negotiated.
const CONTROL_QUEUE: u16 = 2;
/// One command at a time: what the device reads, and what it writes.
const CONTROL_QUEUE_SIZE: u16 = 2;
/// How much memory the buffers of one queue take at most, in bytes, if eight frames fit into it.
const BUFFERS_LEN_MAX: usize = 512 * 1024;
const BUFFERS_MIN: usize = 8;

/// How interfaces are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// Whether the device interrupts, or is asked again and again.
    pub completion: Completion,
    /// The most entries of a queue: a power of two.
    pub queue_size: u16,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            completion: Completion::Interrupt,
            queue_size: 256,
        }
    }
}

/// Why the driver cannot drive a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// It is of another type.
    #[error("not a network device")]
    Type,
}

/// The driver of virtio network devices.
#[derive(Debug)]
pub struct NetDriver {
    registry: Arc<Registry<NetDevice>>,
    options: NetOptions,
    ids: [VirtioId; 1],
}

impl NetDriver {
    /// A driver that publishes its interfaces in `registry`.
    #[must_use]
    pub fn new(registry: Arc<Registry<NetDevice>>, options: NetOptions) -> Self {
        let ids = [VirtioId {
            device_type: virtio::Id::Net,
        }];
        Self {
            registry,
            options,
            ids,
        }
    }

    async fn attach(&self, device: &Arc<VirtioClaim>) -> Result<BoundNet, ProbeError> {
        let features = negotiate(device).await?;
        let NetOptions {
            completion,
            queue_size,
        } = self.options;
        let receive = device
            .create_queue(RECEIVE_QUEUE, "rx", queue_size, completion)
            .await?;
        let transmit = device
            .create_queue(TRANSMIT_QUEUE, "tx", queue_size, completion)
            .await?;
        let control = create_control_queue(device, features, completion).await?;
        let queues = Queues {
            receive,
            transmit,
            control,
        };
        // A device that does not run touches no queue, so the queues may be dropped if this fails.
        let prepared = self.start(device, features, &queues).await?;
        Ok(self.publish(device, features, queues, prepared))
    }

    /// Everything that may fail, up to a device that runs.
    async fn start(
        &self,
        device: &Arc<VirtioClaim>,
        features: Features,
        queues: &Queues,
    ) -> Result<Prepared, ProbeError> {
        let mtu = read_mtu(device, features)?;
        let frame_max = usize::from(mtu) + ETHERNET_LEN;
        let receive = ReceiveConfig {
            mergeable: features.contains(F::MRG_RXBUF),
            partial_checksums: features.contains(F::GUEST_CSUM),
            frame_max,
        };
        let receive_len = Receiver::buffer_len(&receive, queues.receive.ring.size());
        let receive_buffers = buffers(device, &queues.receive, receive_len)?;
        let transmit_buffers =
            buffers(device, &queues.transmit, Transmitter::buffer_len(frame_max))?;
        let id = self
            .registry
            .allocate_number()
            .map_err(|_| ProbeError::OutOfResources)?;
        let name = format!("net{}", id.number());
        let identity = Identity {
            name,
            mac: read_mac(device, features)?,
            mtu,
            id,
        };
        let link = read_link(device, features)?;
        device.start().await?;
        Ok(Prepared {
            identity,
            link,
            receive,
            receive_buffers,
            transmit_buffers,
        })
    }

    /// Makes an interface of a device that runs.
    fn publish(
        &self,
        device: &Arc<VirtioClaim>,
        features: Features,
        queues: Queues,
        prepared: Prepared,
    ) -> BoundNet {
        let Queues {
            receive: rx,
            transmit: tx,
            control,
        } = queues;
        let Prepared {
            identity,
            link,
            receive,
            receive_buffers,
            transmit_buffers,
        } = prepared;
        log::info!(
            "{} on {}: {}, mtu {}, link {link}, rx {} tx {}",
            identity.name,
            device.node().name(),
            identity.mac,
            identity.mtu,
            rx.ring.size(),
            tx.ring.size(),
        );
        let shared = Shared::new(identity, link);
        let node = Node::child(device.node(), &shared.name);
        node.set_inspector(Some(Arc::clone(&shared) as _));

        let completion = self.options.completion;
        let counters = &shared.counters;
        let rx = InterruptQueue::new(rx, completion);
        let mut receiver = Receiver::new(rx, receive, receive_buffers, Arc::clone(counters));
        receiver.publish();
        let checksum = TransmitChecksum::of(features);
        let tx = InterruptQueue::new(tx, completion);
        let transmitter = Transmitter::new(
            tx,
            checksum,
            receive.frame_max,
            transmit_buffers,
            Arc::clone(counters),
        );
        let control = control.map(|ControlParts { queue, slot }| {
            let (control_queue, event) = ControlQueue::new(device, features, &shared, queue, slot);
            let worker = Worker::spawn(&control_queue, event, completion);
            (control_queue, worker)
        });
        let offload = Offload {
            receive: receive.partial_checksums,
            transmit: checksum == TransmitChecksum::Device,
        };
        let port = Some(Port {
            device: Arc::clone(device),
            receiver,
            transmitter,
            control: control.as_ref().map(|(queue, _)| Arc::clone(queue)),
        });
        let interface = NetDevice {
            features,
            offload,
            port,
            shared: Arc::clone(&shared),
        };
        self.registry.publish(&shared.name, interface);
        let registry = Arc::clone(&self.registry);
        BoundNet {
            device: Arc::clone(device),
            registry,
            shared,
            control,
            _node: node,
        }
    }
}

impl Driver<VirtioDevice> for NetDriver {
    fn name(&self) -> &'static str {
        "virtio_net"
    }

    fn ids(&self) -> &[VirtioId] {
        &self.ids
    }

    fn probe<'a>(
        &'a self,
        device: Claim<VirtioDevice>,
        id: Option<&'a VirtioId>,
    ) -> BoxFuture<'a, Result<Box<dyn Bound>, ProbeError>> {
        Box::pin(async move {
            // An override brings devices here that no row describes.
            id.ok_or_else(|| ProbeError::unsuitable(Unsuitable::Type))?;
            let device = Arc::new(VirtioClaim::new(device));
            let bound = self.attach(&device).await?;
            Ok(Box::new(bound) as Box<dyn Bound>)
        })
    }
}

struct Queues {
    receive: VirtQueue<Writable>,
    transmit: VirtQueue<Readable>,
    control: Option<ControlParts>,
}

struct ControlParts {
    queue: VirtQueue<Command>,
    slot: Arc<Slot>,
}

/// What an interface needs besides its queues.
struct Prepared {
    identity: Identity,
    link: Link,
    receive: ReceiveConfig,
    receive_buffers: Vec<DmaBuffer>,
    transmit_buffers: Vec<DmaBuffer>,
}

/// The driver's hold on one device.
struct BoundNet {
    device: Arc<VirtioClaim>,
    registry: Arc<Registry<NetDevice>>,
    shared: Arc<Shared>,
    control: Option<(Arc<ControlQueue>, Worker)>,
    /// In the tree for as long as the interface is bound.
    _node: Arc<Node>,
}

impl BoundNet {
    /// Ends the traffic and lets the interface free its queues.
    async fn stop(&self) {
        self.shared.silence();
        if let Some((queue, _)) = &self.control {
            queue.stop();
        }
        // If the device does not follow, the queues know that their memory must be leaked.
        let _ = self.device.reset().await;
        if let Some((queue, worker)) = &self.control {
            worker.join().await;
            queue.reclaim();
        }
        self.shared.release();
        // A stack that has met the end of the traffic waits for nothing else.
        self.device.config_event().raise();
    }
}

impl Bound for BoundNet {
    fn remove(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.stop().await;
            drop(self.registry.take_named(&self.shared.name));
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }

    #[cfg(feature = "suspend")]
    fn suspend(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(self.device.suspend())
    }

    #[cfg(feature = "suspend")]
    fn resume(&self) -> BoxFuture<'_, Result<(), PowerError>> {
        Box::pin(self.device.resume())
    }
}

/// Agrees on features; on those of the control queue, if it is there and of use.
async fn negotiate(device: &VirtioClaim) -> Result<Features, ProbeError> {
    let plain = F::MAC | F::STATUS | F::MTU | F::MRG_RXBUF | F::CSUM | F::GUEST_CSUM;
    if device.queue_count() > CONTROL_QUEUE {
        let supported = plain | CONTROL_FEATURES;
        let features = device.negotiate(supported.into(), Features::EMPTY).await?;
        if is_usable(features) || features.intersection(CONTROL_FEATURES.into()) == Features::EMPTY
        {
            return Ok(features);
        }
    }
    Ok(device.negotiate(plain.into(), Features::EMPTY).await?)
}

/// The control queue and the memory of its commands, if it has been agreed on.
async fn create_control_queue(
    device: &VirtioClaim,
    features: Features,
    completion: Completion,
) -> Result<Option<ControlParts>, ProbeError> {
    if !is_usable(features) {
        return Ok(None);
    }
    let slot = Slot::new(&device.dma()).map_err(|_| ProbeError::OutOfResources)?;
    let queue = device
        .create_queue(CONTROL_QUEUE, "control", CONTROL_QUEUE_SIZE, completion)
        .await?;
    Ok(Some(ControlParts { queue, slot }))
}

/// As many buffers as the queue has descriptors, or fewer if they are large.
fn buffers<T: Chain>(
    device: &VirtioDevice,
    queue: &VirtQueue<T>,
    len: usize,
) -> Result<Vec<DmaBuffer>, ProbeError> {
    let count = (BUFFERS_LEN_MAX / len)
        .max(BUFFERS_MIN)
        .min(usize::from(queue.ring.size()));
    DmaBuffer::pool(&device.dma(), count, len).map_err(|_| ProbeError::OutOfResources)
}
