//! Memory that firmware lets devices use (RMRR).

use iommu::Iommu;
use iommu::tables::DrhdFlags;
use vdpa::iotlb::IovaRange;
use vdpa::platform::{DomainChange, DomainError};

use crate::fake::{LEGACY, every_kind};
use crate::machine::{DEVICE, Machine, endpoint, fact, map, range};

const BUFFER: u64 = 0x7c00_0000;

#[test]
fn a_device_keeps_what_firmware_uses_before_in_and_after_a_domain() {
    for config in every_kind() {
        let mut machine = Machine::new(config);
        machine.reserve(BUFFER, BUFFER + 0x17ff, endpoint(1, &[0]));
        let vtd = machine.start();
        let fake = machine.fake();
        let reaches = || {
            assert_eq!(fake.write(DEVICE, BUFFER), Ok(BUFFER), "{config:?}");
            // Up to the end of the page.
            assert_eq!(fake.write(DEVICE, BUFFER + 0x1fff), Ok(BUFFER + 0x1fff));
            assert!(fake.write(DEVICE, BUFFER + 0x2000).is_err());
            assert!(fake.write(0x101, BUFFER).is_err());
        };
        reaches();
        for _ in 0..3 {
            let (_unit, domain) = machine.enter(&vtd, DEVICE);
            assert!(domain.reserved().contains(&range(BUFFER, 0x2000)));
            let over = domain.change(&[map(BUFFER, 0x1000, 0x7000)]);
            assert_eq!(over, Err(DomainError::OutOfResources));
            domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
            assert_eq!(fake.read(DEVICE, 0x1000), Ok(0x7000));
            reaches();
            // Whoever takes everything away has not mapped that.
            let all = DomainChange::Unmap(IovaRange::ALL);
            domain.change(&[all]).unwrap();
            assert!(fake.read(DEVICE, 0x1000).is_err());
            reaches();
            domain.change(&[map(0x1000, 0x1000, 0x7000)]).unwrap();
            assert_eq!(fact(&vtd, "mapped"), "12288 bytes");
            drop(domain);
            assert_eq!(fact(&vtd, "mapped"), "0 bytes");
            assert!(fake.read(DEVICE, 0x1000).is_err());
            reaches();
        }
    }
}

#[test]
fn ranges_that_share_a_page_are_both_reached() {
    let mut machine = Machine::new(LEGACY);
    machine.reserve(BUFFER, BUFFER + 0x3ff, endpoint(1, &[0]));
    machine.reserve(BUFFER + 0x400, BUFFER + 0x1fff, endpoint(1, &[0]));
    let _vtd = machine.start();
    assert_eq!(machine.fake().read(DEVICE, BUFFER), Ok(BUFFER));
    let last = BUFFER + 0x1fff;
    assert_eq!(machine.fake().read(DEVICE, last), Ok(last));
}

#[test]
fn a_device_behind_bridges_has_what_firmware_uses_once_it_is_known_where_it_is() {
    let mut machine = Machine::new(LEGACY);
    machine.reserve(BUFFER, BUFFER + 0xfff, endpoint(0, &[0x10, 0x08]));
    let vtd = machine.start();
    let unit = machine.unit_below(&[0x308], &[0x10]);
    assert!(machine.fake().read(0x308, BUFFER).is_err());
    drop(vtd.domain(&unit).unwrap());
    assert_eq!(machine.fake().read(0x308, BUFFER), Ok(BUFFER));
}

#[test]
fn a_range_is_that_of_the_unit_that_has_its_device() {
    let mut machine = Machine::new(LEGACY);
    machine.add_unit(LEGACY, DrhdFlags::empty(), vec![endpoint(1, &[0])]);
    machine.reserve(BUFFER, BUFFER + 0xfff, endpoint(1, &[0]));
    machine.reserve(BUFFER, BUFFER + 0xfff, endpoint(2, &[0]));
    let _units = [0, 1].map(|index| machine.try_start(index, iommu::vtd::ApicMode::XApic));
    let reads = |fake: usize, source| machine.fakes[fake].read(source, BUFFER).is_ok();
    assert!(reads(0, 0x100) && !reads(0, 0x200));
    assert!(reads(1, 0x200) && !reads(1, 0x100));
}
