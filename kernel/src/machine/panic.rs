//! The end of a kernel that cannot go on: a message, where it came from, and a failing exit code.

use core::fmt;
use core::ops::Range;
use core::panic::PanicInfo;
use core::ptr::with_exposed_provenance;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::instructions::interrupts;

use crate::machine::console;
use crate::machine::exit::exit;
use crate::machine::memory::stacks;
use crate::pure::backtrace::return_addresses;
use crate::pure::exit_code::ExitCode;
use crate::pure::memory::regions::PAGE_SIZE;

/// The most return addresses that are shown.
const DEPTH: usize = 24;

/// Whether the kernel is about to end, so that another failure in its course only ends the machine.
static DYING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // The callers' frames lie above any variable of this one.
    let here = 0_u64;
    die(format_args!("{info}"), (&raw const here).addr() as u64)
}

/// Ends the kernel with `message` and the return addresses on the stack from `stack_pointer` up.
pub(crate) fn die(message: fmt::Arguments<'_>, stack_pointer: u64) -> ! {
    interrupts::disable();
    // SAFETY: interrupts are off, and the kernel ends here.
    unsafe { console::take_over() };
    if !DYING.swap(true, Ordering::Relaxed) {
        console::write(format_args!("\n{message}\n"));
        console::write(format_args!(
            "backtrace, by what the stack holds:{}\n",
            Backtrace { stack_pointer }
        ));
    }
    exit(ExitCode::PANIC)
}

struct Backtrace {
    stack_pointer: u64,
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(stack) = words_above(self.stack_pointer) else {
            return f.write_str(" the stack pointer is not in a stack");
        };
        let text = boot::text();
        // What a recursion leaves is shown once.
        let mut previous = None;
        // SAFETY: the code is mapped for ever and nothing writes it.
        let code = unsafe { bytes(&text) };
        return_addresses(stack, text.start, code)
            .filter(|address| previous.replace(*address) != Some(*address))
            .take(DEPTH)
            .try_for_each(|address| write!(f, " {address:#x}"))
    }
}

/// What lies on the kernel's stack from `stack_pointer` up. A stack that has overflowed has it all.
fn words_above(stack_pointer: u64) -> Option<&'static [u64]> {
    let stack =
        stacks().find(|stack| (stack.start - PAGE_SIZE..=stack.end).contains(&stack_pointer))?;
    let first = stack_pointer
        .max(stack.start)
        .next_multiple_of(size_of::<u64>() as u64);
    let words = (stack.end - first) as usize / size_of::<u64>();
    // SAFETY: the words lie in a stack, which is mapped for ever. The frames of this call lie below
    // them, and nothing else runs any more that would write them.
    Some(unsafe { slice::from_raw_parts(with_exposed_provenance(first as usize), words) })
}

/// # Safety
/// The range is mapped for ever, and nothing writes it.
unsafe fn bytes(range: &Range<u64>) -> &'static [u8] {
    let length = (range.end - range.start) as usize;
    // SAFETY: passed on to the caller.
    unsafe { slice::from_raw_parts(with_exposed_provenance(range.start as usize), length) }
}
