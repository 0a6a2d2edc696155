//! Requests that are shown to the device as soon as they are added: those with a table, on a packed
//! ring, go a way of their own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use virtq::testing::{HeapDma, PackedDevice};
use virtq::{
    Arena, DmaAddr, DmaAllocator, DmaBuffer, Doorbell, Event, Notify, Queue, QueueConfig,
    RequestReason, Requests, RingFeatures, SharedMemory,
};

use crate::common::{Device, Setup};
use crate::table::{Tabled, both_formats, pop, queue};

/// Requests over a queue of eight descriptors, and its device.
fn requests(setup: &Setup, features: RingFeatures) -> (Requests<Tabled>, Device) {
    let queue = queue(setup, features);
    let device = Device::of(&queue, features, setup);
    (
        Requests::new(queue, Doorbell::event(Arc::default())),
        device,
    )
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The short way of requests, against the one that all chains can go.
#[test]
fn a_request_with_a_table_is_to_the_device_what_a_chain_is_that_is_added_and_published() {
    for (event_idx, in_order) in [(false, false), (true, false), (false, true), (true, true)] {
        let features = RingFeatures::NONE
            .with_packed(true)
            .with_indirect(true)
            .with_event_idx(event_idx)
            .with_in_order(in_order);
        let setup = Setup::new();
        let config = QueueConfig {
            size: 5,
            align: 1,
            features,
        };
        let [mut queue, other] =
            [(); 2].map(|()| Queue::new(&config, &setup.allocator(), &setup.hold).unwrap());
        let [mut expecting, mut device] = [&queue, &other]
            .map(|queue| PackedDevice::new(&setup.dma, queue.addresses(), 5, features));
        let kicks = Arc::new(Event::new());
        let requests = Requests::new(other, Doorbell::event(Arc::clone(&kicks)));
        let mut kicked = 0;
        // Under Miri each takes seconds.
        for round in 0..if cfg!(miri) { 6u16 } else { 120 } {
            // Where the device wants to be notified: anywhere in this lap or the other.
            let place = (round / 2 % 5, round % 2 == 0);
            for device in [&expecting, &device] {
                if round % 11 == 10 {
                    device.disable_notifications();
                } else {
                    device.set_event(place);
                }
            }
            let mut futures = Vec::new();
            for _ in 0..=round % 3 {
                queue.add(Tabled::new(&setup, features)).unwrap();
                let is_needed = queue.publish() == Notify::Needed;
                kicked += u32::from(is_needed);
                let mut future = Box::pin(requests.submit(Tabled::new(&setup, features)));
                assert!(poll(future.as_mut()).is_pending());
                assert_eq!(kicks.take(), is_needed, "round {round}");
                futures.push(future);
            }
            for mut future in futures {
                let (expected, request) = (expecting.pop().unwrap(), device.pop().unwrap());
                assert_eq!(request.head, expected.head);
                assert_eq!(request.descriptors, expected.descriptors);
                let lens = request.writable.iter().map(|segment| segment.len);
                assert!(lens.eq([512, 1]));
                expecting.finish(&expected, 513);
                device.finish(&request, 513);
                assert!(queue.take().unwrap().is_some());
                assert_eq!(requests.complete(), 1);
                assert!(!poll(future.as_mut()).is_pending());
            }
        }
        assert!(
            kicked > 0 || cfg!(miri),
            "the device was never to be notified"
        );
        let counted = queue.statistics().snapshot();
        assert_eq!(requests.statistics().snapshot(), counted);
    }
}

#[test]
fn a_full_queue_takes_the_next_request_when_one_is_done() {
    for features in both_formats() {
        let setup = Setup::new();
        let (requests, mut device) = requests(&setup, features);
        let mut futures: Vec<_> = (0..9)
            .map(|_| Box::pin(requests.submit(Tabled::new(&setup, features))))
            .collect();
        for future in &mut futures {
            assert!(poll(future.as_mut()).is_pending());
        }
        let mut last = futures.pop().unwrap();
        let shown: Vec<_> = std::iter::from_fn(|| device.pop()).collect();
        assert_eq!(shown.len(), 8, "each takes one descriptor");
        device.finish_batch(&shown[..1], 513);
        assert_eq!(requests.complete(), 1);
        assert!(poll(last.as_mut()).is_pending());
        assert!(device.pop().is_some() && device.pop().is_none());
    }
}

#[test]
fn each_request_of_a_batch_that_is_used_in_order_gets_its_own_chain_back() {
    for features in both_formats().map(|features| features.with_in_order(true)) {
        let setup = Setup::new();
        let (requests, mut device) = requests(&setup, features);
        // More than a lap, so that ids are used again.
        for _ in 0..5 {
            let chains = [(); 3].map(|()| Tabled::new(&setup, features));
            let places = chains.each_ref().map(Tabled::places);
            let mut futures = chains.map(|chain| Box::pin(requests.submit(chain)));
            for future in &mut futures {
                assert!(poll(future.as_mut()).is_pending());
            }
            let batch = [(); 3].map(|()| device.pop().unwrap());
            device.finish_batch(&batch, 513);
            assert_eq!(requests.complete(), 3);
            for (mut future, places) in futures.into_iter().zip(places) {
                let Poll::Ready(Ok(used)) = poll(future.as_mut()) else {
                    panic!("a request of the batch is not done");
                };
                assert_eq!((used.chain.places(), used.written), (places, 513));
            }
        }
    }
}

/// Why a request is refused, of which the device sees nothing.
fn refusal(requests: &Requests<Tabled>, device: &mut Device, chain: Tabled) -> RequestReason {
    let mut future = Box::pin(requests.submit(chain));
    let Poll::Ready(Err(error)) = poll(future.as_mut()) else {
        panic!("the request was not refused");
    };
    assert!(error.chain.is_some() && device.pop().is_none());
    error.reason
}

#[test]
fn a_request_that_cannot_be_added_is_refused() {
    for features in both_formats() {
        let setup = Setup::new();
        let (requests, mut device) = requests(&setup, features);
        let memory = SharedMemory::new(&(HeapDma::new() as Arc<dyn DmaAllocator>), 4096);
        let elsewhere: Arc<dyn DmaAllocator> = Arena::new(memory.unwrap(), DmaAddr(0)).unwrap();
        let mut with_foreign_data = Tabled::new(&setup, features);
        with_foreign_data.replace(DmaBuffer::new(&elsewhere, 512).unwrap());
        with_foreign_data.describe();
        for (chain, reason) in [
            (with_foreign_data, RequestReason::Foreign),
            (
                Tabled::with_room(&elsewhere, features, 3),
                RequestReason::Foreign,
            ),
            (
                Tabled::with_room(&setup.allocator(), features, 2),
                RequestReason::TooLong,
            ),
        ] {
            assert_eq!(refusal(&requests, &mut device, chain), reason);
        }
        // VIRTIO 1.2, 2.7.5.3.1 and 2.8.19: no chain is longer than the queue.
        let config = QueueConfig {
            size: 2,
            align: 1,
            features,
        };
        let short = Queue::new(&config, &setup.allocator(), &setup.hold).unwrap();
        let mut device = Device::of(&short, features, &setup);
        let requests = Requests::new(short, Doorbell::event(Arc::default()));
        let chain = Tabled::new(&setup, features);
        assert_eq!(
            refusal(&requests, &mut device, chain),
            RequestReason::TooLong
        );
    }
}

#[test]
fn a_broken_queue_takes_no_request() {
    for features in both_formats() {
        let setup = Setup::new();
        let (requests, mut device) = requests(&setup, features);
        let mut future = Box::pin(requests.submit(Tabled::new(&setup, features)));
        assert!(poll(future.as_mut()).is_pending());
        let request = device.pop().unwrap();
        for _ in 0..2 {
            device.finish_batch(std::slice::from_ref(&request), 513);
        }
        let _ = requests.complete();
        let broken = requests.broken().expect("a chain came back twice");
        let chain = Tabled::new(&setup, features);
        let reason = refusal(&requests, &mut device, chain);
        assert_eq!(reason, RequestReason::Broken(broken));
    }
}

#[test]
fn a_request_with_a_table_of_another_format_lies_in_the_ring() {
    for features in both_formats() {
        let setup = Setup::new();
        let (requests, mut device) = requests(&setup, features);
        let chain = Tabled::new(&setup, features.with_packed(!features.packed));
        let places = chain.places();
        let mut future = Box::pin(requests.submit(chain));
        assert!(poll(future.as_mut()).is_pending());
        assert_eq!(pop(&mut device), (3, places.to_vec()));
    }
}
