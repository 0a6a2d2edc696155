//! Forbidden things. The machine must end with the panic code after each of them, and say why.

use core::hint::black_box;
use core::mem::transmute;
use core::ptr;

use kernel::ExitCode;

/// `ret`, as data.
static RETURN: [u8; 1] = [0xc3];

/// Does the forbidden thing `name`. A return from it means that it was not stopped.
pub fn commit(name: &str) -> ExitCode {
    match name {
        "write_to_code" => write_to_code(),
        "write_to_constant" => write_to_constant(),
        "run_data" => run_data(),
        "read_null" => read_null(),
        "overflow_stack" => {
            black_box(overflow_stack(0));
        }
        "panic" => panic!("this panic is wanted"),
        _ => kernel::log::error!("no forbidden thing is called {name}"),
    }
    ExitCode::FAILURE
}

fn write_to_code() {
    let code = write_to_code as *const () as *mut u8;
    // SAFETY: not sound; the page must be mapped without the right to write, so it does not happen.
    unsafe { ptr::write_volatile(code, 0xc3) };
}

fn write_to_constant() {
    let constant = (&raw const RETURN).cast_mut().cast::<u8>();
    // SAFETY: not sound; the page must be mapped without the right to write, so it does not happen.
    unsafe { ptr::write_volatile(constant, 0x90) };
}

fn run_data() {
    // SAFETY: the bytes are a function that returns; the page must be mapped without the right to
    // execute, so it does not.
    let function = unsafe { transmute::<*const [u8; 1], extern "C" fn()>(&raw const RETURN) };
    function();
}

fn read_null() {
    // SAFETY: not sound; the first page must not be mapped, so nothing is read.
    black_box(unsafe { ptr::read_volatile(black_box(ptr::null::<u8>())) });
}

#[expect(
    unconditional_recursion,
    reason = "the guard page below the stack ends it"
)]
fn overflow_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    overflow_stack(depth + 1) + frame[0]
}
