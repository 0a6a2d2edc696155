//! The virtio devices of the machine and what stands behind them.

use std::fmt;
use std::path::PathBuf;

use crate::format::{Access, Format};

/// A property of a device that QEMU reads as `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// `on`
    On,
    /// `off`
    Off,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// How a virtio device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// It is a function on the PCI bus.
    Pci,
    /// Its registers are in memory.
    Mmio,
}

impl Transport {
    /// QEMU's name of a device of this kind, `net` or `blk`.
    fn device(self, kind: &str) -> String {
        match self {
            Self::Pci => format!("virtio-{kind}-pci"),
            Self::Mmio => format!("virtio-{kind}-device"),
        }
    }

    /// What QEMU must be told beside: without it, registers in memory are those from before VIRTIO
    /// 1.0.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Pci => &[],
            Self::Mmio => &["-global", "virtio-mmio.force-legacy=false"],
        }
    }
}

/// Properties every virtio-pci device has. `None` leaves QEMU's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioOptions {
    /// Offers `VIRTIO_F_RING_PACKED`.
    pub packed: Option<Switch>,
    /// Offers `VIRTIO_F_EVENT_IDX`.
    pub event_idx: Option<Switch>,
    /// Offers `VIRTIO_F_INDIRECT_DESC`.
    pub indirect_desc: Option<Switch>,
    /// Number of MSI-X vectors; 0 leaves the device without MSI-X.
    pub vectors: Option<u16>,
    /// Leaves the device without the interface from before VIRTIO 1.0.
    pub disable_legacy: Option<Switch>,
    /// Offers `VIRTIO_F_ACCESS_PLATFORM`. QEMU wants `disable_legacy` with it.
    pub iommu_platform: Option<Switch>,
    /// Gives each queue a page of its own for its doorbell.
    pub page_per_vq: Option<Switch>,
}

impl VirtioOptions {
    /// A modern device alone, whose addresses are the platform's: what the guest's `ifcvf` wants of
    /// a device of QEMU's, and what does not bypass an IOMMU.
    pub fn on_platform() -> Self {
        Self {
            disable_legacy: Some(Switch::On),
            iommu_platform: Some(Switch::On),
            ..Self::default()
        }
    }

    /// The options as `,name=value` pairs.
    pub fn arguments(&self, transport: Transport) -> String {
        let switch = |name: &str, value: Option<Switch>| {
            value
                .map(|value| format!(",{name}={value}"))
                .unwrap_or_default()
        };
        let every = [
            switch("packed", self.packed),
            switch("event_idx", self.event_idx),
            switch("indirect_desc", self.indirect_desc),
        ]
        .concat();
        if transport == Transport::Mmio {
            return every + &switch("iommu_platform", self.iommu_platform);
        }
        [
            every,
            self.vectors
                .map(|vectors| format!(",vectors={vectors}"))
                .unwrap_or_default(),
            switch("disable-legacy", self.disable_legacy),
            switch("iommu_platform", self.iommu_platform),
            switch("page-per-vq", self.page_per_vq),
        ]
        .concat()
    }
}

/// What carries a network card's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetBackend {
    /// QEMU's own user network, 10.0.2.0/24 with the gateway and DHCP server at 10.0.2.2.
    User {
        /// TCP ports of the loopback address that lead to the guest, as (host, guest).
        forwards: Vec<(u16, u16)>,
    },
    /// A tap interface of the host that exists already.
    Tap {
        /// The interface's name.
        interface: String,
    },
}

/// A virtio network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// What it is connected to.
    pub backend: NetBackend,
    /// Queue pairs. More than one needs a backend with as many queues, which the user network has
    /// not.
    pub queue_pairs: u16,
    /// Its virtio properties.
    pub virtio: VirtioOptions,
}

impl Net {
    /// A card with one queue pair.
    pub fn new(backend: NetBackend) -> Self {
        Self {
            backend,
            queue_pairs: 1,
            virtio: VirtioOptions::default(),
        }
    }

    /// QEMU's arguments for the card numbered `index`.
    pub fn arguments(&self, index: usize, transport: Transport) -> [String; 4] {
        let backend = match &self.backend {
            NetBackend::User { forwards } => forwards
                .iter()
                .fold(format!("user,id=net{index}"), |backend, (host, guest)| {
                    format!("{backend},hostfwd=tcp:127.0.0.1:{host}-:{guest}")
                }),
            NetBackend::Tap { interface } => {
                let queues = match self.queue_pairs {
                    1 => String::new(),
                    pairs => format!(",queues={pairs}"),
                };
                let interface = escaped(interface);
                format!("tap,id=net{index},ifname={interface},script=no,downscript=no{queues}")
            }
        };
        let multiqueue = match self.queue_pairs {
            1 => String::new(),
            // A vector for each queue of each pair, the control queue and the configuration.
            pairs if transport == Transport::Pci && self.virtio.vectors.is_none() => {
                format!(",mq=on,vectors={}", 2 * pairs + 2)
            }
            _ => ",mq=on".into(),
        };
        let virtio = self.virtio.arguments(transport);
        let name = transport.device("net");
        let no_rom = match transport {
            Transport::Pci => ",romfile=",
            Transport::Mmio => "",
        };
        let device = format!("{name},netdev=net{index}{no_rom}{multiqueue}{virtio}");
        ["-netdev".into(), backend, "-device".into(), device]
    }
}

/// A virtio disk with an image behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image: a file or a block device of the host.
    pub image: PathBuf,
    /// What the image is.
    pub format: Format,
    /// Whether the guest may write to it.
    pub access: Access,
    /// What the disk answers when asked for its identity, at most 20 bytes.
    pub serial: Option<String>,
    /// Request queues.
    pub queues: u16,
    /// Descriptors of each queue: a power of two, at least 4. `None` is QEMU's 256.
    pub queue_size: Option<u16>,
    /// Its virtio properties.
    pub virtio: VirtioOptions,
}

impl Disk {
    /// A writable disk with a raw image and one request queue.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            format: Format::Raw,
            access: Access::ReadWrite,
            serial: None,
            queues: 1,
            queue_size: None,
            virtio: VirtioOptions::default(),
        }
    }

    /// QEMU's arguments for the disk numbered `index`.
    pub fn arguments(&self, index: usize, transport: Transport) -> [String; 4] {
        let read_only = match self.access {
            Access::ReadWrite => "",
            Access::ReadOnly => ",read-only=on",
        };
        let (format, image) = (self.format, escaped(&self.image.to_string_lossy()));
        // What stands before a colon in a file's name is a protocol for QEMU, unless it is a path.
        let here = if self.image.is_absolute() { "" } else { "./" };
        let here = if image.contains(':') { here } else { "" };
        let drive = format!("if=none,id=disk{index},format={format}{read_only},file={here}{image}");
        let serial = self
            .serial
            .as_deref()
            .map(|serial| format!(",serial={}", escaped(serial)));
        let queue_size = self.queue_size.map(|size| format!(",queue-size={size}"));
        let device = format!(
            "{},drive=disk{index},num-queues={}{}{}{}",
            transport.device("blk"),
            self.queues,
            queue_size.unwrap_or_default(),
            serial.unwrap_or_default(),
            self.virtio.arguments(transport),
        );
        ["-drive".into(), drive, "-device".into(), device]
    }
}

/// `value` as part of a comma-separated QEMU option: a comma in it is doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_virtio_option_reaches_the_command_line() {
        let virtio = VirtioOptions {
            packed: Some(Switch::On),
            event_idx: Some(Switch::Off),
            indirect_desc: Some(Switch::On),
            vectors: Some(2),
            disable_legacy: Some(Switch::On),
            iommu_platform: Some(Switch::On),
            page_per_vq: Some(Switch::On),
        };
        let disk = Disk {
            virtio,
            queue_size: Some(64),
            ..Disk::new("d.img")
        };
        assert_eq!(
            disk.arguments(0, Transport::Pci)[3],
            "virtio-blk-pci,drive=disk0,num-queues=1,queue-size=64,packed=on,event_idx=off,\
             indirect_desc=on,vectors=2,disable-legacy=on,iommu_platform=on,page-per-vq=on"
        );
        let net = Net {
            virtio,
            ..Net::new(NetBackend::User { forwards: vec![] })
        };
        assert_eq!(
            net.arguments(1, Transport::Pci)[3],
            "virtio-net-pci,netdev=net1,romfile=,packed=on,event_idx=off,indirect_desc=on,vectors=2,\
             disable-legacy=on,iommu_platform=on,page-per-vq=on"
        );
    }

    #[test]
    fn commas_in_file_names_do_not_end_the_option() {
        let disk = Disk {
            access: Access::ReadOnly,
            ..Disk::new("/a,b/c d.img")
        };
        assert_eq!(
            disk.arguments(2, Transport::Pci)[1],
            "if=none,id=disk2,format=raw,read-only=on,file=/a,,b/c d.img"
        );
    }

    #[test]
    fn names_with_a_colon_are_no_protocols() {
        for (name, file) in [
            ("nbd:localhost:1", "file=./nbd:localhost:1"),
            ("json:{}", "file=./json:{}"),
            ("/a:b", "file=/a:b"),
            ("plain", "file=plain"),
        ] {
            let arguments = Disk::new(name).arguments(0, Transport::Pci);
            assert!(arguments[1].ends_with(file), "{}", arguments[1]);
        }
        let qcow2 = Disk {
            format: Format::Qcow2,
            ..Disk::new("q")
        };
        assert_eq!(
            qcow2.arguments(0, Transport::Pci)[1],
            "if=none,id=disk0,format=qcow2,file=q"
        );
    }

    #[test]
    fn queue_pairs_get_a_vector_each_and_two_more() {
        let tap = NetBackend::Tap {
            interface: "tap0".into(),
        };
        let net = Net {
            queue_pairs: 4,
            ..Net::new(tap)
        };
        let arguments = net.arguments(0, Transport::Pci);
        assert_eq!(
            arguments[1],
            "tap,id=net0,ifname=tap0,script=no,downscript=no,queues=4"
        );
        assert_eq!(
            arguments[3],
            "virtio-net-pci,netdev=net0,romfile=,mq=on,vectors=10"
        );
    }

    #[test]
    fn devices_in_memory_have_no_options_of_pci() {
        let virtio = VirtioOptions {
            packed: Some(Switch::On),
            vectors: Some(2),
            ..VirtioOptions::on_platform()
        };
        let disk = Disk {
            virtio,
            ..Disk::new("d.img")
        };
        let mmio = Transport::Mmio;
        assert_eq!(
            disk.arguments(0, mmio)[3],
            "virtio-blk-device,drive=disk0,num-queues=1,packed=on,iommu_platform=on"
        );
        let tap = NetBackend::Tap {
            interface: "tap0".into(),
        };
        let net = Net {
            queue_pairs: 2,
            ..Net::new(tap)
        };
        let device = &net.arguments(0, mmio)[3];
        assert_eq!(device, "virtio-net-device,netdev=net0,mq=on");
    }
}
