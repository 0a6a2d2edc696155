//! QEMU as the front-end: the arguments that put a device of this process into a guest.

use std::fmt;

use qemu::device::Switch;
use qemu::guest::Guest;

use super::server::Server;

/// What QEMU lets the driver choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontEnd {
    /// Offers `VIRTIO_F_RING_PACKED`.
    pub packed: Switch,
    /// Offers `VIRTIO_F_EVENT_IDX`.
    pub event_idx: Switch,
    /// Offers `VIRTIO_F_INDIRECT_DESC`.
    pub indirect_desc: Switch,
    /// Descriptors of each queue.
    pub queue_size: u16,
    /// Queues, at most as many as the device has.
    pub queues: u16,
}

impl FrontEnd {
    /// Puts the devices of `servers` into `guest`, in this order, and shares its memory with them.
    pub fn attach(&self, guest: &mut Guest, servers: &[&Server]) {
        let devices: Vec<_> = servers.iter().map(|server| (*self, *server)).collect();
        Self::attach_all(guest, &devices);
    }

    /// The same for devices that are offered differently.
    pub fn attach_all(guest: &mut Guest, devices: &[(Self, &Server)]) {
        let memory = format!(
            "memory-backend-memfd,id=memory,size={},share=on",
            guest.memory
        );
        let mut add = |words: [String; 2]| guest.extra.extend(words.map(Into::into));
        add(["-object".into(), memory]);
        add(["-machine".into(), "memory-backend=memory".into()]);
        for (index, (front_end, server)) in devices.iter().enumerate() {
            let socket = server.socket();
            let chardev = format!("socket,id=vhost{index},path={}", socket.display());
            add(["-chardev".into(), chardev]);
            let options = front_end.options();
            add([
                "-device".into(),
                format!("vhost-user-blk-pci,chardev=vhost{index}{options}"),
            ]);
        }
    }

    fn options(&self) -> String {
        let Self {
            packed,
            event_idx,
            indirect_desc,
            queue_size,
            queues,
        } = self;
        format!(
            ",packed={packed},event_idx={event_idx},indirect_desc={indirect_desc},\
             queue-size={queue_size},num-queues={queues}"
        )
    }
}

impl fmt::Display for FrontEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.packed {
            Switch::On => "packed",
            Switch::Off => "split",
        })?;
        write!(
            f,
            "/event_idx={}/indirect_desc={}/size={}/queues={}",
            self.event_idx, self.indirect_desc, self.queue_size, self.queues
        )
    }
}
