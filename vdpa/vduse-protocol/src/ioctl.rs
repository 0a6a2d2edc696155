//! The numbers of the ioctls: those of `/dev/vduse/control`, and those of a device's file.
//!
//! A number holds the size of what its argument points to, in bits 16 to 29.

use crate::layout::{
    ConfigData, DevConfig, Entry, EntryV2, EntryV2Long, IovaInfoLayout, IovaUmem, VqConfig,
    VqEventfd, VqInfo,
};

/// `VDUSE_BASE`.
const BASE: u32 = 0x81;

/// Which way the argument goes, as seen from the program.
#[derive(Clone, Copy)]
enum Way {
    None = 0,
    Write = 1,
    Read = 2,
    Both = 3,
}

const fn number(way: Way, number: u32, size: usize) -> u32 {
    // The largest argument is one of 336 bytes.
    (way as u32) << 30 | (size as u32) << 16 | BASE << 8 | number
}

/// `VDUSE_GET_API_VERSION`: reads a `u64`.
pub const GET_API_VERSION: u32 = number(Way::Read, 0x00, size_of::<u64>());
/// `VDUSE_SET_API_VERSION`: writes a `u64`.
pub const SET_API_VERSION: u32 = number(Way::Write, 0x01, size_of::<u64>());
/// `VDUSE_CREATE_DEV`: writes a [`DeviceConfig`](crate::DeviceConfig).
pub const CREATE_DEV: u32 = number(Way::Write, 0x02, size_of::<DevConfig>());
/// `VDUSE_DESTROY_DEV`: writes a name of [`NAME_LEN`](crate::NAME_LEN) bytes.
pub const DESTROY_DEV: u32 = number(Way::Write, 0x03, crate::NAME_LEN);
/// `VDUSE_GET_FEATURES`: reads [`ProtocolFeatures`](crate::ProtocolFeatures).
pub const GET_FEATURES: u32 = number(Way::Read, 0x04, size_of::<u64>());
/// `VDUSE_SET_FEATURES`: writes [`ProtocolFeatures`](crate::ProtocolFeatures).
pub const SET_FEATURES: u32 = number(Way::Write, 0x05, size_of::<u64>());

/// `VDUSE_IOTLB_GET_FD`: writes and reads an [`IotlbEntry`](crate::IotlbEntry) without address
/// space.
pub const IOTLB_GET_FD: u32 = number(Way::Both, 0x10, size_of::<Entry>());
/// `VDUSE_DEV_GET_FEATURES`: reads a `u64`.
pub const DEV_GET_FEATURES: u32 = number(Way::Read, 0x11, size_of::<u64>());
/// `VDUSE_DEV_SET_CONFIG`: writes a [`ConfigUpdate`](crate::ConfigUpdate).
pub const DEV_SET_CONFIG: u32 = number(Way::Write, 0x12, size_of::<ConfigData>());
/// `VDUSE_DEV_INJECT_CONFIG_IRQ`: no argument.
pub const DEV_INJECT_CONFIG_IRQ: u32 = number(Way::None, 0x13, 0);
/// `VDUSE_VQ_SETUP`: writes a [`QueueSetup`](crate::QueueSetup).
pub const VQ_SETUP: u32 = number(Way::Write, 0x14, size_of::<VqConfig>());
/// `VDUSE_VQ_GET_INFO`: writes and reads a [`QueueInfo`](crate::QueueInfo).
pub const VQ_GET_INFO: u32 = number(Way::Both, 0x15, size_of::<VqInfo>());
/// `VDUSE_VQ_SETUP_KICKFD`: writes a [`KickFd`](crate::KickFd).
pub const VQ_SETUP_KICKFD: u32 = number(Way::Write, 0x16, size_of::<VqEventfd>());
/// `VDUSE_VQ_INJECT_IRQ`: writes the `u32` index of a queue.
pub const VQ_INJECT_IRQ: u32 = number(Way::Write, 0x17, size_of::<u32>());
/// `VDUSE_IOTLB_REG_UMEM`: writes a [`UserMemory`](crate::UserMemory).
pub const IOTLB_REG_UMEM: u32 = number(Way::Write, 0x18, size_of::<IovaUmem>());
/// `VDUSE_IOTLB_DEREG_UMEM`: writes a [`UserMemory`](crate::UserMemory).
pub const IOTLB_DEREG_UMEM: u32 = number(Way::Write, 0x19, size_of::<IovaUmem>());
/// `VDUSE_IOTLB_GET_INFO`: writes and reads an [`IovaInfo`](crate::IovaInfo).
pub const IOTLB_GET_INFO: u32 = number(Way::Both, 0x1a, size_of::<IovaInfoLayout>());
/// `VDUSE_IOTLB_GET_FD2`: writes and reads an [`IotlbEntry`](crate::IotlbEntry).
pub const IOTLB_GET_FD2: u32 = number(Way::Both, 0x1b, size_of::<EntryV2>());
/// The same in Linux 7.0, where the structure is longer.
pub const IOTLB_GET_FD2_LONG: u32 = number(Way::Both, 0x1b, size_of::<EntryV2Long>());
