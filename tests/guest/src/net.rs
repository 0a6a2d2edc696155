//! The virtio network driver on QEMU's user network, through smoltcp.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, Medium};
use smoltcp::socket::icmp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address};
use virtio_net::{NetDevice, NetDriver, NetOptions};

use crate::bench::Bench;
use crate::outcome::{Failure, Outcome};
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    address_and_size,
    arp_and_icmp_reach_the_gateway,
    frames_of_every_size_come_back,
    more_frames_than_a_queue_holds,
    queues_of_every_size_work,
];

/// Addresses of QEMU's user network.
const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);

/// The identifier of our echo requests.
const IDENT: u16 = 0x5257;

/// The longest echo payload in an Ethernet frame: 1500 bytes without IP and ICMP headers.
const LONGEST: usize = 1472;

async fn address_and_size(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| {
            let capabilities = net.capabilities();
            ensure_eq!(capabilities.medium, Medium::Ethernet);
            ensure_eq!(capabilities.max_transmission_unit, 1514);
            // QEMU's own range of addresses, and the first one in it.
            ensure_eq!(net.mac().0, [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
            Ok(())
        })
        .await
}

async fn arp_and_icmp_reach_the_gateway(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| reaches_the_gateway(bench, net).await)
        .await
}

/// One question by ARP and one echo.
pub async fn reaches_the_gateway(bench: &Bench, net: &mut NetDevice) -> Outcome {
    Pinger::new(bench, net, &mut Storage::new())
        .ping(0, 56)
        .await
}

async fn frames_of_every_size_come_back(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| {
            let mut storage = Storage::new();
            let mut pinger = Pinger::new(bench, net, &mut storage);
            for (number, length) in (0..).zip([0, 1, 17, 18, 63, 64, 500, 1023, 1471, LONGEST]) {
                pinger.ping(number, length).await?;
            }
            Ok(())
        })
        .await
}

async fn more_frames_than_a_queue_holds(bench: &Bench) -> Outcome {
    bench
        .with_net(async |net| {
            let mut storage = Storage::new();
            let mut pinger = Pinger::new(bench, net, &mut storage);
            for number in 0..1000 {
                pinger.ping(number, 100 + usize::from(number % 7)).await?;
            }
            Ok(())
        })
        .await
}

/// A driver may ask for shorter queues than the device has; two descriptors are the least that can
/// turn.
async fn queues_of_every_size_work(bench: &Bench) -> Outcome {
    const USUAL: &str = "virtio_net";
    let name = bench
        .with_net(async |net| Ok(net.name().to_string()))
        .await?;
    let device = bench.virtio_device(&name)?;
    for queue_size in [2, 4, 8, 16, 32, 64, 128, 256, 1024] {
        bench.drop_net();
        bench.virtio().remove_driver(USUAL).await;
        let options = NetOptions {
            queue_size,
            ..NetOptions::default()
        };
        let driver = NetDriver::new(Arc::clone(bench.system.nets()), options);
        bench.virtio().add_driver(Arc::new(driver)).await?;
        let bound = bench.virtio().driver_of(&device);
        ensure_eq!(bound.as_deref(), Some(USUAL));
        bench
            .with_net(async |net| {
                let mut storage = Storage::new();
                let mut pinger = Pinger::new(bench, net, &mut storage);
                for number in 0..3 * queue_size.min(64) {
                    pinger
                        .ping(number, usize::from(number) * 7 % LONGEST)
                        .await?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// What a [`Pinger`] keeps its packets in.
struct Storage<'a> {
    places: [SocketStorage<'a>; 1],
    metadata: [[icmp::PacketMetadata; 4]; 2],
    payload: [Vec<u8>; 2],
}

impl Storage<'_> {
    fn new() -> Self {
        Self {
            places: [SocketStorage::EMPTY],
            metadata: [[icmp::PacketMetadata::EMPTY; 4]; 2],
            payload: [vec![0; 8192], vec![0; 8192]],
        }
    }
}

/// A network stack of one socket that asks the gateway for echoes.
struct Pinger<'a> {
    bench: &'a Bench,
    net: &'a mut NetDevice,
    interface: Interface,
    sockets: SocketSet<'a>,
    socket: SocketHandle,
}

impl<'a> Pinger<'a> {
    fn new(bench: &'a Bench, net: &'a mut NetDevice, storage: &'a mut Storage<'a>) -> Self {
        let config = Config::new(EthernetAddress(net.mac().0).into());
        let mut interface = Interface::new(config, net, instant(bench));
        interface.update_ip_addrs(|addresses| {
            // The list is empty and has room for more than one.
            let _ = addresses.push(IpCidr::new(GUEST.into(), 24));
        });
        let Storage {
            places,
            metadata: [received, sent],
            payload: [input, output],
        } = storage;
        let received = icmp::PacketBuffer::new(&mut received[..], &mut input[..]);
        let sent = icmp::PacketBuffer::new(&mut sent[..], &mut output[..]);
        let mut sockets = SocketSet::new(&mut places[..]);
        let socket = sockets.add(icmp::Socket::new(received, sent));
        Self {
            bench,
            net,
            interface,
            sockets,
            socket,
        }
    }

    /// Sends `length` bytes and waits until the same bytes come back.
    async fn ping(&mut self, number: u16, length: usize) -> Outcome {
        let payload: Vec<u8> = (0..length)
            .map(|place| (place as u8).wrapping_add(number as u8))
            .collect();
        self.send(number, &payload)?;
        let bench = self.bench;
        let answer = bench.patiently(self.receive(number)).await??;
        ensure!(answer == payload, "{length} bytes came back changed");
        Ok(())
    }

    fn send(&mut self, number: u16, payload: &[u8]) -> Outcome {
        let checksums = self.net.capabilities().checksum;
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.socket);
        if !socket.is_open() {
            socket.bind(icmp::Endpoint::Ident(IDENT))?;
        }
        let request = Icmpv4Repr::EchoRequest {
            ident: IDENT,
            seq_no: number,
            data: payload,
        };
        let bytes = socket.send(request.buffer_len(), IpAddress::Ipv4(GATEWAY))?;
        request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
        Ok(())
    }

    async fn receive(&mut self, number: u16) -> Result<Vec<u8>, Failure> {
        loop {
            let now = instant(self.bench);
            self.interface.poll(now, self.net, &mut self.sockets);
            let checksums = self.net.capabilities().checksum;
            let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.socket);
            while socket.can_recv() {
                let (bytes, from) = socket.recv()?;
                ensure_eq!(from, IpAddress::Ipv4(GATEWAY));
                let reply = Icmpv4Repr::parse(&Icmpv4Packet::new_checked(bytes)?, &checksums)?;
                match reply {
                    Icmpv4Repr::EchoReply { seq_no, data, .. } if seq_no == number => {
                        return Ok(data.to_vec());
                    }
                    _ => {}
                }
            }
            // The stack's own timers are far longer than this.
            let bench = self.bench;
            embassy_futures::select::select(
                self.net.wait(),
                bench.sleep(Duration::from_millis(100)),
            )
            .await;
        }
    }
}

fn instant(bench: &Bench) -> Instant {
    Instant::from_micros(i64::try_from(bench.now().as_micros()).unwrap_or(i64::MAX))
}
