//! The heap.

use alloc::alloc::{Layout, alloc, dealloc};
use alloc::vec;
use alloc::vec::Vec;

use crate::bench::Bench;
use crate::outcome::Outcome;
use crate::{ensure, ensure_eq, guest_tests};

guest_tests![
    alignment_is_kept,
    blocks_do_not_overlap,
    freed_memory_is_used_again,
    impossible_size_is_refused,
];

async fn blocks_do_not_overlap(_bench: &Bench) -> Outcome {
    let blocks: Vec<Vec<u8>> = (0..200_u8)
        .map(|n| vec![n; 1 + usize::from(n) * 37])
        .collect();
    for (n, block) in (0_u8..).zip(&blocks) {
        ensure!(
            block.iter().all(|byte| *byte == n),
            "block {n} was written to by another"
        );
    }
    Ok(())
}

/// How many words there are in a page.
const PAGE_WORDS: usize = 1024;

async fn freed_memory_is_used_again(_bench: &Bench) -> Outcome {
    // Several times what the machine has, a MiB at a time.
    let mut sum = 0_u64;
    for round in 0..500_u32 {
        let mut block = vec![0; 256 * 1024];
        for word in block.iter_mut().rev().step_by(PAGE_WORDS) {
            *word = round;
        }
        sum += u64::from(block[block.len() - 1]);
    }
    ensure_eq!(sum, 499 * 250);
    Ok(())
}

async fn alignment_is_kept(_bench: &Bench) -> Outcome {
    for shift in 0..=16 {
        let layout = Layout::from_size_align(24, 1 << shift)?;
        // SAFETY: the layout's size is not zero.
        let block = unsafe { alloc(layout) };
        ensure!(!block.is_null(), "no block aligned to {}", layout.align());
        let address = block.addr();
        // SAFETY: the block comes from `alloc` with this layout.
        unsafe { dealloc(block, layout) };
        ensure_eq!(address % layout.align(), 0);
    }
    Ok(())
}

async fn impossible_size_is_refused(_bench: &Bench) -> Outcome {
    let mut bytes: Vec<u8> = Vec::new();
    ensure!(
        bytes.try_reserve_exact(1 << 46).is_err(),
        "64 TiB were given"
    );
    ensure!(
        bytes.try_reserve_exact(4096).is_ok(),
        "a page was refused afterwards"
    );
    Ok(())
}
