//! Where a function's virtio structures lie: every way to say it wrongly.

use virtio_pci::{ANY_BAR, Defect, LayoutError, OpenError, Structure, VirtioFunction};
use virtq::NotifyFormat;

use crate::fakes::function::BarType;
use crate::fakes::machine::Machine;
use crate::fakes::virtio::{BAR4_SIZE, COMMON, DEVICE, FakeVirtio, ISR, NOTIFY, Plan, VirtioCap};

fn open_plan(plan: Plan) -> Result<VirtioFunction, OpenError> {
    let (_device, function) = FakeVirtio::new(plan);
    let machine = Machine::with_functions(&[&function]);
    machine.enumerate();
    let claim = machine.device("pci0000:00:01.0").claim().unwrap();
    // SAFETY: the function is a fake, which reaches no memory.
    unsafe { VirtioFunction::open(&claim, ANY_BAR) }
}

fn open(capabilities: Vec<VirtioCap>) -> Result<VirtioFunction, OpenError> {
    open_plan(Plan {
        capabilities,
        ..Plan::default()
    })
}

/// The usual capabilities, the one of this kind changed.
fn with(kind: u8, change: impl Fn(&mut VirtioCap)) -> Vec<VirtioCap> {
    let mut capabilities = VirtioCap::usual();
    capabilities
        .iter_mut()
        .filter(|capability| capability.kind == kind)
        .for_each(change);
    capabilities
}

fn without(kind: u8) -> Vec<VirtioCap> {
    VirtioCap::usual()
        .into_iter()
        .filter(|capability| capability.kind != kind)
        .collect()
}

#[track_caller]
fn refused(capabilities: Vec<VirtioCap>, structure: Structure, defect: Defect) {
    let error = OpenError::Layout(LayoutError::Unusable(structure, defect));
    assert_eq!(open(capabilities).unwrap_err(), error);
}

#[track_caller]
fn missing(capabilities: Vec<VirtioCap>, structure: Structure) {
    let error = OpenError::Layout(LayoutError::Missing(structure));
    assert_eq!(open(capabilities).unwrap_err(), error);
}

#[test]
fn the_usual_layout_is_accepted() {
    let virtio = open(VirtioCap::usual()).unwrap();
    assert_eq!(virtio.config_size(), 0x1000);
    assert_eq!(virtio.common().num_queues(), 3);
}

#[test]
fn common_notify_and_isr_are_mandatory() {
    missing(without(1), Structure::Common);
    missing(without(2), Structure::Notify);
    missing(without(3), Structure::Isr);
    missing(vec![], Structure::Common);
}

#[test]
fn the_device_configuration_is_optional() {
    assert_eq!(open(without(4)).unwrap().config_size(), 0);
}

#[test]
fn a_reserved_bar_is_refused() {
    refused(with(1, |cap| cap.bar = 6), Structure::Common, Defect::NoBar);
    refused(
        with(1, |cap| cap.bar = 255),
        Structure::Common,
        Defect::NoBar,
    );
}

#[test]
fn a_bar_that_is_not_there_is_refused() {
    refused(with(2, |cap| cap.bar = 2), Structure::Notify, Defect::NoBar);
    // The upper half of BAR 4.
    refused(with(2, |cap| cap.bar = 5), Structure::Notify, Defect::NoBar);
}

#[test]
fn an_io_bar_is_refused() {
    let plan = Plan {
        bar4: BarType::Io,
        ..Plan::default()
    };
    let error = OpenError::Layout(LayoutError::Unusable(Structure::Device, Defect::IoBar));
    assert_eq!(open_plan(plan).unwrap_err(), error);
}

#[test]
fn a_structure_that_leaves_its_bar_is_refused() {
    let last = u32::try_from(BAR4_SIZE).unwrap() - 0x38;
    open(with(1, |cap| (cap.offset, cap.length) = (last, 0x38))).unwrap();
    let outside = Defect::OutsideBar;
    refused(
        with(1, |cap| (cap.offset, cap.length) = (last, 0x39)),
        Structure::Common,
        outside,
    );
    refused(
        with(3, |cap| (cap.offset, cap.length) = (0x4000, 1)),
        Structure::Isr,
        outside,
    );
}

#[test]
fn an_offset_and_length_that_wrap_in_32_bits_are_refused() {
    let wrap = |cap: &mut VirtioCap| (cap.offset, cap.length) = (0xffff_ff00, 0x200);
    refused(with(1, wrap), Structure::Common, Defect::OutsideBar);
    let huge = |cap: &mut VirtioCap| (cap.offset, cap.length) = (0x1000, u32::MAX);
    refused(with(4, huge), Structure::Device, Defect::OutsideBar);
}

#[test]
fn a_structure_that_is_too_short_is_refused() {
    let short = Defect::ShortStructure;
    refused(with(1, |cap| cap.length = 0x37), Structure::Common, short);
    refused(with(2, |cap| cap.length = 1), Structure::Notify, short);
    refused(with(3, |cap| cap.length = 0), Structure::Isr, short);
    refused(with(4, |cap| cap.length = 0), Structure::Device, short);
}

#[test]
fn a_misaligned_structure_is_refused() {
    let shift = |cap: &mut VirtioCap| (cap.offset, cap.length) = (cap.offset + 2, 0x100);
    refused(with(1, shift), Structure::Common, Defect::Misaligned);
    refused(with(4, shift), Structure::Device, Defect::Misaligned);
    open(with(2, shift)).unwrap();
    let odd = |cap: &mut VirtioCap| (cap.offset, cap.length) = (cap.offset + 1, 0x100);
    refused(with(2, odd), Structure::Notify, Defect::Misaligned);
    open(with(3, odd)).unwrap();
}

#[test]
fn a_capability_that_is_too_short_is_refused() {
    refused(
        with(1, |cap| cap.cap_len = 15),
        Structure::Common,
        Defect::ShortCapability,
    );
    refused(
        with(2, |cap| cap.cap_len = 16),
        Structure::Notify,
        Defect::ShortCapability,
    );
}

#[test]
fn the_first_acceptable_capability_counts() {
    let mut capabilities = vec![
        // Not acceptable, acceptable, and acceptable but later.
        VirtioCap {
            bar: 6,
            ..VirtioCap::new(4, DEVICE, 0x1000)
        },
        VirtioCap::new(4, DEVICE, 0x80),
        VirtioCap::new(4, DEVICE, 0x40),
    ];
    capabilities.extend(without(4));
    assert_eq!(open(capabilities).unwrap().config_size(), 0x80);
}

#[test]
fn capabilities_of_other_kinds_are_ignored() {
    let mut capabilities = vec![
        VirtioCap {
            bar: 9,
            ..VirtioCap::new(5, 0, 0)
        },
        VirtioCap {
            bar: 9,
            ..VirtioCap::new(8, 0, 0)
        },
        VirtioCap {
            bar: 9,
            ..VirtioCap::new(0, 0, 0)
        },
        VirtioCap {
            bar: 9,
            ..VirtioCap::new(200, 0, 0)
        },
    ];
    capabilities.extend(VirtioCap::usual());
    open(capabilities).unwrap();
}

#[test]
fn a_capability_at_the_very_end_is_cut_off() {
    // Eleven capabilities of 16 bytes end at 0xf0; the last one needs 20.
    let mut capabilities = vec![VirtioCap::new(9, 0, 0); 8];
    capabilities.extend(without(2));
    capabilities.push(VirtioCap::new(2, NOTIFY, 0x1000));
    let plan = Plan {
        capabilities,
        vectors: 0,
        ..Plan::default()
    };
    let defect = LayoutError::Unusable(Structure::Notify, Defect::ShortCapability);
    assert_eq!(open_plan(plan).unwrap_err(), OpenError::Layout(defect));
}

#[test]
fn doorbells_stay_inside_the_notification_structure() {
    // Room for two queues.
    let virtio = open(with(2, |cap| cap.length = 6)).unwrap();
    assert!(virtio.doorbell(0, 0, NotifyFormat::Index).is_some());
    assert!(virtio.doorbell(1, 1, NotifyFormat::Index).is_some());
    let wider = NotifyFormat::IndexAndPlace;
    assert!(virtio.doorbell(0, 0, wider).is_some());
    assert!(virtio.doorbell(1, 1, wider).is_none());
    assert!(virtio.doorbell(2, 2, NotifyFormat::Index).is_none());
    let virtio = open(with(2, |cap| cap.multiplier = u32::MAX)).unwrap();
    assert!(
        virtio
            .doorbell(0xffff, 0xffff, NotifyFormat::Index)
            .is_none()
    );
}

#[test]
fn with_a_multiplier_of_zero_all_queues_share_a_register() {
    let virtio = open(with(2, |cap| cap.multiplier = 0)).unwrap();
    // The fake's register for queue 0 is the first; whatever the offset says, it is that one.
    assert!(virtio.doorbell(0, 0, NotifyFormat::Index).is_some());
    assert!(virtio.doorbell(0, 0xffff, NotifyFormat::Index).is_some());
}

#[test]
fn the_structures_are_where_the_capabilities_say() {
    assert_eq!([COMMON, ISR, DEVICE, NOTIFY], [0, 0x1000, 0x2000, 0x3000]);
    let mut bytes = [0; 4];
    open(VirtioCap::usual())
        .unwrap()
        .read_config(0x3f, vdpa::Features::EMPTY, 4, &mut bytes)
        .unwrap();
    assert_eq!(bytes, [4, 5, 6, 7]);
}
