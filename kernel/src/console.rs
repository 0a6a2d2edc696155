//! The serial console on the first serial port, for the log and for a last message before the end.
//!
//! Output is synchronous and complete when the call returns, so that nothing is lost however the
//! kernel ends. It reads no input.

use core::fmt::{self, Write};
use core::hint::spin_loop;

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{Config, Uart16550};

use crate::sync::IrqMutex;

/// The usual I/O port of the first serial port of a PC.
const COM1: u16 = 0x3f8;
/// How often the transmitter is asked before it counts as dead.
const PATIENCE: u32 = 1_000_000;

static CONSOLE: IrqMutex<Console> = IrqMutex::new(Console { uart: None });

struct Console {
    /// `None` before [`init`], and if there is no serial port.
    uart: Option<Uart16550<PioBackend>>,
}

/// Sets the serial port up. A machine without one goes on without a console.
pub(crate) fn init() {
    // SAFETY: the port is that of the serial port by convention of the PC, and this is its only
    // user.
    let uart = unsafe { Uart16550::new_port(COM1) };
    if let Ok(mut uart) = uart
        && uart.init(Config::DEFAULT).is_ok()
    {
        CONSOLE.with(|console| console.uart = Some(uart));
    }
}

/// Writes to the console. The whole of `arguments` appears in one piece.
pub(crate) fn write(arguments: fmt::Arguments<'_>) {
    CONSOLE.with(|console| {
        // Writing to the console does not fail, and a failing `Display` has nowhere to be reported.
        let _: fmt::Result = console.write_fmt(arguments);
    });
}

/// Opens the console to a kernel that is about to end, though its lock may be held by code that
/// will not run again.
///
/// # Safety
/// Nothing else runs any more: interrupts are off, and the caller does not return.
pub(crate) unsafe fn take_over() {
    // SAFETY: passed on to the caller.
    unsafe { CONSOLE.force_unlock() };
}

/// Waits until the last byte has left the serial port.
pub(crate) fn drain() {
    CONSOLE.with(|console| {
        let Some(uart) = &mut console.uart else {
            return;
        };
        for _ in 0..PATIENCE {
            if uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
            spin_loop();
        }
    });
}

impl Console {
    fn send(&mut self, mut bytes: &[u8]) {
        let Some(uart) = &mut self.uart else { return };
        let mut patience = PATIENCE;
        while !bytes.is_empty() && patience > 0 {
            let sent = uart.send_bytes(bytes);
            bytes = &bytes[sent..];
            patience -= 1;
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            match piece.strip_suffix('\n') {
                Some(line) => {
                    self.send(line.as_bytes());
                    self.send(b"\r\n");
                }
                None => self.send(piece.as_bytes()),
            }
        }
        Ok(())
    }
}
