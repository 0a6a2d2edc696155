//! What a doorbell stores where.

use std::ptr::NonNull;
use std::sync::Arc;

use virtq::{Doorbell, Event};

#[test]
fn a_narrow_register_takes_the_index() {
    let mut register = 0u16;
    // SAFETY: the register outlives the doorbell.
    let doorbell = unsafe { Doorbell::register16(NonNull::from(&mut register), 7) };
    doorbell.ring(0x8005);
    assert_eq!(register, 7);
}

/// VIRTIO 1.2, 4.1.5.2: the index below, the place and its wrap counter above.
#[test]
fn a_wide_register_takes_the_index_and_the_place() {
    let mut register = 0u32;
    // SAFETY: the register outlives the doorbell.
    let doorbell = unsafe { Doorbell::register32(NonNull::from(&mut register), 7) };
    doorbell.ring(0x8005);
    assert_eq!(register, 0x8005_0007);
}

#[test]
fn a_software_device_is_woken() {
    let event = Arc::new(Event::new());
    let doorbell = Doorbell::event(Arc::clone(&event));
    assert!(!event.take());
    doorbell.ring(0);
    assert!(event.take());
    assert_eq!(event.count(), 1);
}
