//! The interface as `embassy-net` sees it.
//!
//! Frames that the stack sends during one poll are given to the device together: `embassy-net` asks
//! for the link state at the end of each poll, and that is when the device is notified. It is
//! notified earlier when many frames have piled up and when the stack finds nothing to receive.

use core::task::Context;

use embassy_net_driver::{Capabilities, Checksum, Driver, HardwareAddress, LinkState};

use super::config::Link;
use super::device::NetDevice;
use super::header::ETHERNET_LEN;
use super::receive::RxToken;
use super::transmit::{Delivery, TxToken};

/// The largest IP MTU that `embassy-net-driver` allows.
const MTU_MAX: usize = 9216;

impl Driver for NetDevice {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(RxToken<'_>, TxToken<'_>)> {
        self.poll_receive(cx, Delivery::Batched)
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<TxToken<'_>> {
        self.poll_transmit(cx, Delivery::Batched)
    }

    fn link_state(&mut self, cx: &mut Context<'_>) -> LinkState {
        match self.poll_link(cx) {
            Link::Up => LinkState::Up,
            Link::Down => LinkState::Down,
        }
    }

    fn capabilities(&self) -> Capabilities {
        let offload = self.offload;
        let transport = match (offload.receive, offload.transmit) {
            (false, false) => Checksum::Both,
            (false, true) => Checksum::Rx,
            (true, false) => Checksum::Tx,
            (true, true) => Checksum::None,
        };
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = self.mtu().min(MTU_MAX) + ETHERNET_LEN;
        capabilities.checksum.tcp = transport;
        capabilities.checksum.udp = transport;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.mac().0)
    }
}
