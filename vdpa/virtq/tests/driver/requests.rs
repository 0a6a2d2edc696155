//! Requests as futures: many in flight, dropped, stopped, broken.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use crate::common::{Case, Message, Setup};
use virtq::testing::DeviceRing;
use virtq::{
    AddReason, Broken, Doorbell, Event, RequestError, RequestReason, Requests, RingFeatures, Used,
};

const FEATURES: RingFeatures = RingFeatures::NONE.with_event_idx(true).with_indirect(true);

struct Fixture {
    requests: Requests<Message>,
    device: DeviceRing,
    setup: Setup,
    kicks: Arc<Event>,
}

fn fixture(size: u16) -> Fixture {
    fixture_of(size, FEATURES)
}

fn fixture_of(size: u16, features: RingFeatures) -> Fixture {
    let Case {
        queue,
        device,
        setup,
    } = Case::new(size, features);
    let kicks = Arc::new(Event::new());
    let requests = Requests::new(queue, Doorbell::event(Arc::clone(&kicks)));
    Fixture {
        requests,
        device,
        setup,
        kicks,
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn poll_with<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn reason(poll: Poll<Result<Used<Message>, RequestError<Message>>>) -> RequestReason {
    match poll {
        Poll::Ready(Err(error)) => error.reason,
        other => panic!("expected an error, got {other:?}"),
    }
}

#[test]
fn a_request_ends_when_its_chain_comes_back() {
    let mut f = fixture(4);
    let woken = Arc::new(Woken::default());
    let mut request = pin!(f.requests.submit(f.setup.message(b"read", 8)));
    assert!(poll_with(request.as_mut(), &woken).is_pending());
    assert!(f.kicks.take(), "the doorbell was rung");

    let seen = f.device.pop().unwrap();
    f.device.write(&seen, 0, b"data");
    f.device.complete(seen.head.into(), 4);
    assert_eq!(f.requests.complete(), 1);

    assert_eq!(woken.count(), 1);
    let Poll::Ready(Ok(used)) = poll(request.as_mut()) else {
        panic!("the request is complete")
    };
    assert_eq!(&used.chain.writable.unwrap()[..4], b"data");
}

#[test]
fn requests_complete_in_any_order() {
    let mut f = fixture(8);
    let mut futures: Vec<_> = (0..5u8)
        .map(|n| Box::pin(f.requests.submit(f.setup.message(&[n], 0))))
        .collect();
    for future in &mut futures {
        assert!(poll(future.as_mut()).is_pending());
    }
    let seen: Vec<_> = std::iter::from_fn(|| f.device.pop()).collect();
    for index in [3, 0, 4, 2, 1] {
        f.device.complete(seen[index].head.into(), 0);
    }
    assert_eq!(f.requests.complete(), 5);
    for (n, future) in (0..).zip(&mut futures) {
        let Poll::Ready(Ok(used)) = poll(future.as_mut()) else {
            panic!("request {n} is complete")
        };
        assert_eq!(&used.chain.readable.unwrap()[..], [n]);
    }
}

#[test]
fn a_completed_request_keeps_its_chain_while_its_token_is_used_again() {
    let mut f = fixture(1);
    let mut first = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    let mut second = pin!(f.requests.submit(f.setup.message(b"2", 0)));
    for request in [&mut first, &mut second] {
        let woken = Arc::new(Woken::default());
        assert!(poll_with(request.as_mut(), &woken).is_pending());
        if let Some(seen) = f.device.pop() {
            f.device.complete(seen.head.into(), 0);
            f.requests.complete();
        }
    }
    let Poll::Ready(Ok(second)) = poll(second.as_mut()) else {
        panic!("the second is complete")
    };
    let Poll::Ready(Ok(first)) = poll(first.as_mut()) else {
        panic!("the first is complete")
    };
    assert_eq!(&first.chain.readable.unwrap()[..], b"1");
    assert_eq!(&second.chain.readable.unwrap()[..], b"2");
}

#[test]
fn a_dropped_request_leaves_its_buffers_with_the_device() {
    let mut f = fixture(4);
    {
        let mut request = pin!(f.requests.submit(f.setup.message(b"read", 8)));
        assert!(poll(request.as_mut()).is_pending());
    }
    let seen = f.device.pop().unwrap();
    f.device.write(&seen, 0, b"late");
    f.device.complete(seen.head.into(), 4);
    let before = f.setup.dma.outstanding();
    assert_eq!(f.requests.complete(), 1);
    assert_eq!(
        f.setup.dma.outstanding(),
        before - 12,
        "freed when the device returned it"
    );
}

#[test]
fn who_waits_for_room_gets_it_in_turn() {
    let mut f = fixture(1);
    let woken: [Arc<Woken>; 3] = Default::default();
    let mut futures: Vec<_> = (0..3u8)
        .map(|n| Box::pin(f.requests.submit(f.setup.message(&[n], 0))))
        .collect();
    for (future, woken) in futures.iter_mut().zip(&woken) {
        assert!(poll_with(future.as_mut(), woken).is_pending());
    }
    for (n, future) in (0u8..).zip(futures) {
        let mut future = future;
        let _ = poll_with(future.as_mut(), &woken[usize::from(n)]);
        let seen = f.device.pop().unwrap();
        assert_eq!(f.device.read(&seen), [n]);
        f.device.complete(seen.head.into(), 0);
        assert_eq!(f.requests.complete(), 1);
        assert!(poll(future.as_mut()).is_ready());
        if let Some(next) = woken.get(usize::from(n) + 1) {
            assert!(next.count() > 0, "the next in line was woken");
        }
    }
}

#[test]
fn room_given_to_a_dropped_request_goes_to_the_next() {
    let mut f = fixture(1);
    let mut first = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = Box::pin(f.requests.submit(f.setup.message(b"2", 0)));
    assert!(poll(second.as_mut()).is_pending());
    let woken = Arc::new(Woken::default());
    let mut third = pin!(f.requests.submit(f.setup.message(b"3", 0)));
    assert!(poll_with(third.as_mut(), &woken).is_pending());

    let seen = f.device.pop().unwrap();
    f.device.complete(seen.head.into(), 0);
    f.requests.complete();
    assert_eq!(woken.count(), 0, "the room is the second's");
    drop(second);
    assert_eq!(woken.count(), 1);
}

/// Two descriptors come back at once, and two who wait need one each.
#[test]
fn room_for_several_goes_to_several() {
    let mut f = fixture_of(2, FEATURES.with_indirect(false));
    let mut long = pin!(f.requests.submit(f.setup.message(b"two", 4)));
    assert!(poll(long.as_mut()).is_pending());
    let woken: [Arc<Woken>; 2] = Default::default();
    let mut futures: Vec<_> = (0..2u8)
        .map(|n| Box::pin(f.requests.submit(f.setup.message(&[n], 0))))
        .collect();
    for (future, woken) in futures.iter_mut().zip(&woken) {
        assert!(poll_with(future.as_mut(), woken).is_pending());
    }
    let seen = f.device.pop().unwrap();
    f.device.complete(seen.head.into(), 0);
    f.requests.complete();
    for ((n, future), woken) in (0u8..).zip(&mut futures).zip(&woken) {
        assert!(woken.count() > 0, "there is room for {n}");
        assert!(poll_with(future.as_mut(), woken).is_pending());
    }
    let started: Vec<_> = std::iter::from_fn(|| f.device.pop()).collect();
    assert_eq!(started.len(), 2);
}

/// More than one lock's worth.
#[test]
fn every_waiter_of_many_is_woken() {
    let mut f = fixture(64);
    let woken: Vec<_> = (0..50).map(|_| Arc::new(Woken::default())).collect();
    let mut futures: Vec<_> = woken
        .iter()
        .map(|_| Box::pin(f.requests.submit(f.setup.message(b"x", 0))))
        .collect();
    for (future, woken) in futures.iter_mut().zip(&woken) {
        assert!(poll_with(future.as_mut(), woken).is_pending());
    }
    // One whose future is gone is among them.
    drop(futures.swap_remove(20));
    while let Some(seen) = f.device.pop() {
        f.device.complete(seen.head.into(), 0);
    }
    assert_eq!(f.requests.complete(), 50);
    let counts: Vec<_> = woken.iter().map(|woken| woken.count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 49);
    assert_eq!(counts[20], 0);
    for mut future in futures {
        assert!(poll(future.as_mut()).is_ready());
    }
}

#[test]
fn what_was_used_before_a_rewind_reaches_who_waits_for_it() {
    let mut f = fixture(4);
    let woken: [Arc<Woken>; 2] = Default::default();
    let mut first = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    let mut second = pin!(f.requests.submit(f.setup.message(b"2", 0)));
    assert!(poll_with(first.as_mut(), &woken[0]).is_pending());
    assert!(poll_with(second.as_mut(), &woken[1]).is_pending());
    let seen = f.device.pop().unwrap();
    f.device.complete(seen.head.into(), 0);

    f.requests.rewind().unwrap();

    assert_eq!([woken[0].count(), woken[1].count()], [1, 0]);
    // Its token is taken again before it looks.
    let mut third = pin!(f.requests.submit(f.setup.message(b"3", 0)));
    assert!(poll(third.as_mut()).is_pending());
    let Poll::Ready(Ok(used)) = poll(first.as_mut()) else {
        panic!("the first is complete")
    };
    assert_eq!(&used.chain.readable.unwrap()[..], b"1");
    assert!(poll(second.as_mut()).is_pending());
}

#[test]
fn a_stop_ends_every_request_and_the_runner() {
    let f = fixture(1);
    let event = Event::new();
    let mut runner = pin!(f.requests.run(&event));
    assert!(poll(runner.as_mut()).is_pending());
    let woken: [Arc<Woken>; 2] = Default::default();
    let mut in_flight = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    let mut waiting = pin!(f.requests.submit(f.setup.message(b"2", 0)));
    assert!(poll_with(in_flight.as_mut(), &woken[0]).is_pending());
    assert!(poll_with(waiting.as_mut(), &woken[1]).is_pending());

    f.requests.stop();

    assert!(woken.iter().all(|woken| woken.count() == 1));
    assert_eq!(reason(poll(in_flight.as_mut())), RequestReason::Stopped);
    assert_eq!(reason(poll(waiting.as_mut())), RequestReason::Stopped);
    assert!(poll(runner.as_mut()).is_ready());
    let mut late = pin!(f.requests.submit(f.setup.message(b"3", 0)));
    assert_eq!(reason(poll(late.as_mut())), RequestReason::Stopped);
    assert_eq!(f.requests.reclaim(), 1);
}

#[test]
fn a_device_that_lies_ends_every_request() {
    let mut f = fixture(4);
    let event = Event::new();
    let woken = Arc::new(Woken::default());
    let mut request = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    assert!(poll_with(request.as_mut(), &woken).is_pending());
    let mut runner = pin!(f.requests.run(&event));
    assert!(poll(runner.as_mut()).is_pending());

    f.device.complete(77, 0);
    event.raise();
    assert!(poll(runner.as_mut()).is_ready());

    assert_eq!(woken.count(), 1);
    assert_eq!(
        reason(poll(request.as_mut())),
        RequestReason::Broken(Broken::BadId)
    );
    assert_eq!(f.requests.broken(), Some(Broken::BadId));
}

#[test]
fn the_runner_misses_nothing_that_came_before_it_waited() {
    let mut f = fixture(4);
    let event = Event::new();
    let mut request = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    assert!(poll(request.as_mut()).is_pending());
    let seen = f.device.pop().unwrap();
    f.device.complete(seen.head.into(), 0);
    let mut runner = pin!(f.requests.run(&event));
    assert!(poll(runner.as_mut()).is_pending());
    assert!(poll(request.as_mut()).is_ready());
}

#[test]
fn a_chain_that_cannot_be_is_refused() {
    let f = fixture(4);
    let empty = Message {
        readable: None,
        writable: None,
        repeat: 1,
    };
    let mut request = pin!(f.requests.submit(empty));
    assert_eq!(reason(poll(request.as_mut())), RequestReason::Empty);
    let long = Message {
        repeat: 5,
        ..f.setup.message(b"x", 0)
    };
    let mut request = pin!(f.requests.submit(long));
    assert_eq!(reason(poll(request.as_mut())), RequestReason::TooLong);
    assert_eq!(AddReason::TooLong.to_string(), "the chain is too long");
}

/// The queue is borrowed while the waker of its request is cloned.
#[test]
fn a_request_that_finds_the_queue_borrowed_tries_again_with_its_next_poll() {
    let mut f = fixture(4);
    let woken = Arc::new(Woken::default());
    let second = RefCell::new(Box::pin(f.requests.submit(f.setup.message(b"2", 0))));
    let meanwhile = || {
        let poll = poll_with(second.borrow_mut().as_mut(), &woken);
        assert!(poll.is_pending());
    };
    let mut first = pin!(f.requests.submit(f.setup.message(b"1", 0)));
    let function: &dyn Fn() = &meanwhile;
    let waker = on_clone(&function);
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );

    assert_eq!(woken.count(), 1, "it is polled again");
    let seen = f.device.pop().unwrap();
    assert_eq!(f.device.read(&seen), b"1");
    assert!(f.device.pop().is_none(), "it has not been added");
    meanwhile();
    let seen = f.device.pop().unwrap();
    assert_eq!(f.device.read(&seen), b"2");
}

/// A waker that wakes nobody and calls a function, which must outlive it, when it is cloned.
fn on_clone(function: &&dyn Fn()) -> Waker {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            // SAFETY: the data is the function of `on_clone`, which still lives.
            let function = unsafe { &*data.cast::<&dyn Fn()>() };
            function();
            let noop = Waker::noop();
            RawWaker::new(noop.data(), noop.vtable())
        },
        |_| {},
        |_| {},
        |_| {},
    );
    // SAFETY: the waker stays on this thread, and its functions touch nothing but the function that
    // is called.
    unsafe { Waker::new(std::ptr::from_ref(function).cast(), &VTABLE) }
}
