use iommu::tables::{TableError, Viot, ViotIommu};

use crate::builder::{
    hex, mmio_endpoint, pci_range, seal, structure, table, viot, viot_mmio, viot_pci,
};

/// What QEMU 7.2 makes of `-machine q35 -device virtio-iommu-pci,addr=5` and a second root bus.
pub const QEMU: &str = "
    56494f54700000000064424f4348532042585043202020200100000042585043
    0100000003003000000000000000000003001000000028000000000000000000
    0100180000000000000000000000ff0030000000000000000100180000800000
    000000000080ff813000000000000000
";

#[test]
fn the_table_of_qemu_is_read() {
    let table = Viot::parse(&hex(QEMU)).unwrap();
    assert_eq!(table.iommus, [ViotIommu::Pci(0x28)]);
    let [first, second] = &table.pci_ranges[..] else {
        panic!("{table:?}")
    };
    assert_eq!(first.iommu, ViotIommu::Pci(0x28));
    assert_eq!(first.endpoint(0x28), Some(0x28));
    assert_eq!(first.endpoint(0x100), None);
    assert_eq!(second.functions, 0x8000..=0x81ff);
    assert_eq!(second.endpoint(0x8100), Some(0x8100));
}

#[test]
fn endpoints_count_through_the_segments() {
    let nodes = [
        pci_range(0x5_0000, [1, 3], [0x0800, 0x08ff], 88),
        viot_pci(0, 0x28),
        viot_mmio(0xfeb0_0000),
        mmio_endpoint(0x1000, 0xfeb1_0000, 72),
    ];
    let table = Viot::parse(&viot(&nodes)).unwrap();
    assert_eq!(
        table.iommus,
        [ViotIommu::Pci(0x28), ViotIommu::Mmio(0xfeb0_0000)]
    );
    let range = &table.pci_ranges[0];
    assert_eq!(range.iommu, ViotIommu::Mmio(0xfeb0_0000));
    assert_eq!(range.endpoint(0x1_0800), Some(0x5_0000));
    assert_eq!(range.endpoint(0x3_08ff), Some(0x7_00ff));
    assert_eq!(range.endpoint(0x3_0900), None);
    assert_eq!(range.endpoint(0x0_0800), None);
    assert_eq!(range.endpoint(0x4_0800), None);
    let device = table.mmio_endpoints[0];
    assert_eq!((device.endpoint, device.base), (0x1000, 0xfeb1_0000));
    assert_eq!(device.iommu, ViotIommu::Pci(0x28));
}

#[test]
fn what_is_new_is_skipped() {
    let nodes = [structure([9, 0], &[&[0; 12]]), viot_pci(1, 8)];
    let table = Viot::parse(&viot(&nodes)).unwrap();
    assert_eq!(table.iommus, [ViotIommu::Pci(0x1_0008)]);
}

#[test]
fn a_damaged_part_is_an_error_of_the_whole() {
    let parse = |nodes: &[Vec<u8>]| Viot::parse(&viot(nodes)).unwrap_err();
    let range = |endpoint, functions, output| pci_range(endpoint, [0, 0], functions, output);
    let cases = [
        // The output is no node, no IOMMU, or in the middle of one.
        (
            vec![viot_pci(0, 8), range(0, [0, 9], 0)],
            TableError::Reference(64),
        ),
        (
            vec![viot_pci(0, 8), range(0, [0, 9], 64)],
            TableError::Reference(64),
        ),
        (
            vec![viot_pci(0, 8), range(0, [0, 9], 49)],
            TableError::Reference(64),
        ),
        (
            vec![viot_pci(0, 8), mmio_endpoint(0, 9, 200)],
            TableError::Reference(64),
        ),
        (
            vec![viot_pci(0, 8), range(0, [9, 8], 48)],
            TableError::Range(64),
        ),
        (
            vec![viot_pci(0, 8), pci_range(0, [1, 0], [0, 9], 48)],
            TableError::Range(64),
        ),
        (
            vec![viot_pci(0, 8), range(u32::MAX, [0, 1], 48)],
            TableError::Range(64),
        ),
        // One endpoint cannot be two devices.
        (
            vec![
                viot_pci(0, 8),
                range(0, [0, 9], 48),
                range(9, [0x10, 0x19], 48),
            ],
            TableError::Duplicate,
        ),
        (
            vec![
                viot_pci(0, 8),
                range(0, [0, 9], 48),
                mmio_endpoint(4, 0x1000, 48),
            ],
            TableError::Duplicate,
        ),
        (vec![viot_pci(0, 8), viot_pci(0, 8)], TableError::Duplicate),
        (vec![vec![3, 0, 0, 0]], TableError::Structure(48)),
        (vec![vec![3, 0, 40, 0]], TableError::Structure(48)),
        (vec![vec![3, 0, 5, 0, 0]], TableError::Structure(48)),
    ];
    for (nodes, error) in cases {
        assert_eq!(parse(&nodes), error, "{nodes:x?}");
    }
    // The same endpoints of two IOMMUs are two.
    let nodes = [
        viot_pci(0, 8),
        viot_mmio(0x1000),
        range(0, [0, 9], 48),
        range(0, [0x10, 0x19], 64),
    ];
    assert_eq!(Viot::parse(&viot(&nodes)).unwrap().pci_ranges.len(), 2);
}

#[test]
fn the_count_and_the_offset_of_the_nodes_are_checked() {
    let mut bytes = viot(&[viot_pci(0, 8)]);
    bytes[36] = 2;
    seal(&mut bytes);
    assert_eq!(Viot::parse(&bytes), Err(TableError::Length));
    bytes[36] = 0;
    seal(&mut bytes);
    assert!(Viot::parse(&bytes).unwrap().iommus.is_empty());
    for offset in [0, 47] {
        bytes[38] = offset;
        seal(&mut bytes);
        let error = TableError::Structure(offset.into());
        assert_eq!(Viot::parse(&bytes), Err(error));
    }
    bytes[38] = 200;
    seal(&mut bytes);
    assert_eq!(Viot::parse(&bytes), Err(TableError::Structure(0)));
    assert_eq!(
        Viot::parse(&table(b"VIOT", &[])),
        Err(TableError::Structure(0))
    );
}
