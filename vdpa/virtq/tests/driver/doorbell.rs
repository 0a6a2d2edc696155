//! What a doorbell stores where.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use virtq::{Doorbell, DoorbellSwitch, Event};

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

#[test]
fn a_switched_doorbell_rings_what_its_switch_is_set_to() {
    let (first, second) = (Arc::new(Event::new()), Arc::new(Event::new()));
    let switch = DoorbellSwitch::new(&Doorbell::event(Arc::clone(&first)));
    let doorbell = Doorbell::switched(&switch);
    let clone = doorbell.clone();
    doorbell.ring(0);
    assert_eq!((first.count(), second.count()), (1, 0));
    switch.switch(&Doorbell::event(Arc::clone(&second)));
    doorbell.ring(0);
    clone.ring(0);
    assert_eq!((first.count(), second.count()), (1, 2));
}

#[test]
fn a_switched_doorbell_passes_the_place_on() {
    let mut register = 0u32;
    // SAFETY: the register outlives the doorbell.
    let wide = unsafe { Doorbell::register32(NonNull::from(&mut register), 7) };
    Doorbell::switched(&DoorbellSwitch::new(&wide)).ring(5);
    assert_eq!(register, 0x5_0007);
}

/// Old targets are kept for those who are about to ring them, but each of them once.
#[test]
fn switching_to_and_fro_keeps_no_more_than_the_two() {
    let events = [Arc::new(Event::new()), Arc::new(Event::new())];
    let doorbells = events
        .each_ref()
        .map(|event| Doorbell::event(Arc::clone(event)));
    let switch = DoorbellSwitch::new(&doorbells[0]);
    for _ in 0..100 {
        switch.switch(&doorbells[1]);
        switch.switch(&doorbells[0]);
    }
    Doorbell::switched(&switch).ring(0);
    assert_eq!((events[0].count(), events[1].count()), (1, 0));
    drop(doorbells);
    let kept = events.each_ref().map(Arc::strong_count);
    assert_eq!(kept, [2, 2]);
    drop(switch);
    assert_eq!(events.each_ref().map(Arc::strong_count), [1, 1]);
}

/// A switch that is set to another one stands for what that rings at the moment, so there are no
/// circles.
#[test]
fn a_switch_does_not_lead_to_itself() {
    let event = Arc::new(Event::new());
    let switch = DoorbellSwitch::new(&Doorbell::event(Arc::clone(&event)));
    let doorbell = Doorbell::switched(&switch);
    switch.switch(&doorbell);
    doorbell.ring(0);
    assert_eq!(event.count(), 1);
}

/// Each target is new to the thread that rings it.
#[test]
fn no_ring_is_lost_while_the_switch_moves() {
    const SWITCHES: usize = if cfg!(miri) { 20 } else { 1000 };
    let events: Vec<_> = (0..SWITCHES).map(|_| Arc::new(Event::new())).collect();
    let mut doorbells = events
        .iter()
        .map(|event| Doorbell::event(Arc::clone(event)));
    let switch = DoorbellSwitch::new(&doorbells.next().expect("one at least"));
    let doorbell = Doorbell::switched(&switch);
    let moved = AtomicBool::new(false);
    let rings = thread::scope(|scope| {
        let ringer = scope.spawn(|| {
            let mut rings = 0;
            while !moved.load(Ordering::Relaxed) {
                doorbell.ring(0);
                rings += 1;
            }
            rings
        });
        for doorbell in doorbells {
            switch.switch(&doorbell);
            thread::yield_now();
        }
        moved.store(true, Ordering::Relaxed);
        ringer.join().expect("ringing does not panic")
    });
    assert_eq!(events.iter().map(|event| event.count()).sum::<u64>(), rings);
}
