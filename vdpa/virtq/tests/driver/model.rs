//! Random work on a queue, compared with a model that keeps chains in a map.

use std::collections::{BTreeMap, VecDeque};

use crate::common::{Device, Message, Setup};
use proptest::prelude::*;
use virtq::{AddReason, Notify, Queue, QueueConfig, RingFeatures, RingState};

#[derive(Clone, Debug)]
enum Step {
    /// Add a chain of so many readable segments, and perhaps a writable one of so many bytes.
    Add {
        segments: usize,
        writable: usize,
    },
    Publish,
    /// The device takes what is published, and completes the chain at this place in its hands.
    Complete {
        which: usize,
    },
    Take,
    Interrupts {
        on: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..=4, 0usize..32).prop_map(|(segments, writable)| Step::Add { segments, writable }),
        3 => Just(Step::Publish),
        4 => any::<usize>().prop_map(|which| Step::Complete { which }),
        4 => Just(Step::Take),
        1 => any::<bool>().prop_map(|on| Step::Interrupts { on }),
    ]
}

/// Miri takes a minute for what is a moment otherwise.
const STEPS: usize = if cfg!(miri) { 40 } else { 400 };

fn cases() -> u32 {
    if cfg!(miri) {
        2
    } else {
        ProptestConfig::default().cases
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_mixed_up(
        size in 1u16..40,
        start: u16,
        wrap: bool,
        packed: bool,
        event_idx: bool,
        indirect: bool,
        in_order: bool,
        steps in prop::collection::vec(step(), 1..STEPS),
    ) {
        let features = RingFeatures::NONE.with_packed(packed).with_event_idx(event_idx).with_indirect(indirect).with_in_order(in_order);
        let (size, state) = if packed {
            (size, RingState::Packed { index: start % size, wrap })
        } else {
            (size.next_power_of_two(), RingState::Split { index: start })
        };
        let setup = Setup::new();
        let config = QueueConfig { size, align: 1, features };
        let mut queue =
            Queue::<Message>::resume(&config, state, &setup.allocator(), &setup.hold).unwrap();
        prop_assert_eq!(queue.state(), Some(state));
        let mut device = Device::of(&queue, features, &setup);
        let mut serial = 0u32;
        let mut unpublished = VecDeque::new();
        let mut published = VecDeque::new();
        let mut with_device = Vec::new();
        let mut completed = VecDeque::new();
        let mut cost = BTreeMap::new();
        let mut asleep = true;

        for step in steps {
            match step {
                Step::Add { segments, writable } => {
                    let mut message = setup.message(&serial.to_le_bytes(), writable);
                    message.repeat = segments;
                    let total = segments + usize::from(writable > 0);
                    let table = if indirect && size > 1 { usize::from(size.min(8)) } else { 0 };
                    let descriptors = if total > 1 && total <= table { 1 } else { total };
                    let used: usize = cost.values().sum();
                    let expected = if total > usize::from(size) {
                        Err(AddReason::TooLong)
                    } else if used + descriptors > usize::from(size) {
                        Err(AddReason::Full)
                    } else {
                        Ok(())
                    };
                    let result = queue.add(message);
                    prop_assert_eq!(result.as_ref().map(|_| ()).map_err(|error| error.reason), expected);
                    if result.is_ok() {
                        unpublished.push_back((serial, segments, writable));
                        cost.insert(serial, descriptors);
                        serial += 1;
                    }
                }
                Step::Publish => {
                    let fresh = !unpublished.is_empty();
                    published.append(&mut unpublished);
                    let notify = queue.publish();
                    // A device that sleeps must be woken; one that is awake looks by itself.
                    if asleep && fresh {
                        prop_assert_eq!(notify, Notify::Needed);
                        asleep = false;
                    }
                }
                Step::Complete { which } => {
                    while let Some(request) = device.pop() {
                        let (number, segments, writable) = published.pop_front().expect("as published");
                        let expected = number.to_le_bytes().repeat(segments);
                        prop_assert_eq!(device.read(&request), expected);
                        with_device.push((number, request, writable));
                    }
                    prop_assert!(published.is_empty());
                    asleep = true;
                    if !with_device.is_empty() {
                        let which = which % with_device.len();
                        // In order, everything up to that one is returned by its id alone.
                        let returned: Vec<_> = if in_order {
                            with_device.drain(..=which).collect()
                        } else {
                            vec![with_device.swap_remove(which)]
                        };
                        for (number, request, writable) in &returned {
                            let reply = vec![*number as u8; *writable];
                            device.write(request, 0, &reply);
                            completed.push_back((*number, reply));
                        }
                        let last = returned.last().expect("one at least");
                        let written = u32::try_from(last.2).unwrap();
                        let batch: Vec<_> = returned.iter().map(|entry| entry.1.clone()).collect();
                        device.finish_batch(&batch, written);
                    }
                }
                Step::Take => {
                    let used = queue.take().expect("the device is honest");
                    prop_assert_eq!(used.is_some(), !completed.is_empty());
                    if let Some(used) = used {
                        let (number, reply) = completed.pop_front().expect("compared above");
                        cost.remove(&number);
                        prop_assert_eq!(&used.chain.readable.unwrap()[..], number.to_le_bytes());
                        prop_assert_eq!(used.written as usize, reply.len());
                        if let Some(writable) = used.chain.writable {
                            prop_assert_eq!(&writable[..], reply);
                        }
                    }
                }
                Step::Interrupts { on: true } => {
                    let pending = queue.enable_interrupts();
                    prop_assert_eq!(pending == virtq::Pending::Yes, !completed.is_empty());
                }
                Step::Interrupts { on: false } => queue.disable_interrupts(),
            }
            let used: usize = cost.values().sum();
            prop_assert_eq!(usize::from(queue.free()), usize::from(size) - used);
        }
        prop_assert_eq!(queue.state().is_some(), cost.is_empty());
        drop(queue);
        prop_assert_eq!(setup.dma.outstanding(), 0);
    }
}
