//! A transport for the driver side of `virtio-drivers` that remembers where the driver has put its
//! ring, and can nothing else.

use virtio_drivers::PhysAddr;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtq::{DmaAddr, RingAddresses};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A transport with queues and nothing else.
#[derive(Default)]
pub struct FakeTransport {
    /// Where the driver has put the last queue that it made.
    pub addresses: Option<RingAddresses>,
}

impl Transport for FakeTransport {
    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        32768
    }

    fn queue_set(
        &mut self,
        _queue: u16,
        _size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.addresses = Some(RingAddresses {
            descriptor: DmaAddr(descriptors),
            driver: DmaAddr(driver_area),
            device: DmaAddr(device_area),
        });
    }

    fn queue_unset(&mut self, _queue: u16) {
        self.addresses = None;
    }

    fn queue_used(&mut self, _queue: u16) -> bool {
        self.addresses.is_some()
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        0
    }

    fn write_driver_features(&mut self, _features: u64) {}

    fn notify(&mut self, _queue: u16) {}

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }

    fn set_status(&mut self, _status: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(
        &self,
        _offset: usize,
    ) -> virtio_drivers::Result<T> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::ConfigSpaceMissing)
    }
}
