//! Traffic on an interface whose device sends every frame back: numbered frames, each of which must
//! come once and in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use embassy_net_driver::{Driver, RxToken, TxToken};
use vdpa::Platform;
use virtio_net::NetDevice;

use crate::world::World;

/// How many frames are on their way at most.
const WINDOW: u64 = 16;
const FRAME: usize = 64;

pub(crate) struct Traffic {
    books: Arc<Books>,
}

#[derive(Default)]
struct Books {
    stopped: AtomicBool,
    /// The interface, after the end.
    interface: Mutex<Option<NetDevice>>,
    received: AtomicU64,
    /// Frames that did not come when it was their turn: which, and which came instead.
    mistakes: Mutex<Vec<(u64, u64)>>,
}

impl Traffic {
    pub(crate) fn start(world: &World, interface: NetDevice) -> Self {
        let books = Arc::<Books>::default();
        world.spawn(run(
            interface,
            Arc::clone(&world.kernel),
            Arc::clone(&books),
        ));
        Self { books }
    }

    pub(crate) fn received(&self) -> u64 {
        self.books.received.load(Ordering::Relaxed)
    }

    /// Lets some more frames come back.
    pub(crate) async fn progress(&self, world: &World) {
        let before = self.received();
        for _ in 0..10_000 {
            if self.received() >= before + 4 * WINDOW {
                return;
            }
            world.kernel.sleep(Duration::from_millis(1)).await;
        }
        panic!("{} frames and no more", self.received());
    }

    /// Ends the traffic. No frame has been lost or has come twice. The interface must not be
    /// dropped before its device has been reset, or its memory is lost for safety.
    pub(crate) async fn finish(self, world: &World) -> NetDevice {
        self.books.stopped.store(true, Ordering::Relaxed);
        let interface = loop {
            if let Some(interface) = self.books.interface.lock().unwrap().take() {
                break interface;
            }
            world.kernel.sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(*self.books.mistakes.lock().unwrap(), []);
        interface
    }
}

async fn run(mut interface: NetDevice, platform: Arc<dyn Platform>, books: Arc<Books>) {
    let mac = interface.mac().0;
    let (mut sent, mut received) = (0, 0);
    while !books.stopped.load(Ordering::Relaxed) || received < sent {
        let stopped = books.stopped.load(Ordering::Relaxed);
        std::future::poll_fn(|cx| {
            while let Some(number) = receive(&mut interface, cx) {
                if number != received {
                    books.mistakes.lock().unwrap().push((received, number));
                    received = number;
                }
                received += 1;
                books.received.fetch_add(1, Ordering::Relaxed);
            }
            while !stopped && sent < received + WINDOW && send(&mut interface, cx, mac, sent) {
                sent += 1;
            }
            Driver::link_state(&mut interface, cx);
            Poll::Ready(())
        })
        .await;
        platform.sleep(Duration::from_micros(100)).await;
    }
    *books.interface.lock().unwrap() = Some(interface);
}

fn receive(interface: &mut NetDevice, cx: &mut Context<'_>) -> Option<u64> {
    let (token, _) = Driver::receive(interface, cx)?;
    Some(RxToken::consume(token, |frame| {
        assert_eq!(frame.len(), FRAME);
        u64::from_le_bytes(frame[14..22].try_into().unwrap())
    }))
}

fn send(interface: &mut NetDevice, cx: &mut Context<'_>, mac: [u8; 6], number: u64) -> bool {
    let Some(token) = Driver::transmit(interface, cx) else {
        return false;
    };
    TxToken::consume(token, FRAME, |frame| {
        frame.fill(0);
        frame[..6].copy_from_slice(&mac);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[14..22].copy_from_slice(&number.to_le_bytes());
    });
    true
}
