//! No bytes make a parser panic, and what is built is read back.

use iommu::tables::{Dmar, Ivrs, Viot, ViotIommu};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::builder::{
    Where, dmar, drhd, hex, ivhd, ivrs, long, pci_range, scope, seal, short, table, viot, viot_mmio,
};
use crate::programs::iommu_tables;

fn signature() -> impl Strategy<Value = &'static [u8; 4]> {
    prop_oneof![Just(b"DMAR"), Just(b"IVRS"), Just(b"VIOT")]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(signature in signature(), body in vec(any::<u8>(), 0..400)) {
        iommu_tables(&body);
        iommu_tables(&table(signature, &body));
    }

    #[test]
    fn no_damage_panics(
        which in 0..3_usize,
        damage in vec((36..200_usize, any::<u8>()), 1..4),
        cut in 0..40_usize,
    ) {
        let dumps = [super::dmar::QEMU, super::ivrs::QEMU, super::viot::QEMU];
        let mut bytes = hex(dumps[which]);
        bytes.truncate(bytes.len() - cut);
        let length = bytes.len();
        for (at, byte) in damage {
            bytes[at.min(length - 1)] = byte;
        }
        seal(&mut bytes);
        iommu_tables(&bytes);
    }

    #[test]
    fn a_built_dmar_is_read_back(
        units in vec(
            (any::<u16>(), vec((0..=255_u8, vec((0..32_u8, 0..8_u8), 1..5)), 0..5)),
            0..20,
        ),
    ) {
        let path = |steps: &[(u8, u8)]| -> Vec<[u8; 2]> {
            steps.iter().map(|(device, function)| [*device, *function]).collect()
        };
        let structures: Vec<_> = units
            .iter()
            .zip(1..)
            .map(|((segment, scopes), number)| {
                let scopes: Vec<_> = scopes
                    .iter()
                    .map(|(bus, steps)| scope(2, 0, *bus, &path(steps)))
                    .collect();
                drhd(0, *segment, number << 12, &scopes)
            })
            .collect();
        let table = Dmar::parse(&dmar(39, 0, &structures)).unwrap();
        prop_assert_eq!(table.units.len(), units.len());
        for (drhd, (segment, scopes)) in table.units.iter().zip(&units) {
            prop_assert_eq!(drhd.segment, *segment);
            let read: Vec<_> = drhd
                .scopes
                .iter()
                .map(|scope| {
                    let steps = scope.path.iter().map(|step| (step >> 3, step & 7));
                    (scope.start_bus, steps.collect::<Vec<_>>())
                })
                .collect();
            prop_assert_eq!(&read, scopes);
        }
    }

    #[test]
    fn a_built_ivrs_is_read_back(
        ranges in vec((any::<u16>(), any::<u16>(), any::<Option<u16>>()), 0..40),
    ) {
        let entries: Vec<_> = ranges
            .iter()
            .flat_map(|(a, b, alias)| {
                let start = match alias.map(u16::to_le_bytes) {
                    None => short(3, *a.min(b), 0),
                    Some([low, high]) => long(0x43, *a.min(b), 0, [0, low, high, 0]),
                };
                [start, short(4, *a.max(b), 0)]
            })
            .collect();
        let place = Where { device: 2, segment: 0, base: 0x4000 };
        let table = Ivrs::parse(&ivrs(&[ivhd(0x11, 0, place, &entries)])).unwrap();
        let read: Vec<_> = table.units[0]
            .devices
            .iter()
            .map(|entry| (*entry.devices.start(), *entry.devices.end(), entry.alias))
            .collect();
        let built: Vec<_> =
            ranges.iter().map(|(a, b, alias)| (*a.min(b), *a.max(b), *alias)).collect();
        prop_assert_eq!(read, built);
    }

    #[test]
    fn a_built_viot_is_read_back(counts in vec((0..4_u16, 0..64_u16), 0..20)) {
        let mut nodes = vec![viot_mmio(0x1000)];
        let mut endpoint = 0;
        for (segments, functions) in &counts {
            nodes.push(pci_range(endpoint, [7, 7 + segments], [9, 9 + functions], 48));
            endpoint += (u32::from(*segments) << 16 | u32::from(*functions)) + 1;
        }
        let table = Viot::parse(&viot(&nodes)).unwrap();
        let mut endpoint = 0;
        for (range, (segments, functions)) in table.pci_ranges.iter().zip(&counts) {
            prop_assert_eq!(range.iommu, ViotIommu::Mmio(0x1000));
            prop_assert_eq!(range.endpoint(0x7_0009), Some(endpoint));
            endpoint += u32::from(*segments) << 16 | u32::from(*functions);
            let last = u32::from(7 + segments) << 16 | u32::from(9 + functions);
            prop_assert_eq!(range.endpoint(last), Some(endpoint));
            endpoint += 1;
        }
        prop_assert_eq!(table.pci_ranges.len(), counts.len());
    }
}
