//! The structures and messages against known bytes and numbers of `linux/vduse.h`, and back.
#![cfg(target_endian = "little")]

use proptest::prelude::*;
use vduse_protocol::{
    ApiVersion, ConfigError, ConfigUpdate, DecodeError, DeviceConfig, IotlbEntry, IovaInfo, KickFd,
    Message, Outcome, PackedState, Permission, ProtocolFeatures, QueueInfo, QueueSetup, RawState,
    Request, Response, UserMemory, ioctl,
};

#[test]
fn the_numbers_are_those_of_the_header() {
    let numbers = [
        (ioctl::GET_API_VERSION, 0x8008_8100_u32),
        (ioctl::SET_API_VERSION, 0x4008_8101),
        (ioctl::CREATE_DEV, 0x4150_8102),
        (ioctl::DESTROY_DEV, 0x4100_8103),
        (ioctl::GET_FEATURES, 0x8008_8104),
        (ioctl::SET_FEATURES, 0x4008_8105),
        (ioctl::IOTLB_GET_FD, 0xc020_8110),
        (ioctl::DEV_GET_FEATURES, 0x8008_8111),
        (ioctl::DEV_SET_CONFIG, 0x4008_8112),
        (ioctl::DEV_INJECT_CONFIG_IRQ, 0x0000_8113),
        (ioctl::VQ_SETUP, 0x4020_8114),
        (ioctl::VQ_GET_INFO, 0xc030_8115),
        (ioctl::VQ_SETUP_KICKFD, 0x4008_8116),
        (ioctl::VQ_INJECT_IRQ, 0x4004_8117),
        (ioctl::IOTLB_REG_UMEM, 0x4030_8118),
        (ioctl::IOTLB_DEREG_UMEM, 0x4030_8119),
        (ioctl::IOTLB_GET_INFO, 0xc030_811a),
        (ioctl::IOTLB_GET_FD2, 0xc050_811b),
        (ioctl::IOTLB_GET_FD2_LONG, 0xc058_811b),
    ];
    for (ours, theirs) in numbers {
        assert_eq!(ours, theirs, "{ours:#x} and {theirs:#x}");
    }
}

fn disk() -> DeviceConfig {
    DeviceConfig {
        name: "disk0".into(),
        vendor_id: 0x1af4,
        device_id: 2,
        features: 1 << 32 | 1 << 33,
        queues: 1,
        queue_align: 4096,
        groups: 1,
        address_spaces: 1,
        config: vec![0x11, 0x22, 0x33],
    }
}

#[test]
fn a_device_is_encoded_as_the_header_says() {
    let mut expected = vec![0; 336];
    expected[..5].copy_from_slice(b"disk0");
    expected[256..260].copy_from_slice(&[0xf4, 0x1a, 0, 0]);
    expected[260] = 2;
    expected[268] = 3;
    expected[272] = 1;
    expected[277] = 0x10;
    expected[332] = 3;
    expected.extend([0x11, 0x22, 0x33]);
    assert_eq!(disk().encode(ApiVersion::V0), expected);
    assert_eq!(DeviceConfig::decode(&expected, ApiVersion::V0), Ok(disk()));
    expected[280] = 1;
    expected[284] = 1;
    assert_eq!(disk().encode(ApiVersion::V1), expected);
    assert_eq!(DeviceConfig::decode(&expected, ApiVersion::V1), Ok(disk()));
    let old = DeviceConfig::decode(&expected, ApiVersion::V0);
    assert_eq!(old, Err(DecodeError::Reserved));
}

#[test]
fn a_device_that_is_cut_or_lies_about_its_configuration_is_refused() {
    let bytes = disk().encode(ApiVersion::V0);
    for len in 0..bytes.len() {
        let cut = DeviceConfig::decode(&bytes[..len], ApiVersion::V0);
        assert!(matches!(cut, Err(DecodeError::Length { .. })), "{len}");
    }
    let mut long = bytes.clone();
    long[332] = 200;
    let lie = DeviceConfig::decode(&long, ApiVersion::V0);
    let expected = DecodeError::Length {
        expected: 200,
        found: 3,
    };
    assert_eq!(lie, Err(expected));
    let mut nameless = bytes.clone();
    nameless[0] = 0;
    let nameless = DeviceConfig::decode(&nameless, ApiVersion::V0);
    assert_eq!(nameless, Err(DecodeError::Name));
    let mut endless = bytes;
    endless[..256].fill(b'x');
    let endless = DeviceConfig::decode(&endless, ApiVersion::V0);
    assert_eq!(endless, Err(DecodeError::Name));
}

#[test]
fn linux_makes_no_device_that_could_harm_its_driver() {
    let check = |version, change: fn(&mut DeviceConfig)| {
        let mut config = disk();
        change(&mut config);
        config.check(version)
    };
    let refused = |change, error| {
        assert_eq!(check(ApiVersion::V0, change), Err(error));
        assert_eq!(check(ApiVersion::V1, change), Err(error));
    };
    assert_eq!(check(ApiVersion::V0, |_| ()), Ok(()));
    assert_eq!(check(ApiVersion::V1, |_| ()), Ok(()));
    refused(|config| config.name.clear(), ConfigError::Name);
    refused(|config| config.name = "n".repeat(256), ConfigError::Name);
    refused(|config| config.groups = 0, ConfigError::Groups);
    refused(
        |config| config.address_spaces = 0x1_0000,
        ConfigError::Groups,
    );
    refused(|config| config.queue_align = 4097, ConfigError::QueueAlign);
    refused(
        |config| config.config = vec![0; 4097],
        ConfigError::ConfigSize,
    );
    refused(|config| config.queues = 0x1_0000, ConfigError::QueueCount);
    refused(|config| config.device_id = 3, ConfigError::DeviceType);
    refused(
        |config| config.features = 1 << 32,
        ConfigError::AccessPlatform,
    );
    refused(
        |config| config.features |= 1 << 11,
        ConfigError::WriteCacheSwitch,
    );
    refused(
        |config| {
            config.device_id = 1;
            config.features |= 1 << 17;
        },
        ConfigError::ControlQueue,
    );
    refused(
        |config| {
            config.device_id = 1;
            config.features = 1 << 33;
        },
        ConfigError::Legacy,
    );
    let groups = |config: &mut DeviceConfig| config.groups = 2;
    assert_eq!(check(ApiVersion::V0, groups), Err(ConfigError::Groups));
    assert_eq!(check(ApiVersion::V1, groups), Ok(()));
}

#[test]
fn protocol_features_that_nobody_knows_are_seen() {
    let both = ProtocolFeatures(3);
    assert!(
        both.contains(ProtocolFeatures::QUEUE_READY) && both.contains(ProtocolFeatures::SUSPEND)
    );
    assert!(both.are_known() && !ProtocolFeatures(4).are_known());
}

#[test]
fn requests_are_encoded_as_the_header_says() {
    let requests: [(Request, u8, &[u8]); 6] = [
        (Request::GetQueueState { queue: 0x0102 }, 0, &[2, 1]),
        (Request::SetStatus(0x0f), 1, &[0x0f]),
        (
            Request::UpdateIotlb {
                start: 0x1000,
                last: 0x1fff,
                address_space: 3,
            },
            2,
            &[0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x1f, 0, 0, 0, 0, 0, 0, 3],
        ),
        (
            Request::SetGroupAddressSpace {
                group: 1,
                address_space: 2,
            },
            3,
            &[1, 0, 0, 0, 2],
        ),
        (
            Request::SetQueueReady {
                queue: 7,
                ready: true,
            },
            4,
            &[7, 0, 0, 0, 1],
        ),
        (Request::Suspend, 5, &[]),
    ];
    for (request, kind, payload) in requests {
        let mut expected = [0; 152];
        expected[0] = kind;
        expected[4..8].copy_from_slice(&[4, 3, 2, 1]);
        expected[24..][..payload.len()].copy_from_slice(payload);
        let message = Message {
            id: 0x0102_0304,
            request,
        };
        assert_eq!(message.encode(), expected, "{request:?}");
        assert_eq!(Message::decode(&expected), Ok(message));
        for reserved in 8..24 {
            let mut wrong = expected;
            wrong[reserved] = 1;
            assert_eq!(Message::decode(&wrong), Err(DecodeError::Reserved));
        }
    }
    let mut unknown = [0; 152];
    unknown[0] = 6;
    assert_eq!(
        Message::decode(&unknown),
        Err(DecodeError::UnknownRequest(6))
    );
    let mut maybe = [0; 152];
    (maybe[0], maybe[28]) = (4, 2);
    assert_eq!(Message::decode(&maybe), Err(DecodeError::Value(2)));
}

#[test]
fn responses_are_encoded_as_the_header_says() {
    let packed = PackedState {
        avail_index: 0x0102,
        avail_wrap: true,
        used_index: 0x0304,
        used_wrap: false,
    };
    let response = Response {
        id: 9,
        outcome: Outcome::Failed,
        queue: 1,
        state: RawState::of_packed(packed),
    };
    let mut expected = [0; 152];
    (expected[0], expected[4], expected[24]) = (9, 1, 1);
    expected[28..36].copy_from_slice(&[1, 0, 2, 1, 0, 0, 4, 3]);
    assert_eq!(response.encode(), expected);
    let decoded = Response::decode(&expected).unwrap();
    assert_eq!(decoded, response);
    assert_eq!(decoded.state.packed(), packed);
    expected[4] = 2;
    assert_eq!(
        Response::decode(&expected),
        Err(DecodeError::UnknownResult(2))
    );
    (expected[4], expected[23]) = (0, 0x80);
    assert_eq!(Response::decode(&expected), Err(DecodeError::Reserved));
    let short = Response::decode(&expected[..151]);
    assert!(matches!(short, Err(DecodeError::Length { .. })));
}

#[test]
fn of_the_state_of_a_packed_queue_only_its_bits_are_taken() {
    let mut bytes = Response::new(0, Outcome::Done).encode();
    bytes[28..36].fill(0xff);
    let state = Response::decode(&bytes).unwrap().state.packed();
    assert_eq!((state.avail_index, state.used_index), (0x7fff, 0x7fff));
    assert!(state.avail_wrap && state.used_wrap);
    bytes[28] = 0xfe;
    assert!(!Response::decode(&bytes).unwrap().state.packed().avail_wrap);
    assert_eq!(RawState::of_split(0xfffe).split(), 0xfffe);
}

#[test]
fn a_queue_is_encoded_as_the_header_says() {
    let setup = QueueSetup {
        index: 1,
        size_max: 256,
        group: 2,
    };
    let mut expected = [0; 32];
    (expected[0], expected[5], expected[8]) = (1, 1, 2);
    assert_eq!(setup.encode(), expected);
    assert_eq!(QueueSetup::decode(&expected, ApiVersion::V1), Ok(setup));
    let old = QueueSetup::decode(&expected, ApiVersion::V0);
    assert_eq!(old, Err(DecodeError::Reserved));
    expected[6] = 1;
    let reserved = QueueSetup::decode(&expected, ApiVersion::V1);
    assert_eq!(reserved, Err(DecodeError::Reserved));

    let info = QueueInfo {
        index: 3,
        size: 128,
        descriptor: 0x1000,
        driver: 0x2000,
        device: 0x3000,
        state: RawState::of_split(5),
        ready: true,
    };
    let mut expected = [0; 48];
    (expected[0], expected[4]) = (3, 128);
    (expected[9], expected[17], expected[25]) = (0x10, 0x20, 0x30);
    (expected[32], expected[40]) = (5, 1);
    assert_eq!(info.encode(), expected);
    assert_eq!(QueueInfo::decode(&expected), Ok(info));
    expected[40] = 2;
    assert_eq!(QueueInfo::decode(&expected), Err(DecodeError::Value(2)));

    let fd = KickFd { index: 1, fd: None };
    assert_eq!(fd.encode(), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(KickFd::decode(&fd.encode()), Ok(fd));
    let wrong = KickFd::decode(&[1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(wrong, Err(DecodeError::Value(0xffff_fffe)));
}

#[test]
fn a_configuration_update_is_no_longer_than_it_says() {
    let update = ConfigUpdate {
        offset: 8,
        bytes: vec![1, 2],
    };
    let bytes = [8, 0, 0, 0, 2, 0, 0, 0, 1, 2];
    assert_eq!(update.encode(), bytes);
    assert_eq!(ConfigUpdate::decode(&bytes), Ok(update));
    for len in 0..bytes.len() {
        assert!(ConfigUpdate::decode(&bytes[..len]).is_err(), "{len}");
    }
}

#[test]
fn an_iotlb_entry_has_three_layouts() {
    let entry = IotlbEntry {
        offset: 0x10,
        start: 0x20,
        last: 0x2f,
        permission: Some(Permission::ReadWrite),
        address_space: 1,
    };
    for size in [80, 88] {
        let mut expected = vec![0; size];
        (expected[0], expected[8], expected[16]) = (0x10, 0x20, 0x2f);
        (expected[24], expected[32]) = (3, 1);
        assert_eq!(entry.encode(size).as_ref(), Some(&expected));
        assert_eq!(IotlbEntry::decode(&expected), Ok(entry));
        expected[size - 1] = 1;
        let reserved = IotlbEntry::decode(&expected);
        assert_eq!(reserved, Err(DecodeError::Reserved));
    }
    let old = entry.encode(32).unwrap();
    let without = IotlbEntry {
        address_space: 0,
        ..entry
    };
    assert_eq!(IotlbEntry::decode(&old), Ok(without));
    assert_eq!(entry.encode(81), None);
    let mut forbidden = old;
    forbidden[24] = 4;
    assert_eq!(IotlbEntry::decode(&forbidden), Err(DecodeError::Value(4)));
}

#[test]
fn user_memory_and_its_place_are_encoded_as_the_header_says() {
    let memory = UserMemory {
        address: 1,
        iova: 2,
        size: 3,
        address_space: 4,
    };
    let mut expected = [0; 48];
    (expected[0], expected[8], expected[16], expected[24]) = (1, 2, 3, 4);
    assert_eq!(memory.encode(), expected);
    assert_eq!(UserMemory::decode(&expected, ApiVersion::V1), Ok(memory));
    assert!(UserMemory::decode(&expected, ApiVersion::V0).is_err());
    let info = IovaInfo {
        start: 1,
        last: 2,
        takes_user_memory: true,
        address_space: 4,
    };
    expected[16] = 1;
    assert_eq!(info.encode(), expected);
    assert_eq!(IovaInfo::decode(&expected, ApiVersion::V1), Ok(info));
    assert!(IovaInfo::decode(&expected, ApiVersion::V0).is_err());
}

proptest! {
    /// Whatever arrives, it is refused or means one thing alone.
    #[test]
    fn what_is_decoded_is_what_was_encoded(mut bytes in proptest::collection::vec(any::<u8>(), 152), sane in any::<bool>()) {
        if sane {
            bytes[8..24].fill(0);
            bytes[0] %= 7;
            bytes[1..4].fill(0);
            bytes[4] %= 3;
            bytes[5..8].fill(0);
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        if let Ok(response) = Response::decode(&bytes) {
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }
        for len in [8, 32, 48, 80, 88] {
            let part = &bytes[..len];
            if let Ok(entry) = IotlbEntry::decode(part) {
                prop_assert_eq!(entry.encode(len).map(|bytes| IotlbEntry::decode(&bytes)), Some(Ok(entry)));
            }
            let _ = (QueueInfo::decode(part), KickFd::decode(part), ConfigUpdate::decode(part));
            for version in [ApiVersion::V0, ApiVersion::V1] {
                let _ = (QueueSetup::decode(part, version), UserMemory::decode(part, version));
                let _ = IovaInfo::decode(part, version);
            }
        }
    }
}
