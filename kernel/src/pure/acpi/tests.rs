//! The tables of the machines that QEMU plays, and damaged ones.

use super::testing::{FakeMemory, rsdp, table};
use super::*;

const RSDP: u64 = 0xf_5000;
const LIST: u64 = 0x7fe_0000;
const MCFG: u64 = 0x7fe_1000;
const FADT: u64 = 0x7fe_2000;
const DSDT: u64 = 0x7fe_3000;

/// A FADT body with values at offsets that count from the table's start.
fn fadt(values: &[(usize, &[u8])]) -> std::vec::Vec<u8> {
    let mut body = std::vec![0; 276 - 36];
    for (offset, bytes) in values {
        body[offset - 36..][..bytes.len()].copy_from_slice(bytes);
    }
    table(b"FACP", &body)
}

fn mcfg() -> std::vec::Vec<u8> {
    let mut body = std::vec![0; 8];
    body.extend(0xb000_0000_u64.to_le_bytes());
    body.extend([0, 0, 0, 0xff, 0, 0, 0, 0]);
    table(b"MCFG", &body)
}

/// A PC: ports for the timer and the sleep control, S5 in the definitions.
fn pc() -> FakeMemory {
    let list: std::vec::Vec<u8> = [MCFG, FADT]
        .iter()
        .flat_map(|address| (*address as u32).to_le_bytes())
        .collect();
    let fadt = fadt(&[
        (40, &(DSDT as u32).to_le_bytes()),
        (64, &0x604_u32.to_le_bytes()),
        (76, &0x608_u32.to_le_bytes()),
        (91, &[4]),
    ]);
    let dsdt = table(
        b"DSDT",
        b"\x10\x20\\_SB_\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00",
    );
    let mut memory = FakeMemory::default();
    memory.blocks.extend([
        (RSDP, rsdp(LIST as u32, None)),
        (LIST, table(b"RSDT", &list)),
        (MCFG, mcfg()),
        (FADT, fadt),
        (DSDT, dsdt),
    ]);
    memory
}

#[test]
fn a_pc_has_config_space_a_timer_and_a_power_switch() {
    let acpi = Acpi::read(&pc(), RSDP);
    let region = ConfigRegion {
        base: 0xb000_0000,
        segment: 0,
        first_bus: 0,
        last_bus: 255,
    };
    assert_eq!(acpi.config_regions, [region]);
    assert_eq!(
        acpi.pm_timer,
        Some(PmTimer {
            port: 0x608,
            bits: 24
        })
    );
    let register = SleepRegister::Pm1Control(0x604);
    assert_eq!(
        acpi.power_off,
        Some(PowerOff {
            register,
            value: 5 << 10 | 1 << 13
        })
    );
}

#[test]
fn the_serial_port_interrupts_where_the_table_says() {
    const MADT: u64 = 0x7fe_4000;
    let mut memory = pc();
    assert_eq!(Acpi::read(&memory, RSDP).lines.usual(4), None);
    let local_apic_and_flags = [0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    let io_apic = [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
    let madt = table(b"APIC", &[&local_apic_and_flags[..], &io_apic].concat());
    let list = [MADT as u32, MCFG as u32].map(u32::to_le_bytes).concat();
    memory
        .blocks
        .extend([(MADT, madt), (LIST, table(b"RSDT", &list))]);
    let line = Acpi::read(&memory, RSDP).lines.usual(4).unwrap();
    assert_eq!((line.io_apic, line.input), (0xfec0_0000, 4));
}

#[test]
fn a_bus_number_in_any_definition_means_more_root_buses() {
    const SSDT: u64 = 0x7fe_5000;
    let host = b"\x5b\x82\x0cPC80\x08_BBN\x0a\x80";
    assert!(Acpi::read(&pc(), RSDP).has_one_root_bus);
    assert!(!Acpi::default().has_one_root_bus, "nobody says so");
    let mut memory = pc();
    memory.blocks.remove(&DSDT);
    assert!(!Acpi::read(&memory, RSDP).has_one_root_bus, "nor here");
    let mut memory = pc();
    let first = b"\x5b\x82\x0cPCI0\x08_BBN\x00\x08_UID\x00";
    memory.blocks.insert(DSDT, table(b"DSDT", first));
    assert!(Acpi::read(&memory, RSDP).has_one_root_bus);
    memory.blocks.insert(DSDT, table(b"DSDT", host));
    assert!(!Acpi::read(&memory, RSDP).has_one_root_bus);
    let mut memory = pc();
    let list = [FADT, SSDT, SSDT + 0x1000].map(|address| (address as u32).to_le_bytes());
    memory.blocks.extend([
        (LIST, table(b"RSDT", &list.concat())),
        (SSDT, table(b"SSDT", b"")),
        (SSDT + 0x1000, table(b"SSDT", host)),
    ]);
    assert!(!Acpi::read(&memory, RSDP).has_one_root_bus);
}

#[test]
fn the_extended_list_is_preferred() {
    let mut memory = pc();
    memory.blocks.insert(RSDP, rsdp(0, Some(LIST)));
    memory
        .blocks
        .insert(LIST, table(b"XSDT", &MCFG.to_le_bytes()));
    let acpi = Acpi::read(&memory, RSDP);
    assert_eq!(acpi.config_regions.len(), 1);
    assert_eq!(acpi.pm_timer, None);
}

#[test]
fn a_hardware_reduced_machine_sleeps_by_a_register_in_memory() {
    let mut memory = pc();
    let reduced = fadt(&[
        (76, &0x608_u32.to_le_bytes()),
        (91, &[4]),
        (112, &(1_u32 << 20).to_le_bytes()),
        (140, &DSDT.to_le_bytes()),
        (244, &[0, 8, 0, 1]),
        (248, &0xfea0_0000_u64.to_le_bytes()),
    ]);
    memory.blocks.insert(FADT, reduced);
    let acpi = Acpi::read(&memory, RSDP);
    assert_eq!(acpi.pm_timer, None);
    let register = SleepRegister::Memory(0xfea0_0000);
    assert_eq!(
        acpi.power_off,
        Some(PowerOff {
            register,
            value: 5 << 2 | 1 << 5
        })
    );
}

#[test]
fn a_damaged_table_is_as_good_as_missing() {
    for damaged in [RSDP, LIST, MCFG, FADT, DSDT] {
        let mut memory = pc();
        *memory.blocks.get_mut(&damaged).unwrap().last_mut().unwrap() ^= 1;
        let acpi = Acpi::read(&memory, RSDP);
        assert_ne!(acpi, Acpi::read(&pc(), RSDP), "{damaged:#x}");
    }
}

#[test]
fn lengths_are_checked() {
    for address in [LIST, MCFG, FADT, DSDT] {
        for length in [0_u32, 35, 1 << 16, u32::MAX] {
            let mut memory = pc();
            memory.blocks.get_mut(&address).unwrap()[4..8].copy_from_slice(&length.to_le_bytes());
            let acpi = Acpi::read(&memory, RSDP);
            assert_ne!(
                acpi,
                Acpi::read(&pc(), RSDP),
                "{address:#x} with length {length}"
            );
        }
    }
}

#[test]
fn no_memory_holds_no_tables() {
    assert_eq!(Acpi::read(&FakeMemory::default(), RSDP), Acpi::default());
}

#[test]
fn truncated_definitions_of_soft_off_are_passed_over() {
    let mut memory = pc();
    for end in [
        "",
        "\x06",
        "\x06\x04",
        "\x06\x04\x0a",
        "\x06\x04\x0c\x05",
        "\x06\x04\x0a\x08",
    ] {
        let aml = std::format!("\x08_S5_\x12{end}");
        memory.blocks.insert(DSDT, table(b"DSDT", aml.as_bytes()));
        assert_eq!(Acpi::read(&memory, RSDP).power_off, None, "{end:?}");
    }
}
