//! What is tried with an input: a run panics where the kernel breaks a promise.
//!
//! Nothing here depends on a fuzzer: the kernel's tests replay the inputs in `corpus/` with the
//! same code.

use core::net::Ipv4Addr;
use core::ops::Range;
use core::time::Duration;
use std::string::String;
use std::vec;
use std::vec::Vec;

use boot::{BootInfo, MemoryRegion, PhysicalMemory};

use crate::pure::acpi::{Acpi, ConfigRegion};
use crate::pure::address_space::{window_above, window_below_4_gib};
use crate::pure::command_line::CommandLine;
use crate::pure::dhcp::{Client, Event, Step};
use crate::pure::ethernet::{Arp, broadcast_dhcp_answer, exchange_in_arp, notable};
use crate::pure::ip_config::{IpConfig, is_host};
use crate::pure::memory::regions::free_regions;
use crate::pure::static_config::StaticConfig;

/// The size of the header that every table begins with.
const HEADER: usize = 36;

/// Tables in memory, each at an address of its own.
struct Tables(Vec<(u64, Vec<u8>)>);

impl PhysicalMemory for Tables {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let block = |(start, block): &'_ (u64, Vec<u8>)| {
            let at = usize::try_from(address.checked_sub(*start)?).ok()?;
            let end = at.checked_add(length)?;
            (end <= block.len()).then_some((*start, at..end))
        };
        let (found, range) = self.0.iter().find_map(block)?;
        let (_, bytes) = self.0.iter().find(|(start, _)| *start == found)?;
        bytes.get(range)
    }
}

/// The bytes from `data` on, and those behind.
fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    taken
}

fn number(data: &mut &[u8], bytes: usize) -> u64 {
    let taken = take(data, bytes);
    taken
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Makes the sum zero by the byte at `index`.
fn fix_sum(bytes: &mut [u8], index: usize) {
    bytes[index] = 0;
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[index] = sum.wrapping_neg();
}

/// Firmware whose tables hold this: of each its kind, its length and its bytes. Lengths and sums
/// are right.
///
/// # Panics
/// If the kernel does what it must not do.
pub fn acpi(data: &[u8]) {
    const RSDP: u64 = 0x1000;
    const XSDT: u64 = 0x2000;
    const SIGNATURES: [&[u8; 4]; 5] = [b"MCFG", b"APIC", b"FACP", b"DSDT", b"SSDT"];
    let mut rest = data;
    let mut tables = Vec::new();
    while !rest.is_empty() && tables.len() < 16 {
        let kind = usize::try_from(number(&mut rest, 1)).expect("a byte") % SIGNATURES.len();
        let length = usize::try_from(number(&mut rest, 2)).expect("two bytes");
        let body = take(&mut rest, length);
        let table = [SIGNATURES[kind], &[0; HEADER - 4][..], body].concat();
        let address = 0x1_0000 + 0x1_0000 * tables.len() as u64;
        tables.push((address, table));
    }
    let dsdt = tables.iter().find(|(_, table)| table.starts_with(b"DSDT"));
    let dsdt = dsdt.map_or(0, |(address, _)| *address);
    let mut list = [&b"XSDT"[..], &[0; HEADER - 4]].concat();
    for (address, table) in &mut tables {
        list.extend(address.to_le_bytes());
        if table.starts_with(b"FACP") && table.len() >= 44 {
            table[40..44].copy_from_slice(&dsdt.to_le_bytes()[..4]);
        }
    }
    tables.push((XSDT, list));
    for (_, table) in &mut tables {
        let length = u32::try_from(table.len()).expect("at most 64 KiB");
        table[4..8].copy_from_slice(&length.to_le_bytes());
        fix_sum(table, 9);
    }
    let mut rsdp = b"RSD PTR \0RINGWY\x02\0\0\0\0".to_vec();
    rsdp.extend(36_u32.to_le_bytes());
    rsdp.extend(XSDT.to_le_bytes());
    rsdp.extend([0; 4]);
    fix_sum(&mut rsdp[..20], 8);
    fix_sum(&mut rsdp, 32);
    tables.push((RSDP, rsdp));

    let found = Acpi::read(&Tables(tables), RSDP);
    for number in (0..48).chain([u32::MAX]) {
        let _ = found.lines.usual(number);
    }
    for region in &found.config_regions {
        let Range { start, end } = ConfigRegion::range(region);
        assert!(start <= end && region.base != 0);
    }
    // As memory that somebody else has written, without a right sum.
    let _ = Acpi::read(&Tables(vec![(RSDP, data.to_vec())]), RSDP);
}

/// A command line.
///
/// # Panics
/// If the kernel does what it must not do.
pub fn command_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let line = CommandLine::new(&text);
    for (key, value) in line.entries() {
        assert!(line.has(key) && line.get(key).is_some());
        if let Ok(IpConfig::Static(StaticConfig {
            address,
            prefix,
            gateway,
            ..
        })) = value.parse()
        {
            assert!(is_host(address) && (1..=32).contains(&prefix), "{value}");
            assert!(gateway != Some(address), "{value}");
        }
        if let Ok(place) = value.parse::<virtio_mmio::Description>() {
            assert!(place.base.0.checked_add(place.size).is_some(), "{value}");
        }
    }
    assert!(line.unknown(&["ip"]).count() <= line.entries().count());
}

/// A memory map: regions, of which each is usable or taken.
///
/// # Panics
/// If the kernel does what it must not do.
pub fn memory_map(data: &[u8]) {
    let mut rest = data;
    let mask = (1_u64 << (32 + number(&mut rest, 1) % 21)) - 1;
    let (mut usable, mut taken) = (Vec::new(), Vec::new());
    while !rest.is_empty() && usable.len() + taken.len() < 64 {
        let kind = number(&mut rest, 1);
        // Whole and odd addresses, small and large ones.
        let shift = kind >> 3 & 0x1f;
        let start = number(&mut rest, 4) << shift;
        let size = number(&mut rest, 4) << shift;
        let range = start..start.saturating_add(size);
        if kind & 1 == 0 {
            usable.push(range);
        } else {
            taken.push(range);
        }
    }
    let overlap =
        |one: &Range<u64>, other: &Range<u64>| one.start.max(other.start) < one.end.min(other.end);
    let free = free_regions(usable.iter().cloned(), &taken.iter().cloned());
    for (index, region) in free.iter().enumerate() {
        assert!(region.start < region.end && region.start % 4096 == 0 && region.end % 4096 == 0);
        assert!(
            taken.iter().all(|taken| !overlap(region, taken)),
            "{region:x?} is taken"
        );
        assert!(free[..index].iter().all(|before| before.end < region.start));
        let mut at = region.start;
        while let Some(covering) = usable.iter().find(|range| range.contains(&at)) {
            at = covering.end;
        }
        assert!(at >= region.end, "{region:x?} is not usable from {at:x} on");
    }
    let memory: Vec<_> = usable.into_iter().chain(taken).collect();
    let below = window_below_4_gib(&memory, [].into_iter());
    assert!(memory.iter().all(|memory| !overlap(&below, memory)));
    if let Some(above) = window_above(&memory, mask) {
        assert!(above.start < above.end && above.start >= 1 << 32 && above.end <= mask + 1);
    }
}

/// DHCP servers that answer with anything, in time and out of it.
///
/// # Panics
/// If the client does what it must not do.
pub fn dhcp(data: &[u8]) {
    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let mut rest = data;
    let mut client = Client::new(MAC, number(&mut rest, 8));
    let (mut now, mut transaction) = (Duration::ZERO, [0; 4]);
    client.set_link(now, true);
    for _ in 0..64 {
        // What is due is soon done: nothing is asked for without a pause.
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 32, "the client never waits");
            match client.step(now) {
                Step::Send(datagram) => {
                    assert!((240..=1500).contains(&datagram.bytes.len()));
                    transaction.copy_from_slice(&datagram.bytes[4..8]);
                }
                Step::Wait(until) => {
                    assert!(
                        until.is_none_or(|until| until > now),
                        "the wait is over already"
                    );
                    break;
                }
                Step::Lost(_) | Step::Refused(_) => {}
            }
        }
        if rest.is_empty() {
            return;
        }
        match number(&mut rest, 1) % 8 {
            0 => now += Duration::from_millis(number(&mut rest, 2)),
            1 => now = now.saturating_add(Duration::from_secs(number(&mut rest, 4))),
            2 => client.set_link(now, number(&mut rest, 1) & 1 != 0),
            3 => drop(client.decline(now)),
            kind => {
                let length = usize::try_from(number(&mut rest, 2)).expect("two bytes") % 1500;
                let body = take(&mut rest, length);
                let mut message = vec![0; 240];
                if kind != 4 {
                    message[..4].copy_from_slice(&[2, 1, 6, 0]);
                    message[4..8].copy_from_slice(&transaction);
                    message[16..20].copy_from_slice(&[10, 0, 2, 15]);
                    message[28..34].copy_from_slice(&MAC);
                    message[236..].copy_from_slice(&[99, 130, 83, 99]);
                }
                message.extend(body);
                let server = Ipv4Addr::new(10, 0, 2, 2);
                if let Some(Event::Bound { lease, .. }) = client.receive(now, server, &message) {
                    assert!(is_host(lease.address), "{}", lease.address);
                }
            }
        }
    }
}

/// A frame.
///
/// # Panics
/// If the kernel does what it must not do.
pub fn frames(data: &[u8]) {
    let _ = notable(data);
    if let Some(arp) = Arp::read(data) {
        let again = arp.frame([0xff; 6]);
        assert_eq!(Arp::read(&again), Some(arp));
        let mut exchanged = data.to_vec();
        let (from, to) = (arp.sender.ip, Ipv4Addr::new(192, 0, 2, 1));
        exchange_in_arp(&mut exchanged, from, to);
        let sender = Arp::read(&exchanged).map(|arp| arp.sender.ip);
        assert_eq!(sender, Some(to));
    }
    let mut frame = data.to_vec();
    if !broadcast_dhcp_answer(&mut frame) {
        assert!(frame == data, "a frame is changed that is none of DHCP's");
    }
}

/// A start info at the begin of memory, and what it refers to: all of the input.
pub fn start_info(data: &[u8]) {
    const START: u64 = 0x1000;
    let memory = Tables(vec![(START, data.to_vec())]);
    let Some(info) = BootInfo::read(&memory, START) else {
        return;
    };
    assert_eq!(data[..4], 0x336e_c578_u32.to_le_bytes());
    let is_there = |address: u64, bytes: &[u8]| memory.bytes(address, bytes.len()) == Some(bytes);
    let field = |offset: usize| {
        let bytes = data.get(offset..offset + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    let mut entry = field(40);
    for region in &info.memory {
        // Empty ones may stand between them.
        let bytes = [region.start.to_le_bytes(), region.size.to_le_bytes()].concat();
        let at = entry.expect("a version with a map");
        let mut found = (0..1024).map(|index| at.wrapping_add(index * 24));
        let found = found.find(|at| is_there(*at, &bytes));
        entry = found.expect("an entry of the map").checked_add(24);
        assert_ne!(region.size, 0);
    }
    let line = &info.command_line;
    assert!(!line.contains('\0') && line.len() <= line.capacity());
    if line.is_ascii() && !line.contains('?') {
        assert!(line.is_empty() || field(24).is_some_and(|at| is_there(at, line.as_bytes())));
    }
    let range = |region: &MemoryRegion| region.start..region.start.saturating_add(region.size);
    free_regions(info.memory.iter().map(range), &core::iter::once(0..1 << 20));
}
