//! The packet filter of the examples: what its rules say, and where its frames lie.

#[path = "../../examples/packet_filter/filter.rs"]
mod filter;
#[path = "../../examples/packet_filter/rules.rs"]
mod rules;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embassy_futures::select::select;
use vdpa_vduse::{Options, serve};
use virtio::net::F;
use virtq::Event;

use self::filter::{Below, FRAME_MAX, PacketFilter};
use self::rules::{Rule, Rules, Verdict};
use crate::driver::{ANSWER, Driver};
use crate::world::World;

const DNS: u16 = 53;
const RULES: Rules = Rules(&[
    Rule {
        ethertype: Some(0x0806),
        ..Rule::any(Verdict::Accept)
    },
    Rule {
        protocol: Some(17),
        port: Some(DNS),
        ..Rule::any(Verdict::Drop)
    },
    Rule {
        ethertype: Some(0x0800),
        ..Rule::any(Verdict::Accept)
    },
    Rule {
        protocol: Some(58),
        ..Rule::any(Verdict::Accept)
    },
]);

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// IPv4 with options of so many words, of which it is the fragment at this offset.
fn ipv4(protocol: u8, options: u8, fragment: u16, ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0; 20 + usize::from(options) * 4];
    packet[0] = 0x45 + options;
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    ethernet(0x0800, &packet)
}

fn ipv6(protocol: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    (packet[0], packet[6]) = (0x60, protocol);
    packet.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    ethernet(0x86dd, &packet)
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

#[test]
fn the_first_rule_that_fits_decides() {
    use Verdict::{Accept, Drop};
    let cases = [
        (ethernet(0x0806, &[0; 28]), Accept),
        (ethernet(0x88b5, &[0; 46]), Drop),
        (ipv4(17, 0, 0, [1024, DNS]), Drop),
        (ipv4(17, 0, 0, [DNS, 1024]), Drop),
        (ipv4(17, 3, 0, [1024, DNS]), Drop),
        // The don't-fragment flag and more fragments are no offset.
        (ipv4(17, 0, 0x4000, [1024, DNS]), Drop),
        (ipv4(17, 0, 0x2000, [1024, DNS]), Drop),
        // A later fragment has data where the ports were.
        (ipv4(17, 0, 0x2001, [1024, DNS]), Accept),
        (ipv4(17, 0, 0, [1024, 1025]), Accept),
        (ipv4(6, 0, 0, [1024, DNS]), Accept),
        (ipv4(1, 0, 0, [1024, DNS]), Accept),
        (ipv6(17, [1024, DNS]), Drop),
        (ipv6(58, [0, 0]), Accept),
        (ipv6(6, [1024, 80]), Drop),
    ];
    for (frame, verdict) in cases {
        assert_eq!(RULES.judge(&frame), verdict, "{frame:x?}");
        assert_eq!(RULES.judge(&tagged(&frame)), verdict, "{frame:x?}");
        for len in 0..frame.len() {
            // Whatever is missing, there is an answer.
            let _ = RULES.judge(&frame[..len]);
        }
        assert_eq!(RULES.judge(&frame[..13]), Drop);
    }
}

/// Frames that come, and those that have gone.
#[derive(Clone, Default)]
struct Wire {
    come: Arc<Mutex<VecDeque<Vec<u8>>>>,
    gone: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Below for Wire {
    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let bytes = self.come.lock().unwrap().pop_front()?;
        frame[..bytes.len()].copy_from_slice(&bytes);
        Some(bytes.len())
    }

    fn send(&mut self, frame: &[u8]) {
        self.gone.lock().unwrap().push(frame.into());
    }
}

/// What a driver of short buffers gets of a frame of so many bytes: each buffer as far as it was
/// written. And how many frames were lost.
fn received(merges: bool, buffers: u8, len: usize) -> (Vec<Vec<u8>>, u64) {
    let world = World::new();
    let received = world.platform.block_on(async {
        let config = filter::config("device", [2; 6]);
        world.control.create(&config, Options::default()).unwrap();
        let task = Arc::new(world.control.open("device").unwrap());
        filter::set_up(&task).unwrap();
        let (wire, stop) = (Wire::default(), Arc::<Event>::default());
        let (serving, stopped) = (Arc::clone(&task), Arc::clone(&stop));
        let mut filter = PacketFilter::new(RULES, wire.clone());
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        let running = async move {
            select(stopped.wait(), serve(&serving, &mut filter)).await;
            counted.store(filter.lost, Ordering::Relaxed);
        };
        world.kernel.spawn("filter", Box::pin(running));
        let mut driver = Driver::take(&world).await;
        if merges {
            driver.extra = F::MRG_RXBUF.into();
        }
        driver.start(false).await.unwrap();
        (0..buffers).for_each(|byte| assert!(driver.offer(byte)));
        let mut frame = ethernet(0x0806, &[]);
        frame.resize(len, 0x77);
        // One that the rules drop comes before it.
        let mut come = VecDeque::from([ethernet(0x88b5, &[1; 46]), frame]);
        wire.come.lock().unwrap().append(&mut come);
        task.wake();
        world.kernel.sleep(Duration::from_millis(1)).await;
        let mut received = Vec::new();
        while let Some((bytes, written)) = driver.answered() {
            received.push(bytes[..written].to_vec());
        }
        stop.raise();
        world.kernel.sleep(Duration::from_millis(1)).await;
        drop(task);
        driver.leave(&world).await;
        (received, lost.load(Ordering::Relaxed))
    });
    assert_eq!(world.platform.heap().outstanding(), 0);
    received
}

#[test]
fn a_frame_lies_in_as_many_buffers_as_its_header_says() {
    const HEADER: usize = 12;
    let cases = [
        (true, 4, 20, 1),
        (true, 4, ANSWER - HEADER, 1),
        (true, 4, ANSWER - HEADER + 1, 2),
        (true, 4, 150, 3),
        // There are not enough of them.
        (true, 2, 150, 0),
        (false, 4, ANSWER - HEADER, 1),
        // No buffer holds it, and buffers are not merged.
        (false, 4, ANSWER - HEADER + 1, 0),
    ];
    for (merges, buffers, len, count) in cases {
        let (received, lost) = received(merges, buffers, len);
        assert_eq!(received.len(), count, "{len} in {buffers}");
        // One that waits for buffers is not.
        assert_eq!(lost > 0, !merges && count == 0, "{len} in {buffers}");
        let bytes = received.concat();
        if count == 0 {
            continue;
        }
        assert_eq!(bytes.len(), HEADER + len, "all but the last are full");
        assert_eq!(bytes[..10], [0; 10]);
        assert_eq!(bytes[10..HEADER], (count as u16).to_le_bytes());
        assert_eq!(bytes[HEADER..][..14], ethernet(0x0806, &[]));
        assert!(bytes[HEADER + 14..].iter().all(|byte| *byte == 0x77));
    }
}
