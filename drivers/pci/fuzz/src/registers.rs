//! Virtio functions whose registers lie and whose rings say anything, under the parents and the
//! drivers above them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use embassy_net_driver::{Driver as _, RxToken as _, TxToken as _};
use spin::Mutex;
use vdpa::Platform as _;
use vdpa::platform::InterruptMessage;
use virtio_blk::{BlkDriver, Disk};
use virtio_bus::virtio_vdpa::VirtioVdpa;
use virtio_bus::{Registry, VirtioBus};
use virtio_net::{NetDevice, NetDriver, NetOptions};
use virtq::DmaAddr;

use super::function::Function;
use super::input::Input;
use super::machine::Machine;
use super::virtio::{Device, QUEUES, State};

const STEPS_MAX: usize = 48;
const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;
/// Longer than a driver waits for a device.
const LONG: Duration = Duration::from_secs(60);

/// What the drivers above have made of the function.
struct Consumers {
    net: Option<NetDevice>,
    disk: Option<Disk>,
}

/// A function, and what happens to it.
///
/// # Panics
/// If a driver does what it must not do.
pub fn registers(data: &[u8]) {
    let mut input = Input::new(data);
    let [settings, lies] = input.array();
    let mut state = State::new(input.u32());
    state.features = input.u64() | VERSION_1;
    if settings & 2 != 0 {
        state.features |= ACCESS_PLATFORM;
    }
    state.queue_count = u16::from(input.byte()) % 8;
    state.size_max = match input.byte() {
        large @ 0xf0.. => u16::from(large) << 8,
        small => small.into(),
    };
    state.config = input.array();
    state.refuses_vectors = settings & 4 != 0;
    // What is there before a lie is told must not be one, or nothing is probed.
    state.lies = if settings & 8 != 0 { lies } else { 0 };
    state.reset();
    let state = Arc::new(Mutex::new(state));
    let subvendor = if settings & 2 != 0 { 0x8086 } else { 0x1af4 };
    let device = if settings & 1 != 0 { 0x1042 } else { 0x1041 };
    let functions = BTreeMap::from([((0, 8), Function::virtio(device, subvendor))]);
    let machine = Machine::new(0..=0, 4096, Device(Arc::clone(&state)), functions);

    let virtio = VirtioBus::new("virtio");
    let (nets, disks) = (Registry::new(), Registry::new());
    let driver = NetDriver::new(Arc::clone(&nets), NetOptions::default());
    machine.add_driver(&virtio, Arc::new(driver));
    machine.add_driver(&virtio, Arc::new(BlkDriver::new(Arc::clone(&disks))));
    machine.add_driver(
        &machine.vdpa,
        Arc::new(VirtioVdpa::new(Arc::clone(&virtio))),
    );
    machine.enumerate(false);
    state.lock().lies = lies;

    let mut consumers = Consumers {
        net: nets.take(),
        disk: disks.take(),
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&machine, &state, &mut consumers, &mut input);
        machine.platform.run_until_stalled();
    }
    drop(consumers);
    machine.platform.block_on(machine.platform.sleep(LONG));
    machine.end();
}

fn step(machine: &Machine, state: &Mutex<State>, consumers: &mut Consumers, input: &mut Input<'_>) {
    let platform = &machine.platform;
    let (kind, which) = (input.byte() % 9, input.byte());
    match kind {
        0 => platform.advance(Duration::from_millis(which.into())),
        1 => {
            state.lock().isr = input.byte();
            platform.fire(InterruptMessage {
                address: 0,
                data: u32::from(which % 4),
            });
        }
        2 | 3 => {
            // The device writes to what it knows of a queue.
            let queue = state.lock().queues[usize::from(which) % QUEUES];
            let area = queue.areas[usize::from(which >> 4) % 3];
            let at = u64::from(input.u16()) % 0x400;
            let bytes: [u8; 8] = input.array();
            let len = 1 + input.below(8);
            let _ = platform
                .heap()
                .write(DmaAddr(area.wrapping_add(at)), &bytes[..len]);
        }
        4 => send_and_receive(consumers.net.as_mut(), which),
        5 => {
            if let Some(disk) = consumers.disk.clone() {
                let task = async move {
                    let Ok(buffer) = disk.buffer(512 * usize::from(which % 8)) else {
                        return;
                    };
                    let _ = match which & 0x30 {
                        0 => disk.write(which.into(), buffer).await,
                        _ => disk.read(which.into(), buffer).await,
                    };
                };
                platform.spawn("request", Box::pin(task));
            }
        }
        6 => {
            let mut state = state.lock();
            state.config[usize::from(which) % 64] = input.byte();
            state.generation = state.generation.wrapping_add(1);
            state.isr |= 2;
        }
        7 => state.lock().lies = which,
        _ => state.lock().gone |= which > 0xf0,
    }
}

fn send_and_receive(net: Option<&mut NetDevice>, len: u8) {
    let Some(net) = net else { return };
    let mut context = Context::from_waker(Waker::noop());
    if let Some(token) = net.transmit(&mut context) {
        token.consume(usize::from(len).max(14), |frame| frame.fill(0x5a));
    }
    if let Some((received, _)) = net.receive(&mut context) {
        received.consume(|frame| assert!(frame.len() <= 65_550, "{}", frame.len()));
    }
}
