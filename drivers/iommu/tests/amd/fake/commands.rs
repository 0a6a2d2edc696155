//! The command buffer (AMD 48882, 2.4).

use virtq::DmaAddr;

use super::{
    CMD_BUF_RUN, COMMAND_BASE, COMMAND_HEAD, COMMAND_TAIL, Defect, FakeAmdVi, IA_SUP, STATUS, State,
};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of a command's two halves that are used; others are reserved.
const USED: [(u64, u64); 5] = [
    (0x000f_ffff_ffff_ffff, u64::MAX),
    (0xffff, 0),
    (0x0000_ffff_000f_ffff, !0xfff | 0b111),
    (0, 0),
    (0xffff, 0),
];

impl FakeAmdVi {
    pub(super) fn run_commands(&self, state: &mut State) {
        while state.register(STATUS) & CMD_BUF_RUN != 0 && state.defect != Defect::Stuck {
            let base = state.register(COMMAND_BASE);
            let size = 16 << (base >> 56 & 0xf);
            let (head, tail) = (state.register(COMMAND_HEAD), state.register(COMMAND_TAIL));
            if head >= size || tail >= size || !tail.is_multiple_of(16) {
                state.violation("head or tail lies outside the command buffer");
                return;
            }
            if head == tail {
                return;
            }
            let at = (base & ADDRESS) + head;
            let first = self.read_word(state, at, "the command buffer");
            let second = self.read_word(state, at + 8, "the command buffer");
            let illegal = state.defect == Defect::IllegalCommand;
            if illegal || !self.execute(state, first, second) {
                state.halted = true;
                state.set(STATUS, state.register(STATUS) & !CMD_BUF_RUN);
                if !illegal {
                    state.violation(format!("illegal command {first:#x} {second:#x}"));
                }
                self.log(state, [5 << 60, at]);
                return;
            }
            state.set(COMMAND_HEAD, (head + 16) % size);
            self.let_restless_access(state);
        }
    }

    /// False, if the command is illegal.
    fn execute(&self, state: &mut State, first: u64, second: u64) -> bool {
        let opcode = first >> 60;
        let known = match opcode {
            1..=3 => USED[opcode as usize - 1],
            5 => USED[4],
            8 => USED[3],
            _ => return false,
        };
        if first & !(known.0 | 0xf << 60) != 0 || second & !known.1 != 0 {
            return false;
        }
        let device = first as u16;
        match opcode {
            1 => {
                state.waits += 1;
                if first & 1 != 0 {
                    let at = DmaAddr(first & 0x000f_ffff_ffff_fff8);
                    if self.memory.write(at, &second.to_le_bytes()).is_err() {
                        state.violation("a wait stores where nothing is");
                    }
                }
            }
            2 => {
                state.caches.devices.remove(&device);
            }
            3 => {
                let (first_addr, last) = block(second);
                let directories = second & 0b10 != 0;
                let domain = (first >> 32) as u16;
                state
                    .caches
                    .forget_pages(domain, first_addr, last, directories);
            }
            5 => state.caches.interrupts.retain(|(id, _), _| *id != device),
            _ if self.model.features & IA_SUP == 0 => return false,
            _ => state.caches = super::Caches::default(),
        }
        true
    }
}

/// The addresses that a command names: with the size bit, twice the lowest bit that is zero.
fn block(word: u64) -> (u64, u64) {
    let addr = word & !0xfff;
    if word & 1 == 0 {
        return (addr, addr | 0xfff);
    }
    let zero = (12..64).find(|bit| addr >> bit & 1 == 0);
    match zero {
        None | Some(63) => (0, u64::MAX),
        Some(bit) => {
            let size = 1_u64 << (bit + 1);
            (addr & !(size - 1), addr | (size - 1))
        }
    }
}
