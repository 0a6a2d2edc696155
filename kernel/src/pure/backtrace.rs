//! Where a stack came from, without frame pointers or unwind tables, neither of which a kernel for
//! this target has.
//!
//! Every word on the stack that points into the code just behind a call instruction is taken for a
//! return address. That finds every caller, and now and then a call that has long returned.

use core::ops::Range;

/// The longest call instruction without its prefixes: opcode, ModRM, SIB, 32-bit displacement.
const LONGEST_CALL: usize = 7;

/// The words of `stack` that look like return addresses into `code`, which lies at `code_start`.
pub(crate) fn return_addresses(
    stack: &[u64],
    code_start: u64,
    code: &[u8],
) -> impl Iterator<Item = u64> {
    stack.iter().copied().filter(move |word| {
        let end = word
            .checked_sub(code_start)
            .and_then(|offset| usize::try_from(offset).ok());
        end.and_then(|end| code.get(..end)).is_some_and(|before| {
            ends_with_call(before, *word, &(code_start..code_start + code.len() as u64))
        })
    })
}

/// Whether `before`, the code up to `address`, ends with a call into `code` or through a pointer.
fn ends_with_call(before: &[u8], address: u64, code: &Range<u64>) -> bool {
    if let Some([0xe8, displacement @ ..]) = before.last_chunk::<5>() {
        let target = address.wrapping_add_signed(i32::from_le_bytes(*displacement).into());
        if code.contains(&target) {
            return true;
        }
    }
    (2..=LONGEST_CALL)
        .filter_map(|length| {
            before
                .len()
                .checked_sub(length)
                .map(|start| &before[start..])
        })
        .any(|instruction| {
            instruction[0] == 0xff && indirect_call_length(instruction) == Some(instruction.len())
        })
}

/// The length of the instruction `ff /2`, a call through a register or memory (Intel SDM vol. 2,
/// table 2-2), if it is one.
fn indirect_call_length(instruction: &[u8]) -> Option<usize> {
    let modrm = instruction[1];
    let (mode, register, rm) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
    if register != 2 {
        return None;
    }
    let has_sib = mode != 3 && rm == 4;
    let sib = if has_sib {
        Some(*instruction.get(2)?)
    } else {
        None
    };
    let displacement = match (mode, rm) {
        (0, 5) => 4,
        (0, _) if sib.is_some_and(|sib| sib & 7 == 5) => 4,
        (0 | 3, _) => 0,
        (1, _) => 1,
        _ => 4,
    };
    Some(2 + usize::from(has_sib) + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x10_0000;

    /// Whether the end of `instruction`, with some other code before and behind it, is found.
    fn found(instruction: &[u8]) -> bool {
        let code = [&[0x90; 16], instruction, &[0x90; 16]].concat();
        let address = START + 16 + instruction.len() as u64;
        return_addresses(&[address], START, &code).eq([address])
    }

    #[test]
    fn calls_are_recognised() {
        assert!(found(&[0xe8, 0xf0, 0xff, 0xff, 0xff]), "call rel32");
        assert!(found(&[0xff, 0xd0]), "call rax");
        assert!(found(&[0x41, 0xff, 0xd7]), "call r15");
        assert!(found(&[0xff, 0x10]), "call [rax]");
        assert!(found(&[0xff, 0x50, 0x18]), "call [rax + 0x18]");
        assert!(found(&[0xff, 0x54, 0x24, 0x08]), "call [rsp + 8]");
        assert!(found(&[0xff, 0x15, 1, 2, 3, 4]), "call [rip + disp32]");
        assert!(found(&[0xff, 0x90, 1, 2, 3, 4]), "call [rax + disp32]");
        assert!(
            found(&[0xff, 0x94, 0x24, 1, 2, 3, 4]),
            "call [rsp + disp32]"
        );
        assert!(
            found(&[0xff, 0x14, 0xc5, 1, 2, 3, 4]),
            "call [rax * 8 + disp32]"
        );
    }

    #[test]
    fn other_code_is_not_taken_for_a_call() {
        assert!(!found(&[0x48, 0x89, 0xc7]), "mov rdi, rax");
        assert!(!found(&[0xff, 0xe0]), "jmp rax");
        assert!(!found(&[0xe8, 0, 0, 0, 0x40]), "a call out of the code");
        assert!(!found(&[0xff, 0x50]), "a call that lacks its last byte");
    }

    #[test]
    fn words_outside_the_code_are_passed_over() {
        let code = [0xff, 0xd0, 0x90];
        let stack = [
            0,
            START - 1,
            START,
            START + 1,
            START + 2,
            START + 3,
            START + 4,
            u64::MAX,
        ];
        assert!(return_addresses(&stack, START, &code).eq([START + 2]));
    }
}
