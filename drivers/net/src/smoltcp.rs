//! The interface as `smoltcp` sees it, for programs that poll the stack themselves.
//!
//! The stack tells no end of a burst, so each frame is given to the device at once; whether the
//! device is notified is up to the device. [`NetDevice::wait`] sleeps until there is a reason to
//! poll.

use core::task::{Context, Waker};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use super::device::NetDevice;
use super::header::ETHERNET_LEN;
use super::receive::RxToken;
use super::transmit::{Delivery, TxToken};

impl Device for NetDevice {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        self.poll_receive(&mut Context::from_waker(Waker::noop()), Delivery::Immediate)
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        self.poll_transmit(&mut Context::from_waker(Waker::noop()), Delivery::Immediate)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let offload = self.offload;
        let transport = match (offload.receive, offload.transmit) {
            (false, false) => Checksum::Both,
            (false, true) => Checksum::Rx,
            (true, false) => Checksum::Tx,
            (true, true) => Checksum::None,
        };
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu() + ETHERNET_LEN;
        capabilities.checksum.tcp = transport;
        capabilities.checksum.udp = transport;
        capabilities
    }
}
