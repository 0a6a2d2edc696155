use iommu::tables::{DteSettings, IvhdFlags, IvmdFlags, Ivrs, SpecialKind, TableError, Uid};

use crate::builder::{Where, hex, ivhd, ivmd, ivrs, long, short, structure, unit};

/// What QEMU 7.2 makes of `-machine q35 -device amd-iommu,intremap=on,device-iotlb=on`, a root
/// port, a PCI bridge with a device and a second root bus.
pub const QEMU: &str = "
    4956525384000000016d424f4348532042585043202020200100000042585043
    0100000000280000000000000000000010d15400080040000000d8fe00000000
    00000000440000000200000002080000021000000300010004ff010002180000
    430002000018000004ff02000220000002f8000002fa000002fb000048000000
    00a00001
";

const FIRST: Where = Where {
    device: 2,
    segment: 0,
    base: 0xb510_0000,
};
const SECOND: Where = Where {
    device: 0x2002,
    segment: 0,
    base: 0xb290_0000,
};

/// An I2C controller, as EPYC machines have it.
fn acpi_device(uid_format: u8, uid: &[u8]) -> Vec<u8> {
    let head = [&short(0xf0, 0x00a5, 0x40)[..], b"AMDI0020", &[0; 8]].concat();
    let length = u8::try_from(uid.len()).unwrap();
    [&head[..], &[uid_format, length], uid].concat()
}

fn first_devices() -> Vec<Vec<u8>> {
    vec![
        short(3, 0x0008, 0),
        short(4, 0x1ffe, 0),
        long(0x43, 0xff00, 0, [0, 0xa5, 0, 0]),
        short(4, 0xffff, 0),
        short(0, 0, 0),
        long(0x40, 0, 0, [0; 4]),
        long(0x46, 0x0100, 0x80, 0x8000_0000_u32.to_le_bytes()),
        long(0x48, 0, 0xd7, [0x80, 0xa0, 0, 1]),
        long(0x48, 0, 0, [0, 0xa0, 0, 2]),
    ]
}

/// Two IOMMUs, each described three times.
fn server() -> Vec<u8> {
    let second = || vec![short(3, 0x2008, 0), short(4, 0x3ffe, 0)];
    let newest = [first_devices(), vec![acpi_device(2, b"\\_SB.I2CA")]].concat();
    ivrs(&[
        ivhd(0x10, 0x30, FIRST, &first_devices()),
        ivhd(0x10, 0x30, SECOND, &second()),
        ivhd(0x11, 0x30, FIRST, &first_devices()),
        ivhd(0x11, 0x30, SECOND, &second()),
        ivhd(0x40, 0xb0, FIRST, &newest),
        ivhd(0x40, 0xb0, SECOND, &second()),
        ivmd(0x22, 0b111, [0x0100, 0x01ff], 0x7700_0000, 0x10_0000),
        ivmd(0x21, 0b1000, [0x0200, 0], 0x7800_0000, 0x1000),
        ivmd(0x20, 0b101, [0, 0], 0x7900_0000, 0x1000),
    ])
}

#[test]
fn the_table_of_qemu_is_read() {
    let table = Ivrs::parse(&hex(QEMU)).unwrap();
    assert_eq!(table.virtual_bits(), None);
    assert_eq!(table.info, 0x2800);
    let [only] = &table.units[..] else {
        panic!("{table:?}")
    };
    assert_eq!((only.device_id, only.capability), (0x08, 0x40));
    assert_eq!(only.base, 0xfed8_0000);
    assert_eq!(
        only.flags,
        IvhdFlags::PPR | IvhdFlags::PREFETCH | IvhdFlags::IOTLB | IvhdFlags::HT_TUNNEL
    );
    assert_eq!(only.features, None);
    let behind_bridge = only.device(0x0208).unwrap();
    assert_eq!(behind_bridge.devices, 0x200..=0x2ff);
    assert_eq!(behind_bridge.alias, Some(0x18));
    assert_eq!(only.special[0].kind, SpecialKind::IoApic);
    assert_eq!(only.special[0].device, 0xa0);
    assert!(only.covers(&unit(0xfb, &[])));
    assert!(!only.covers(&unit(0xfc, &[])));
    assert!(!only.covers(&unit(0x1_00fb, &[])));
}

#[test]
fn the_newest_description_of_each_iommu_counts() {
    let table = Ivrs::parse(&server()).unwrap();
    assert_eq!(table.virtual_bits(), Some(64));
    let [first, second] = &table.units[..] else {
        panic!("{table:?}")
    };
    assert_eq!((first.base, second.base), (FIRST.base, SECOND.base));
    assert!(first.flags.contains(IvhdFlags::PPR));
    assert_eq!(first.features, Some([0x2229_4ada, 1]));
    assert_eq!(first.acpi[0].device, 0xa5);
    assert_eq!(&first.acpi[0].hardware_id, b"AMDI0020");
    assert_eq!(first.acpi[0].unique_id, Uid::Text(b"\\_SB.I2CA".to_vec()));
    assert!(second.acpi.is_empty());

    let mut old = ivrs(&[ivhd(0x10, 0, FIRST, &first_devices())]);
    assert!(Ivrs::parse(&old).unwrap().units[0].features.is_none());
    old = ivrs(&[
        ivhd(0x11, 1, FIRST, &first_devices()),
        ivhd(0x10, 0, FIRST, &first_devices()),
    ]);
    assert!(Ivrs::parse(&old).unwrap().units[0].features.is_some());
}

#[test]
fn entries_say_what_applies_to_which_devices() {
    let table = Ivrs::parse(&server()).unwrap();
    let first = &table.units[0];
    assert_eq!(first.device(7), None);
    assert_eq!(first.device(8).unwrap().alias, None);
    assert_eq!(first.device(0xff12).unwrap().alias, Some(0xa5));
    // The later entry of a device counts.
    let one = first.device(0x0100).unwrap();
    assert!(one.ats_disabled);
    assert_eq!(one.settings, DteSettings::LINT1);
    assert_eq!(first.special[0].handle, 0x80);
    assert_eq!(first.special[0].settings.bits(), 0xd7);
    assert_eq!(first.special[1].kind, SpecialKind::Hpet);
}

#[test]
fn an_iommu_of_all_devices_covers_all_of_its_segment() {
    let place = Where {
        segment: 3,
        ..FIRST
    };
    let table = Ivrs::parse(&ivrs(&[ivhd(0x11, 0, place, &[short(1, 0, 0x80)])])).unwrap();
    assert!(table.units[0].covers(&unit(0x3_ffff, &[])));
    assert!(!table.units[0].covers(&unit(0xffff, &[])));
}

#[test]
fn memory_is_for_one_some_or_all_devices() {
    let table = Ivrs::parse(&server()).unwrap();
    let [some, one, all] = &table.memory[..] else {
        panic!("{table:?}")
    };
    assert_eq!(some.devices, 0x100..=0x1ff);
    assert_eq!(
        some.flags,
        IvmdFlags::UNITY | IvmdFlags::READ | IvmdFlags::WRITE
    );
    assert_eq!((some.start, some.length), (0x7700_0000, 0x10_0000));
    assert_eq!(one.devices, 0x200..=0x200);
    assert_eq!(one.flags, IvmdFlags::EXCLUSION);
    assert!(all.covers(&unit(0xffff, &[])));
    assert!(!some.covers(&unit(0x1_0100, &[])));
}

#[test]
fn the_unique_id_of_a_device_is_a_number_text_or_nothing() {
    let parse = |device: Vec<u8>| {
        let table = Ivrs::parse(&ivrs(&[ivhd(0x40, 0, FIRST, &[device])]))?;
        Ok::<_, TableError>(table.units[0].acpi[0].unique_id.clone())
    };
    assert_eq!(parse(acpi_device(0, &[])), Ok(Uid::None));
    assert_eq!(
        parse(acpi_device(1, &5_u64.to_le_bytes())),
        Ok(Uid::Number(5))
    );
    assert_eq!(parse(acpi_device(1, &[5])), Err(TableError::Structure(88)));
    assert_eq!(parse(acpi_device(9, &[])), Err(TableError::Structure(88)));
}

#[test]
fn what_is_new_is_skipped() {
    let entries = [
        [&[0x90][..], &[7; 15]].concat(),
        [&[0xc1][..], &[7; 31]].concat(),
        long(0x48, 0, 0, [0, 1, 2, 77]),
        short(2, 0x10, 0),
    ];
    let future = structure([0x50, 0], &[&[0; 40]]);
    let table = Ivrs::parse(&ivrs(&[future, ivhd(0x40, 0, FIRST, &entries)])).unwrap();
    assert_eq!(table.units[0].devices.len(), 1);
    assert!(table.units[0].special.is_empty());
}

#[test]
fn a_damaged_part_is_an_error_of_the_whole() {
    let parse = |structures: &[Vec<u8>]| Ivrs::parse(&ivrs(structures)).unwrap_err();
    // The first entry is behind the table's and the structure's header.
    const ENTRY: usize = 48 + 24;
    let with = |entries: &[Vec<u8>]| vec![ivhd(0x10, 0, FIRST, entries)];
    let elsewhere = Where {
        base: 0xb500_0000,
        ..FIRST
    };
    let cases = [
        (with(&[vec![2, 0]]), TableError::Structure(ENTRY)),
        (with(&[vec![0x42, 0, 0, 0]]), TableError::Structure(ENTRY)),
        (with(&[vec![0xf1; 40]]), TableError::Structure(ENTRY)),
        (with(&[vec![0xf0; 21]]), TableError::Structure(ENTRY)),
        (with(&[short(3, 8, 0)]), TableError::Range(ENTRY)),
        (with(&[short(4, 8, 0)]), TableError::Range(ENTRY)),
        (
            with(&[short(3, 8, 0), short(4, 7, 0)]),
            TableError::Range(ENTRY),
        ),
        (
            with(&[short(3, 8, 0), short(2, 9, 0), short(4, 10, 0)]),
            TableError::Range(ENTRY),
        ),
        (
            vec![ivhd(0x10, 0, Where { base: 0, ..FIRST }, &[])],
            TableError::Address(48),
        ),
        (
            vec![ivhd(
                0x10,
                0,
                Where {
                    base: 0x1000,
                    ..FIRST
                },
                &[],
            )],
            TableError::Address(48),
        ),
        (
            vec![ivhd(0x10, 0, FIRST, &[]), ivhd(0x10, 0, elsewhere, &[])],
            TableError::Duplicate,
        ),
        (
            vec![
                ivhd(0x10, 0, FIRST, &[]),
                ivhd(0x11, 0, Where { device: 9, ..FIRST }, &[]),
            ],
            TableError::Duplicate,
        ),
        (
            vec![structure([0x11, 0], &[&[0; 20]])],
            TableError::Structure(48),
        ),
        (
            vec![ivmd(0x22, 1, [5, 4], 0x1000, 0x1000)],
            TableError::Range(48),
        ),
        (
            vec![ivmd(0x20, 1, [0, 0], 0x1000, 0)],
            TableError::Address(48),
        ),
        (
            vec![ivmd(0x20, 1, [0, 0], u64::MAX, 2)],
            TableError::Address(48),
        ),
        (
            vec![structure([0x20, 1], &[&[0; 20]])],
            TableError::Structure(48),
        ),
    ];
    for (structures, error) in cases {
        assert_eq!(parse(&structures), error, "{structures:x?}");
    }
}
