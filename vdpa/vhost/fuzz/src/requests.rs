//! What a hostile client asks for.

use std::sync::Arc;

use vdpa::Features;
use vdpa::iotlb::Permission;
use vdpa::ops::{DirtyLog, QueueAddress, QueueState};
use vhost_vdpa::{BackendFeatures, IotlbMessage, Request};
use virtio::DeviceStatus;
use virtq::{DeviceMemory, DmaAddr, Event, SharedMemory};

use super::input::Input;
use super::rings::{BASE, LEN, PAGE, PARTS, address};

pub fn request(input: &mut Input, event: &Arc<Event>) -> Request {
    let queue = queue(input);
    match input.below(34) {
        0 => Request::SetOwner,
        1 => Request::GetFeatures,
        2 => Request::SetFeatures(features(input)),
        3 => Request::GetBackendFeatures,
        4 => Request::SetBackendFeatures(BackendFeatures::from_bits_retain(
            u64::from(input.u16()) & 0x1ff,
        )),
        5 => Request::GetDeviceId,
        6 => Request::GetVendorId,
        7 => Request::GetStatus,
        8 => Request::SetStatus(status(input)),
        9 => Request::GetConfigSize,
        10 => Request::GetConfig {
            offset: small_or(input, 80),
            len: small_or(input, 80),
        },
        11 => Request::SetConfig {
            offset: small_or(input, 80),
            bytes: input.bytes(),
        },
        12 => Request::SetConfigCall(maybe(input, event)),
        13 => Request::GetVqsCount,
        14 => Request::GetVringNum,
        15 => Request::GetVringSize { queue },
        16 => Request::SetVringNum {
            queue,
            size: match input.below(4) {
                0 => input.u16(),
                shift => 4 << shift >> 1,
            },
        },
        17 => Request::SetVringAddr {
            queue,
            address: ring_address(input, queue),
        },
        18 => Request::GetVringBase { queue },
        19 => Request::SetVringBase {
            queue,
            state: state(input),
        },
        20 => Request::EnableVring { queue },
        21 => Request::DisableVring { queue },
        22 => Request::SetVringKick {
            queue,
            event: maybe(input, event),
        },
        23 => Request::SetVringCall {
            queue,
            event: maybe(input, event),
        },
        24 => Request::SetVringErr {
            queue,
            event: maybe(input, event),
        },
        25 => Request::GetVringGroup { queue },
        26 => Request::GetVringDescGroup { queue },
        27 => Request::SetGroupAsid {
            group: queue,
            asid: asid(input),
        },
        28 => Request::GetIovaRange,
        29 => Request::Suspend,
        30 => Request::Resume,
        31 => Request::StartLog(log(input)),
        32 => Request::StopLog,
        _ => Request::GetAsNum,
    }
}

/// In the client's memory, of which the rings are a part, or anywhere.
fn log(input: &mut Input) -> DirtyLog {
    let base = match input.below(4) {
        0 => DmaAddr(input.u64()),
        _ => DmaAddr(BASE + input.below(8) as u64 * PAGE),
    };
    let len = match input.below(4) {
        0 => input.u64(),
        _ => u64::from(input.u16()),
    };
    DirtyLog { base, len }
}

pub fn message(input: &mut Input, memory: &SharedMemory) -> IotlbMessage {
    let asid = asid(input);
    let page = input.below(8) as u64 * PAGE;
    let (iova, size) = match input.below(4) {
        0 => (input.u64(), input.u64()),
        1 => (address(input), u64::from(input.u16())),
        _ => (BASE + page, (input.below(4) as u64) * PAGE),
    };
    match input.below(8) {
        0..3 => IotlbMessage::Update {
            asid,
            iova,
            size,
            memory: open(memory),
            offset: match input.below(4) {
                0 => input.u64(),
                _ => page,
            },
            permission: Permission::from_bits_retain(input.byte() & 7),
        },
        3..6 => IotlbMessage::Invalidate { asid, iova, size },
        6 => IotlbMessage::BatchBegin { asid },
        _ => IotlbMessage::BatchEnd { asid },
    }
}

fn open(memory: &SharedMemory) -> DeviceMemory {
    DeviceMemory::open(memory).expect("no allocator has claimed it")
}

/// All of the client's memory at the place where its rings expect it.
pub fn whole(memory: &SharedMemory) -> IotlbMessage {
    IotlbMessage::Update {
        asid: 0,
        iova: BASE,
        size: LEN,
        memory: open(memory),
        offset: 0,
        permission: Permission::READ | Permission::WRITE,
    }
}

/// Where the rings of a queue lie in a client's memory.
pub fn place(queue: u16) -> QueueAddress {
    let part = |part: usize| DmaAddr(BASE + u64::from(queue) * PAGE + PARTS[part]);
    QueueAddress {
        descriptor: part(0),
        driver: part(1),
        device: part(2),
    }
}

pub fn features(input: &mut Input) -> Features {
    let needed = Features::from(virtio::F::VERSION_1 | virtio::F::ACCESS_PLATFORM);
    match input.below(8) {
        0 => Features::from_bits(u128::from(input.u64()) << input.below(65)),
        1 => needed | virtio::F::RING_PACKED.into(),
        2 => needed | (virtio::F::EVENT_IDX | virtio::F::INDIRECT_DESC).into(),
        3 => {
            let both = virtio::net::F::CTRL_VQ | virtio::net::F::MRG_RXBUF;
            needed | both.into()
        }
        _ => needed,
    }
}

fn status(input: &mut Input) -> DeviceStatus {
    let steps = [
        DeviceStatus::empty(),
        DeviceStatus::ACKNOWLEDGE,
        DeviceStatus::DRIVER,
        DeviceStatus::FEATURES_OK,
        DeviceStatus::DRIVER_OK,
    ];
    match input.below(8) {
        0 => DeviceStatus::from_bits_retain(input.byte()),
        upto => steps.into_iter().take(upto).collect(),
    }
}

fn state(input: &mut Input) -> QueueState {
    if input.flag() {
        QueueState::Split {
            avail_index: input.u16(),
        }
    } else {
        QueueState::Packed {
            avail_index: input.u16(),
            avail_wrap: input.flag(),
            used_index: input.u16(),
            used_wrap: input.flag(),
        }
    }
}

fn ring_address(input: &mut Input, queue: u16) -> QueueAddress {
    match input.below(4) {
        0 => QueueAddress {
            descriptor: DmaAddr(input.u64()),
            driver: DmaAddr(input.u64()),
            device: DmaAddr(input.u64()),
        },
        1 => QueueAddress {
            descriptor: DmaAddr(address(input) & !0xf),
            driver: DmaAddr(address(input) & !0xf),
            device: DmaAddr(address(input) & !0xf),
        },
        _ => place(queue),
    }
}

fn queue(input: &mut Input) -> u16 {
    match input.below(16) {
        0 => input.u16(),
        small => small as u16 % 4,
    }
}

fn asid(input: &mut Input) -> u16 {
    match input.below(16) {
        0 => input.u16(),
        small => (small as u16).saturating_sub(12),
    }
}

fn small_or(input: &mut Input, end: usize) -> u32 {
    match input.below(8) {
        0 => input.u32(),
        _ => input.below(end) as u32,
    }
}

fn maybe(input: &mut Input, event: &Arc<Event>) -> Option<Arc<Event>> {
    input.flag().then(|| Arc::clone(event))
}
