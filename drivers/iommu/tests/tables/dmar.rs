use iommu::tables::{Dmar, DmarFlags, DrhdFlags, ScopeKind, TableError};

use crate::builder::{ats, dmar, drhd, hex, rmrr, scope, seal, structure, unit};

/// What QEMU 7.2 makes of `-machine q35 -device intel-iommu,intremap=on,device-iotlb=on,aw-bits=48`,
/// two root ports, a PCI bridge and a second root bus.
pub const QEMU: &str = "
    444d41529000000001b5424f4348532042585043202020200100000042585043
    010000002f010000000000000000000000005800000000000000d9fe00000000
    0308000000ff0000010800000000000002080000000001000208000000000200
    020800000000030001080000000004000108000000001f000108000000001f02
    0108000000001f030200080001000000
";

const ENDPOINT: u8 = 1;
const BRIDGE: u8 = 2;
const IO_APIC: u8 = 3;

/// Two sockets: each has a unit for what is below its root ports, the first one for the rest.
fn server() -> Vec<u8> {
    dmar(
        46,
        0b101,
        &[
            drhd(1, 0, 0xd0ff_c000, &[scope(IO_APIC, 8, 0xf0, &[[0x1f, 0]])]),
            drhd(
                0,
                0,
                0xe0ff_c000,
                &[
                    scope(BRIDGE, 0, 0x17, &[[0, 0]]),
                    scope(ENDPOINT, 0, 0x16, &[[5, 0]]),
                ],
            ),
            drhd(
                0,
                1,
                0xfbff_c000,
                &[scope(ENDPOINT, 0, 0, &[[2, 0], [3, 1]])],
            ),
            rmrr(
                0,
                0x6c5e_0000,
                0x6c60_ffff,
                &[scope(ENDPOINT, 0, 0, &[[0x14, 0]])],
            ),
            ats(2, 0, 0, &[scope(BRIDGE, 0, 0x17, &[[0, 0]])]),
            ats(5, 1, 1, &[scope(ENDPOINT, 0, 0x6a, &[[1, 0]])]),
            structure(
                [3, 0],
                &[
                    &[0; 4],
                    &0xe0ff_c000_u64.to_le_bytes(),
                    &1_u32.to_le_bytes(),
                ],
            ),
            structure([4, 0], &[&[0, 0, 0, 7], b"\\_SB.I2C0\0"]),
        ],
    )
}

#[test]
fn the_table_of_qemu_is_read() {
    let table = Dmar::parse(&hex(QEMU)).unwrap();
    assert_eq!(table.address_bits, 48);
    assert_eq!(table.flags, DmarFlags::INTR_REMAP);
    let [only] = &table.units[..] else {
        panic!("{table:?}")
    };
    assert_eq!(
        (only.base, only.size, only.segment),
        (0xfed9_0000, 0x1000, 0)
    );
    let io_apic = &only.scopes[0];
    assert_eq!(
        (io_apic.kind, io_apic.enumeration_id),
        (ScopeKind::IoApic, 0)
    );
    assert_eq!(io_apic.requester_id(), Some(0xff00));
    assert!(table.ats_ports[0].all_ports);
    // A device that is plugged into the root port later, and a slot of the root bus that was empty.
    assert!(only.covers(&unit(0x0100, &[0x0008])));
    assert!(!only.covers(&unit(0x0028, &[])));
}

#[test]
fn all_structures_of_a_server_are_read() {
    let table = Dmar::parse(&server()).unwrap();
    assert_eq!(table.address_bits, 46);
    assert!(table.flags.contains(DmarFlags::DMA_CTRL_PLATFORM_OPT_IN));
    let bases: Vec<_> = table.units.iter().map(|unit| unit.base).collect();
    assert_eq!(bases, [0xe0ff_c000, 0xfbff_c000, 0xd0ff_c000]);
    assert_eq!(table.units[2].flags, DrhdFlags::INCLUDE_PCI_ALL);
    assert_eq!(table.units[1].scopes[0].path, [0x10, 0x19]);
    assert_eq!(table.units[1].scopes[0].requester_id(), None);
    let reserved = &table.reserved[0];
    assert_eq!((reserved.base, reserved.limit), (0x6c5e_0000, 0x6c60_ffff));
    assert!(table.integrated[0].required);
    assert_eq!(table.affinities[0].proximity_domain, 1);
    assert_eq!(table.names[0].name, "\\_SB.I2C0");
    assert_eq!(table.names[0].device, 7);
}

/// Which of the server's units has the requests, in the order in which they are asked.
fn of(id: u32, bridges: &[u32]) -> Option<u64> {
    let table = Dmar::parse(&server()).unwrap();
    let unit = unit(id, bridges);
    let found = table.units.iter().find(|drhd| drhd.covers(&unit));
    found.map(|drhd| drhd.base)
}

#[test]
fn a_bridge_stands_for_what_is_below() {
    assert_eq!(of(0x1700, &[]), Some(0xe0ff_c000));
    assert_eq!(of(0x1800, &[0x1700]), Some(0xe0ff_c000));
    assert_eq!(of(0x1a42, &[0x1700, 0x1800, 0x1908]), Some(0xe0ff_c000));
    assert_eq!(of(0x1708, &[]), Some(0xd0ff_c000));
}

#[test]
fn an_endpoint_is_reached_on_its_whole_path_only() {
    const BELOW: u32 = 0x1_0010;
    assert_eq!(of(0x1628, &[]), Some(0xe0ff_c000));
    assert_eq!(of(0x1629, &[]), Some(0xd0ff_c000));
    // Bus 5 is whatever the bridge's bus was called.
    assert_eq!(of(0x1_0519, &[BELOW]), Some(0xfbff_c000));
    assert_eq!(of(0x1_0518, &[BELOW]), None);
    assert_eq!(of(BELOW, &[]), None);
    assert_eq!(of(0x1_0619, &[BELOW, 0x1_0519]), None);
    assert_eq!(of(0x1_0519, &[0x1_0018]), None);
    // The unit for the rest is one of its segment.
    assert_eq!(of(0x2_0000, &[]), None);
}

#[test]
fn reserved_memory_and_device_tlbs_are_for_their_devices() {
    let table = Dmar::parse(&server()).unwrap();
    assert!(table.reserved[0].covers(&unit(0xa0, &[])));
    assert!(!table.reserved[0].covers(&unit(0x1_00a0, &[])));
    assert!(table.ats_ports[0].covers(&unit(0x1800, &[0x1700])));
    assert!(!table.ats_ports[0].covers(&unit(0xa0, &[])));
    assert!(table.integrated[0].covers(&unit(0x1_6a08, &[])));
    let all = Dmar::parse(&hex(QEMU)).unwrap();
    assert!(all.ats_ports[0].covers(&unit(0x100, &[0x8])));
    assert!(!all.ats_ports[0].covers(&unit(0x8, &[])));
}

#[test]
fn what_is_new_is_skipped() {
    let future = structure([9, 0], &[&[1; 20]]);
    let scopes = [scope(77, 0, 0, &[]), scope(ENDPOINT, 0, 0, &[[1, 0]])];
    let unit = drhd(0, 0, 0xfed9_0000, &scopes);
    let table = Dmar::parse(&dmar(39, 0, &[future, unit])).unwrap();
    assert_eq!(table.units[0].scopes.len(), 1);
}

#[test]
fn a_damaged_part_is_an_error_of_the_whole() {
    let parse = |structures: &[Vec<u8>]| Dmar::parse(&dmar(39, 0, structures)).unwrap_err();
    let good = || drhd(0, 0, 0xfed9_0000, &[]);
    let scoped = |scope: Vec<u8>| drhd(0, 0, 0xfed9_0000, &[scope]);
    let cases = [
        (vec![good(), vec![0, 0, 0, 0]], TableError::Structure(64)),
        (vec![good(), vec![0, 0, 3, 0]], TableError::Structure(64)),
        (vec![good(), vec![0, 0, 200, 0]], TableError::Structure(64)),
        (vec![good(), vec![0]], TableError::Structure(64)),
        (
            vec![vec![0, 0, 8, 0, 0, 0, 0, 0]],
            TableError::Structure(48),
        ),
        (vec![drhd(0, 0, 0, &[])], TableError::Address(48)),
        (vec![drhd(0, 0, 0xfed9_0800, &[])], TableError::Address(48)),
        (
            vec![drhd(0, 0, 0xffff_ffff_ffff_f000, &[])],
            TableError::Address(48),
        ),
        (vec![good(), good()], TableError::Duplicate),
        (
            vec![drhd(1, 0, 0x1000, &[]), drhd(1, 0, 0x2000, &[])],
            TableError::Duplicate,
        ),
        (vec![rmrr(0, 0x2000, 0x1fff, &[])], TableError::Address(48)),
        (vec![rmrr(0, 0, 1 << 39, &[])], TableError::Address(48)),
        (vec![scoped(scope(1, 0, 0, &[]))], TableError::Path(64)),
        (
            vec![scoped(scope(1, 0, 0, &[[32, 0]]))],
            TableError::Path(64),
        ),
        (
            vec![scoped(scope(1, 0, 0, &[[0, 8]]))],
            TableError::Path(64),
        ),
        (
            vec![scoped(vec![1, 7, 0, 0, 0, 0, 1])],
            TableError::Path(64),
        ),
        (
            vec![scoped(vec![1, 0, 0, 0, 0, 0, 1, 0])],
            TableError::Structure(64),
        ),
        (
            vec![scoped(vec![1, 10, 0, 0, 0, 0, 1, 0])],
            TableError::Structure(64),
        ),
        (
            vec![structure([4, 0], &[&[0, 0, 0, 1], b"\\_SB"])],
            TableError::Structure(48),
        ),
    ];
    for (structures, error) in cases {
        assert_eq!(parse(&structures), error, "{structures:x?}");
    }
}

#[test]
fn a_wrong_header_is_named() {
    let good = server();
    assert_eq!(Dmar::parse(&[]), Err(TableError::Length));
    assert_eq!(Dmar::parse(&good[..40]), Err(TableError::Length));
    assert_eq!(
        Dmar::parse(&good[..good.len() - 1]),
        Err(TableError::Length)
    );
    // What follows the table is none of it.
    assert!(Dmar::parse(&[&good[..], &[1; 9]].concat()).is_ok());

    let mut other = good.clone();
    other[0] = b'E';
    assert_eq!(Dmar::parse(&other), Err(TableError::Signature));
    let mut flipped = good.clone();
    flipped[50] ^= 1;
    assert_eq!(Dmar::parse(&flipped), Err(TableError::Checksum));
    let mut short = good[..36].to_vec();
    seal(&mut short);
    assert!(matches!(Dmar::parse(&short), Err(TableError::Structure(0))));
    let mut huge = good;
    huge.resize(300 << 10, 0);
    seal(&mut huge);
    assert_eq!(Dmar::parse(&huge), Err(TableError::Length));
}
