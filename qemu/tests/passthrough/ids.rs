//! The host knows which functions the guest takes: its table is held against those of the drivers.

use pci::{Identity, PciDevice};
use qemu::passthrough::ids::{GuestDriver, Ids, Kind};
use vdpa::bus::Driver;
use vdpa::device::VdpaBus;
use vdpa::testing::FakePlatform;
use virtio_pci::ifcvf::Ifcvf;
use virtio_pci::vp_vdpa::VpVdpa;

#[test]
fn table_says_what_the_drivers_of_the_guest_take() {
    let platform = FakePlatform::new();
    let bus = VdpaBus::new("vdpa");
    let ifcvf = Ifcvf::new(platform.clone(), bus.clone());
    let vp_vdpa = VpVdpa::new(platform, bus);
    let takes = |driver: &dyn Driver<PciDevice>, identity: &Identity| {
        driver.ids().iter().any(|row| row.matches(identity))
    };
    let mut taken = 0;
    for device in 0x0ff0..0x1090 {
        for subvendor in [0x1af4, 0x8086] {
            for subdevice in 0..0x40 {
                let identity = Identity {
                    vendor: 0x1af4,
                    device,
                    subvendor,
                    subdevice,
                    class: 0,
                    revision: 1,
                };
                let driver = if takes(&ifcvf, &identity) {
                    Some(GuestDriver::Ifcvf)
                } else {
                    takes(&vp_vdpa, &identity).then_some(GuestDriver::VpVdpa)
                };
                // VIRTIO 1.2, 4.1.2: modern ids count from 0x1040.
                let kind = match device.checked_sub(0x1040).unwrap_or(subdevice) {
                    1 => Some(Kind::Net),
                    2 => Some(Kind::Blk),
                    _ => None,
                };
                let expected = driver.zip(kind);
                let ids = Ids {
                    vendor: 0x1af4,
                    device,
                    subvendor,
                    subdevice,
                    class: 0,
                };
                assert_eq!(ids.taken(), expected, "{ids}");
                taken += usize::from(expected.is_some());
            }
        }
    }
    assert!(taken > 5, "the drivers take something");
}
