//! A packet filter that a task serves, before the network card of the machine: the stack above works
//! through it, and what it drops does not arrive.

#[path = "../../../vdpa/vduse/examples/packet_filter/filter.rs"]
mod filter;
#[path = "../../../vdpa/vduse/examples/packet_filter/rules.rs"]
mod rules;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use embassy_futures::select::{Either, select};
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::time::Instant;
use spin::Mutex;
use vdpa::checksum::Sum;
use vdpa_vduse::{Options, Task, TaskDevice, TaskError, Turn, serve};
use virtio_net::NetDevice;
use virtq::Event;

use self::filter::{Below, FRAME_MAX, PacketFilter};
use self::rules::{Rule, Rules, Verdict};
use crate::bench::Bench;
use crate::net::reaches_the_gateway;
use crate::outcome::{Failure, Outcome};
use crate::parents::ClientSide;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![stack_works_through_a_packet_filter_and_a_dropped_port_is_dropped];

const NAME: &str = "filter";
/// Frames that wait in one direction; more are lost.
const WAITING_MAX: usize = 256;
/// The ports of DHCP (RFC 2131, 4.1). QEMU's user network has a server.
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// How long a frame that is dropped is waited for: an answer comes in a millisecond.
const WHILE: Duration = Duration::from_millis(300);

/// The way between the filter and the card below it.
#[derive(Default)]
struct Wire {
    up: Mutex<VecDeque<Vec<u8>>>,
    down: Mutex<VecDeque<Vec<u8>>>,
    sent: Event,
    dropped: AtomicU64,
    /// How many frames to a DHCP server the filter has let through.
    asked: AtomicU64,
    /// The rules, if they are to change.
    rules: Mutex<Option<Rules>>,
}

struct WireEnd(Arc<Wire>);

impl Below for WireEnd {
    fn receive(&mut self, frame: &mut [u8; FRAME_MAX]) -> Option<usize> {
        let bytes = self.0.up.lock().pop_front()?;
        let len = bytes.len().min(FRAME_MAX);
        frame[..len].copy_from_slice(&bytes[..len]);
        Some(len)
    }

    fn send(&mut self, frame: &[u8]) {
        if is_udp(frame) && frame.get(36..38) == Some(&SERVER.to_be_bytes()) {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
        }
        let mut down = self.0.down.lock();
        if down.len() < WAITING_MAX {
            down.push_back(frame.into());
        }
        drop(down);
        self.0.sent.raise();
    }
}

/// The filter, which takes new rules between two turns.
struct Filter {
    device: PacketFilter<WireEnd>,
    wire: Arc<Wire>,
}

impl TaskDevice for Filter {
    fn start(&mut self, features: vdpa::Features) {
        self.device.start(features);
    }

    fn stop(&mut self) {
        self.device.stop();
    }

    fn let_go(&mut self) {
        self.device.let_go();
    }

    fn serve(&mut self, task: &Task) -> Result<Turn, TaskError> {
        if let Some(rules) = self.wire.rules.lock().take() {
            self.device.rules = rules;
        }
        let turn = self.device.serve(task);
        self.wire
            .dropped
            .store(self.device.dropped, Ordering::Relaxed);
        turn
    }
}

/// Carries frames between the wire and the card.
async fn carry(wire: &Wire, task: &Task, card: &mut NetDevice) {
    loop {
        let mut received = false;
        while let Some((token, _)) = card.receive(Instant::ZERO) {
            token.consume(|bytes| {
                let mut up = wire.up.lock();
                if up.len() < WAITING_MAX {
                    up.push_back(bytes.into());
                }
            });
            received = true;
        }
        if received {
            task.wake();
        }
        loop {
            let Some(frame) = wire.down.lock().pop_front() else {
                break;
            };
            // Without room the frame is lost.
            if let Some(token) = card.transmit(Instant::ZERO) {
                token.consume(frame.len(), |bytes| bytes.copy_from_slice(&frame));
            }
        }
        select(card.wait(), wire.sent.wait()).await;
    }
}

const EVERYTHING: Rules = Rules(&[Rule::any(Verdict::Accept)]);
const NO_DHCP: Rules = Rules(&[
    Rule {
        ethertype: Some(0x0800),
        protocol: Some(17),
        port: Some(SERVER),
        verdict: Verdict::Drop,
    },
    Rule::any(Verdict::Accept),
]);

async fn stack_works_through_a_packet_filter_and_a_dropped_port_is_dropped(
    bench: &Bench,
) -> Outcome {
    if bench.system.command_line().get("network").is_some() {
        return Err(Failure::Ignored("the machine's network is another".into()));
    }
    bench
        .with_net(async |card| {
            let control = bench.system.vduse();
            let config = filter::config(NAME, card.mac().0);
            let created = control.create(&config, Options::default());
            created.map_err(|_| "the device is created")?;
            let task = control.open(NAME).map_err(|_| "the device is opened")?;
            filter::set_up(&task).map_err(|_| "its queues are set up")?;
            let (task, wire, stop) = (Arc::new(task), Arc::<Wire>::default(), Arc::default());
            run(bench, &task, &wire, &stop);
            let carrying = carry(&wire, &task, card);
            let outcome = match select(using(bench, &wire), carrying).await {
                Either::First(outcome) => outcome,
                Either::Second(()) => Err("the card is gone".into()),
            };
            Event::raise(&stop);
            drop(task);
            let destroyed = async {
                while control.destroy(NAME).is_err() {
                    embassy_futures::yield_now().await;
                }
            };
            bench.patiently(destroyed).await?;
            outcome
        })
        .await
}

/// The task, until it is told to end.
fn run(bench: &Bench, task: &Arc<Task>, wire: &Arc<Wire>, stop: &Arc<Event>) {
    let mut filter = Filter {
        device: PacketFilter::new(EVERYTHING, WireEnd(Arc::clone(wire))),
        wire: Arc::clone(wire),
    };
    let (task, stop) = (Arc::clone(task), Arc::clone(stop));
    let work = async move {
        select(stop.wait(), serve(&task, &mut filter)).await;
    };
    let platform = bench.system.platform();
    platform.spawn("packet filter", alloc::boxed::Box::pin(work));
}

/// The kernel's driver and a client have the filter in turn.
async fn using(bench: &Bench, wire: &Wire) -> Outcome {
    let ops = bench.system.vduse().attach(NAME);
    let ops = ops.map_err(|_| "the device is attached")?;
    let device = bench.register(ops).await?;
    let mut net = bench.new_net(&device)?;
    let of_kernel = filtered(bench, wire, &mut net).await;
    drop(net);
    let client = ClientSide::start(bench, bench.open(&device).await?).await?;
    let mut net = client.net()?;
    let of_client = filtered(bench, wire, &mut net).await;
    drop(net);
    client.end().await;
    bench.give_back(&device).await;
    drop(bench.new_net(&device)?);
    bench.unregister(&device).await?;
    of_kernel?;
    of_client
}

async fn filtered(bench: &Bench, wire: &Wire, net: &mut NetDevice) -> Outcome {
    reaches_the_gateway(bench, net).await?;
    ensure!(dhcp_answers(bench, net).await?, "an accepted port answers");
    let counts = || [&wire.dropped, &wire.asked].map(|count| count.load(Ordering::Relaxed));
    let [dropped, asked] = counts();
    *wire.rules.lock() = Some(NO_DHCP);
    ensure!(!dhcp_answers(bench, net).await?, "a dropped port answers");
    ensure_eq!(counts(), [dropped + 1, asked]);
    // Everything else still passes.
    reaches_the_gateway(bench, net).await?;
    *wire.rules.lock() = Some(EVERYTHING);
    ensure!(dhcp_answers(bench, net).await?, "it is accepted again");
    Ok(())
}

/// Asks whether a DHCP server is there.
async fn dhcp_answers(bench: &Bench, net: &mut NetDevice) -> Result<bool, Failure> {
    let discover = discover(net.mac().0);
    let token = net.transmit(Instant::ZERO);
    let token = token.ok_or_else(|| Failure::from("there is no room for a frame"))?;
    token.consume(discover.len(), |bytes| bytes.copy_from_slice(&discover));
    let answer = async {
        loop {
            while let Some((token, _)) = net.receive(Instant::ZERO) {
                if token.consume(is_from_server) {
                    return;
                }
            }
            net.wait().await;
        }
    };
    let answered = select(answer, bench.sleep(WHILE)).await;
    Ok(matches!(answered, Either::First(())))
}

fn is_from_server(frame: &[u8]) -> bool {
    is_udp(frame) && frame.get(34..36) == Some(&SERVER.to_be_bytes())
}

/// Whether a frame is IPv4 without options, and UDP.
fn is_udp(frame: &[u8]) -> bool {
    frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&17)
}

/// A DHCPDISCOVER to everybody (RFC 2131, 2 and 4.4.1).
fn discover(mac: [u8; 6]) -> Vec<u8> {
    const BOOTP: usize = 236;
    let mut dhcp = vec![0; BOOTP];
    dhcp[..4].copy_from_slice(&[1, 1, 6, 0]);
    dhcp[4..8].copy_from_slice(&0x5257_0001_u32.to_be_bytes());
    dhcp[28..34].copy_from_slice(&mac);
    // The magic number, the type of message, and the end.
    dhcp.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let udp_len = 8 + dhcp.len();
    let mut ip = vec![0x45, 0];
    ip.extend(((20 + udp_len) as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum = !Sum::default().add_bytes(&ip).fold();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 0]);
    frame.extend(ip);
    for word in [CLIENT, SERVER, udp_len as u16, 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(dhcp);
    frame
}
