//! The other end of the guest's network card: frames, without a network of the host.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use qemu::build::Profile;
use qemu::guest::Guest;
use qemu::running::Running;
use tempfile::{TempDir, tempdir};
use tests::kernels;

static KERNEL: LazyLock<PathBuf> =
    LazyLock::new(|| kernels::build("site", Profile::Compact).expect("the site builds"));

/// The guest's hardware address, which is QEMU's own choice.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// The link, from the other side.
#[derive(Debug)]
pub struct Wire {
    socket: UnixDatagram,
    guest: PathBuf,
    _folder: TempDir,
}

/// The default unikernel with this command line, and the link to its card, which is called `net0`.
pub fn machine(append: &str) -> (Guest, Wire) {
    let folder = tempdir().unwrap();
    let (ours, guests) = (folder.path().join("a"), folder.path().join("b"));
    let socket = UnixDatagram::bind(&ours).unwrap();
    let backend = format!(
        "dgram,id=net0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        guests.display(),
        ours.display()
    );
    let card = "virtio-net-pci,netdev=net0,romfile=";
    let guest = Guest {
        append: append.into(),
        extra: ["-netdev", &backend, "-device", card]
            .map(Into::into)
            .into(),
        ..Guest::new(&*KERNEL)
    };
    let wire = Wire {
        socket,
        guest: guests,
        _folder: folder,
    };
    (guest, wire)
}

impl Wire {
    /// The next frame, if one comes within `patience`.
    pub fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let patience = patience.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut frame = vec![0; 4096];
        let length = self.socket.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    /// Sends a frame. A link that is full loses it.
    pub fn send(&self, frame: &[u8]) {
        let _: io::Result<usize> = self.socket.send_to(frame, &self.guest);
    }
}

/// The hardware address of the host with this address: each has one of its own.
pub fn mac_of(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [2, 0, a, b, c, d]
}

/// Puts `payload` into an Ethernet frame.
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// Puts `payload` into an IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

/// Puts `payload` into a UDP datagram without a checksum.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let words = [from, to, length, 0].map(u16::to_be_bytes);
    [&words.concat()[..], payload].concat()
}

/// An ICMP echo request.
pub fn echo(length: usize) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    packet.extend((0..length).map(|index| index as u8));
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ARP packet: `operation` 1 asks, 2 answers.
pub fn arp(
    operation: u8,
    from: ([u8; 6], Ipv4Addr),
    to: ([u8; 6], Ipv4Addr),
    destination: [u8; 6],
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(from.0);
    packet.extend(from.1.octets());
    packet.extend(to.0);
    packet.extend(to.1.octets());
    ethernet(destination, from.0, 0x806, &packet)
}

/// The hosts on the link: they answer ARP for every address in `hosts`.
pub fn answer_arp(wire: &Wire, frame: &[u8], hosts: impl Fn(Ipv4Addr) -> bool) {
    if frame.len() < 42 || frame[12..14] != [8, 6] || frame[20..22] != [0, 1] {
        return;
    }
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let (asker, wanted) = (address(28), address(38));
    let asker_mac: [u8; 6] = frame[22..28].try_into().unwrap();
    if asker != wanted && hosts(wanted) {
        let answer = arp(2, (mac_of(wanted), wanted), (asker_mac, asker), asker_mac);
        wire.send(&answer);
    }
}

/// Sends an echo request from `from`, whose frame comes from the host `neighbour`, until there is
/// an answer, and returns where that goes and what it holds. `hosts` are on the link.
pub fn ping(
    wire: &Wire,
    (from, to): (Ipv4Addr, Ipv4Addr),
    length: usize,
    hosts: impl Fn(Ipv4Addr) -> bool,
) -> Option<([u8; 6], Vec<u8>)> {
    let request = ipv4(from, to, 1, &echo(length));
    let request = ethernet(GUEST_MAC, mac_of(from), 0x800, &request);
    for _ in 0..6 {
        wire.send(&request);
        let until = Instant::now() + Duration::from_secs(1);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(frame) = wire.receive(left) else {
                break;
            };
            answer_arp(wire, &frame, &hosts);
            let answers = frame.len() >= 42
                && frame[12..14] == [8, 0]
                && frame[23] == 1
                && frame[30..34] == from.octets()
                && frame[34] == 0;
            if answers {
                return Some((frame[..6].try_into().unwrap(), frame[42..].to_vec()));
            }
        }
    }
    None
}

/// Every line that the console has said so far.
pub fn console(machine: &mut Running) -> &[String] {
    while let Ok(Some(_)) = machine.next_line(Instant::now()) {}
    machine.console()
}

/// Puts `payload` into an IPv6 packet.
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let header = [0x60, 0, 0, 0, length[0], length[1], protocol, hops];
    [&header[..], &from.octets(), &to.octets(), payload].concat()
}

/// An ICMPv6 message, whose checksum is put in, in a frame for the guest.
pub fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hops: u8, mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let covered = [
        &from.octets()[..],
        &to.octets(),
        &length,
        &[0, 0, 0, 58],
        &message,
    ]
    .concat();
    message[2..4].copy_from_slice(&checksum(&covered).to_be_bytes());
    let mac = if to.is_multicast() {
        let [.., a, b, c, d] = to.octets();
        [0x33, 0x33, a, b, c, d]
    } else {
        GUEST_MAC
    };
    ethernet(
        mac,
        mac_of6(from),
        0x86dd,
        &ipv6(from, to, 58, hops, &message),
    )
}

/// The hardware address of the host with this address.
pub fn mac_of6(ip: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = ip.octets();
    [2, 6, a, b, c, d]
}

/// The hosts on the link: they answer a host that looks for them, but for one that only looks
/// whether an address is free.
pub fn answer_neighbor(wire: &Wire, frame: &[u8]) {
    let asks = frame.len() >= 78 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58;
    if !asks || frame[54] != 135 || frame[22..38] == [0; 16] {
        return;
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let (asker, wanted) = (address(22), address(62));
    wire.send(&icmpv6(wanted, asker, 255, advertisement(wanted)));
}

/// A host says that it has this address.
pub fn advertisement(host: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(host.octets());
    message.extend([2, 1]);
    message.extend(mac_of6(host));
    message
}
