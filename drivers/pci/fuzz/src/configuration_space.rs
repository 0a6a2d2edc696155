//! Functions whose configuration space says anything, from the first scan to the last removal.

use std::collections::BTreeMap;
use std::time::Duration;

use pci::Claim;
use pci::tool::{self, Command};
use pci::{SrIov, Vector};
use vdpa::bus::BusDevice;
use vdpa::platform::Callback;

use super::function::{Function, SIZE, SLOT_STATUS};
use super::input::{Input, Noise};
use super::machine::{Machine, Place, Registers};

const FUNCTIONS_MAX: usize = 12;
const STEPS_MAX: usize = 32;

/// Memory that holds what is written, and is noise before; often a word of it is a lie.
struct Memory {
    words: BTreeMap<u64, u32>,
    noise: Noise,
    lies: u8,
}

impl Registers for Memory {
    fn read(&mut self, address: u64, _: usize) -> u32 {
        if self.noise.lies(self.lies) {
            return self.noise.next();
        }
        let word = self.words.get(&(address & !3)).copied().unwrap_or(0);
        word >> (8 * (address & 3))
    }

    fn write(&mut self, address: u64, width: usize, value: u32) {
        let word = self.words.entry(address & !3).or_default();
        let shift = 8 * (address & 3);
        let mask = (u64::MAX >> (64 - 8 * width)) << shift;
        let bytes = u64::from(value) << shift & mask;
        let word_bits = u64::from(*word) & !mask | bytes;
        *word = u32::try_from(word_bits & u64::from(u32::MAX)).expect("cut to 32 bits");
    }
}

/// A machine, and what happens to it.
///
/// # Panics
/// If a driver does what it must not do.
pub fn configuration_space(data: &[u8]) {
    let mut input = Input::new(data);
    let [settings, lies, first] = input.array();
    let memory = Memory {
        words: BTreeMap::new(),
        noise: Noise::new(settings.into()),
        lies,
    };
    let last = if settings & 1 != 0 { u8::MAX } else { 15 };
    let buses = if settings & 2 != 0 {
        first.min(last)..=last
    } else {
        0..=last
    };
    let size = if settings & 4 != 0 { 256 } else { 4096 };
    let mut functions = BTreeMap::new();
    for _ in 0..input.below(FUNCTIONS_MAX) {
        let (place, function) = function(&mut input);
        functions.insert(place, function);
    }
    let machine = Machine::new(buses, size, memory, functions);
    machine.enumerate(settings & 8 != 0);
    let mut claims: Vec<(Claim, Vec<Vector>)> = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&machine, &mut claims, &mut input);
    }
    drop(claims);
    machine.end();
}

/// A function that is made up, from a sensible one on.
fn function(input: &mut Input<'_>) -> (Place, Function) {
    let [kind, bus, number, lies, patches] = input.array();
    let mut function = match kind % 6 {
        0 => Function::empty(input.u32()),
        1 => Function::virtio(0x1041, 0x1af4),
        2 => Function::virtio(0x1001, 0x8086),
        3 | 4 => Function::port(input.array()),
        _ => Function::physical(),
    };
    function.lies = lies;
    for _ in 0..patches % 16 {
        patch(&mut function, input);
    }
    ((bus & 0x1f, number), function)
}

fn patch(function: &mut Function, input: &mut Input<'_>) {
    let at = usize::from(input.u16()) % SIZE;
    function.set(at, &input.array::<2>());
    let mask = input.byte();
    if mask & 1 != 0 {
        function.allow(at, &[mask, mask]);
    }
}

fn step(machine: &Machine, claims: &mut Vec<(Claim, Vec<Vector>)>, input: &mut Input<'_>) {
    let platform = &machine.platform;
    let devices = machine.pci.devices();
    let (kind, which) = (input.byte() % 9, input.byte());
    let device = devices.get(usize::from(which) % devices.len().max(1));
    match (kind, device) {
        (0, _) => {
            platform.advance(Duration::from_millis(4 * u64::from(which)));
            platform.run_until_stalled();
        }
        (1, Some(device)) if claims.len() < 4 => {
            let Ok(claim) = device.claim() else { return };
            let mut vectors = Vec::new();
            for bar in 0..7 {
                if let Ok(registers) = claim.map(bar) {
                    let _ = registers.read32(0);
                }
            }
            if let Ok(Some(msix)) = claim.msix() {
                let vector = || msix.allocate(Callback::new(|| ()));
                vectors.extend((0..3).map_while(|_| vector().ok()));
                assert!(
                    vectors
                        .iter()
                        .all(|vector| usize::from(vector.index()) < msix.size())
                );
            }
            claims.push((claim, vectors));
        }
        (2, _) => drop(claims.pop()),
        (3 | 4, Some(device)) => {
            if let Some(sriov) = SrIov::of(&machine.pci, device) {
                let count = if kind == 3 { input.byte().into() } else { 0 };
                let set = platform.block_on(sriov.set_count(count));
                if set.is_ok() && count != 0 {
                    assert!(sriov.functions().len() <= usize::from(count));
                }
            }
        }
        (5, _) => {
            let mut functions = machine.slots.functions.lock();
            let count = functions.len().max(1);
            if let Some((_, function)) = functions.iter_mut().nth(usize::from(which) % count) {
                if input.byte() & 1 != 0 {
                    function.set(SLOT_STATUS, &input.array::<2>());
                } else {
                    patch(function, input);
                }
            }
        }
        (6, _) => {
            let mut functions = machine.slots.functions.lock();
            let place = functions.keys().nth(usize::from(which)).copied();
            place.and_then(|place| functions.remove(&place));
        }
        (7, _) => {
            let (place, function) = function(input);
            let mut functions = machine.slots.functions.lock();
            if functions.len() < FUNCTIONS_MAX {
                functions.insert(place, function);
            }
        }
        _ => {
            let listing = platform.block_on(tool::run(&machine.pci, Command::Show(None)));
            let listing = listing.expect("all can be shown");
            assert_eq!(listing.to_string().lines().count(), devices.len());
            let _ = listing.json();
            for device in &devices {
                let _ = device.node().report();
            }
        }
    }
}
