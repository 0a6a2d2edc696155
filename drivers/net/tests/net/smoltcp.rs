//! The interface as a device of `smoltcp`: a ping to a host that the test plays.

use std::pin::pin;
use std::task::Poll;

use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::phy::Device;
use smoltcp::socket::icmp;
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr,
};
use virtio::net::F;

use crate::common::with_alarm;
use crate::fixture::{MAC, Net, PLAIN, Setup, TX, frame};

const HERE: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const HOST_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);

#[test]
fn a_ping_is_answered() {
    for features in [F::empty(), F::MRG_RXBUF | F::CSUM | F::GUEST_CSUM] {
        let mut net = Setup::with(features).start();
        let config = Config::new(EthernetAddress(MAC).into());
        let mut stack = Interface::new(config, &mut net.interface, Instant::ZERO);
        stack.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(HERE.into(), 24)).unwrap();
        });
        let mut storage = [SocketStorage::EMPTY];
        let mut sockets = SocketSet::new(&mut storage[..]);
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY], vec![0; 256]);
        let handle = sockets.add(icmp::Socket::new(buffer(), buffer()));
        let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
        socket.bind(icmp::Endpoint::Ident(7)).unwrap();
        let request = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 1,
            data: b"ringway",
        };
        let payload = socket.send(request.buffer_len(), HOST.into()).unwrap();
        request.emit(
            &mut Icmpv4Packet::new_unchecked(payload),
            &ChecksumCapabilities::default(),
        );

        for step in 0..6 {
            stack.poll(
                Instant::from_millis(step * 10),
                &mut net.interface,
                &mut sockets,
            );
            host(&net);
        }
        let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
        let (reply, from) = socket.recv().expect("the host has answered");
        assert_eq!(from, IpAddress::from(HOST));
        let reply = Icmpv4Packet::new_checked(reply).unwrap();
        let reply = Icmpv4Repr::parse(&reply, &ChecksumCapabilities::default()).unwrap();
        let expected = Icmpv4Repr::EchoReply {
            ident: 7,
            seq_no: 1,
            data: b"ringway",
        };
        assert_eq!(reply, expected);
    }
}

#[test]
fn each_frame_is_given_to_the_device_at_once() {
    let mut net = Setup::default().start();
    let token = Device::transmit(&mut net.interface, Instant::ZERO).unwrap();
    smoltcp::phy::TxToken::consume(token, 60, |buffer| buffer.copy_from_slice(&frame(1, 60)));
    assert_eq!(net.world.parent.kick(TX).count(), 1);
    assert_eq!(net.sent().unwrap().1, frame(1, 60));
}

#[test]
fn the_program_can_sleep_until_there_is_something_to_do() {
    let mut net = Setup::default().start();
    {
        let Net {
            interface,
            world,
            alarm,
            ..
        } = &mut net;
        let mut wait = pin!(interface.wait());
        with_alarm(alarm, |cx| {
            assert_eq!(wait.as_mut().poll(cx), Poll::Pending);
        });
        let request = world.parent.pop(crate::fixture::RX).unwrap();
        let bytes = [&PLAIN[..], &frame(1, 60)].concat();
        world.parent.complete(crate::fixture::RX, &request, &bytes);
        assert_eq!(alarm.count(), 1);
        with_alarm(alarm, |cx| {
            assert_eq!(wait.as_mut().poll(cx), Poll::Ready(()));
        });
    }
    assert_eq!(net.receive(), Some(frame(1, 60)));

    let Net {
        interface,
        world,
        alarm,
        ..
    } = &mut net;
    let mut wait = pin!(interface.wait());
    with_alarm(alarm, |cx| {
        assert_eq!(wait.as_mut().poll(cx), Poll::Pending);
    });
    world.parent.change_config(6, &[0, 0]);
    world.platform.run_until_stalled();
    with_alarm(alarm, |cx| {
        assert_eq!(wait.as_mut().poll(cx), Poll::Ready(()));
    });
}

/// Answers every ARP and ICMP echo request that the interface has sent.
fn host(net: &Net) {
    while let Some((_, sent)) = net.sent() {
        let received = EthernetFrame::new_checked(&sent[..]).unwrap();
        let reply = match received.ethertype() {
            EthernetProtocol::Arp => arp_reply(received.payload()),
            EthernetProtocol::Ipv4 => echo_reply(received.payload()),
            other => panic!("unexpected {other}"),
        };
        net.deliver(PLAIN, &reply);
    }
}

fn ethernet(ethertype: EthernetProtocol, payload_len: usize) -> Vec<u8> {
    let repr = EthernetRepr {
        src_addr: HOST_MAC,
        dst_addr: EthernetAddress(MAC),
        ethertype,
    };
    let mut bytes = vec![0; repr.buffer_len() + payload_len];
    repr.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    bytes
}

fn arp_reply(request: &[u8]) -> Vec<u8> {
    let request = ArpPacket::new_checked(request).unwrap();
    assert_eq!(request.operation(), ArpOperation::Request);
    assert_eq!(request.target_protocol_addr(), HOST.octets());
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: HOST_MAC,
        source_protocol_addr: HOST,
        target_hardware_addr: EthernetAddress(MAC),
        target_protocol_addr: HERE,
    };
    let mut bytes = ethernet(EthernetProtocol::Arp, reply.buffer_len());
    reply.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    bytes
}

fn echo_reply(request: &[u8]) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let request = Ipv4Packet::new_checked(request).unwrap();
    assert!(request.verify_checksum());
    let echo = Icmpv4Packet::new_checked(request.payload()).unwrap();
    let Icmpv4Repr::EchoRequest {
        ident,
        seq_no,
        data,
    } = Icmpv4Repr::parse(&echo, &checksums).unwrap()
    else {
        panic!("not an echo request");
    };
    let reply = Icmpv4Repr::EchoReply {
        ident,
        seq_no,
        data,
    };
    let ip = Ipv4Repr {
        src_addr: HOST,
        dst_addr: HERE,
        next_header: IpProtocol::Icmp,
        payload_len: reply.buffer_len(),
        hop_limit: 64,
    };
    let mut bytes = ethernet(EthernetProtocol::Ipv4, ip.buffer_len() + reply.buffer_len());
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &checksums);
    reply.emit(
        &mut Icmpv4Packet::new_unchecked(&mut bytes[34..]),
        &checksums,
    );
    bytes
}
