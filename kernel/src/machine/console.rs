//! The serial console on the first serial port: the log, a last message before the end, and lines
//! that somebody types. A machine without the port may have a monitor's debug port, which takes the
//! output alone.
//!
//! Output is synchronous and complete when the call returns, so that nothing is lost however the
//! kernel ends. A line that is being typed steps aside for it.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt::{self, Write};
use core::hint::spin_loop;

use embassy_futures::yield_now;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{Config, Uart16550};
use vdpa::Platform;
use vdpa::platform::{Callback, ConnectedLine, InterruptLine, Signal};
use virtq::Event;
use x86_64::instructions::port::Port as IoPort;

use crate::machine::cpu;
use crate::machine::sync::IrqMutex;
use crate::pure::line_editor::LineEditor;

/// The usual I/O port of the first serial port of a PC.
const COM1: u16 = 0x3f8;
/// Where Bochs, QEMU (`isa-debugcon`) and Cloud Hypervisor take the bytes of a debug console. For
/// the first two it reads as its number; the last one leaves what is read as it was.
const DEBUG_PORT: u16 = 0xe9;
/// What is read where no device is.
const NO_DEVICE: u8 = 0xff;
/// How often the transmitter is asked before it counts as dead.
const PATIENCE: u32 = 1_000_000;
/// How many bytes are taken before other tasks have their turn: what the receiver holds.
const BYTES_AT_ONCE: usize = 16;

static CONSOLE: IrqMutex<Console> = IrqMutex::new(Console {
    port: Port {
        serial: None,
        debug: None,
    },
    editor: LineEditor::new(),
});
/// Raised when the receiver holds something.
static RECEIVED: Event = Event::new();

struct Console {
    port: Port,
    editor: LineEditor,
}

/// Where the console is: on a serial port, on a debug port, or nowhere, as before [`init`].
struct Port {
    serial: Option<Uart16550<PioBackend>>,
    debug: Option<IoPort<u8>>,
}

/// Sets the serial port up, or finds the debug port. A machine without either goes on without a
/// console.
pub(crate) fn init() {
    // SAFETY: the port is that of the serial port by convention of the PC, and this is its only
    // user.
    let uart = unsafe { Uart16550::new_port(COM1) };
    if let Ok(mut uart) = uart
        && uart.init(Config::DEFAULT).is_ok()
    {
        CONSOLE.with(|console| console.port.serial = Some(uart));
        return;
    }
    let mut port = IoPort::<u8>::new(DEBUG_PORT);
    // SAFETY: nothing else is at this port, and reading it has no effect.
    let answer = unsafe { port.read() };
    let answers = u16::from(answer) == DEBUG_PORT;
    // Below a monitor a byte for nobody is lost without harm.
    if answers || (answer != NO_DEVICE && cpu::has_hypervisor()) {
        CONSOLE.with(|console| console.port.debug = Some(port));
    }
}

/// Writes to the console. The whole of `arguments` appears in one piece.
pub(crate) fn write(arguments: fmt::Arguments<'_>) {
    CONSOLE.with(|console| {
        let Console { port, editor } = console;
        // Writing to the console does not fail, and a failing `Display` has nowhere to be reported.
        let _: fmt::Result = editor.hide(port);
        let _: fmt::Result = port.write_fmt(arguments);
        let _: fmt::Result = editor.show(port);
    });
}

/// The interrupt of the first serial port of a PC.
const SERIAL_LINE: InterruptLine = InterruptLine {
    number: 4,
    signal: Signal::Unstated,
};

/// What reads lines from the console.
#[derive(Debug)]
pub(crate) struct Lines {
    _line: Box<dyn ConnectedLine>,
}

impl Lines {
    /// Listens to the serial port. There must be no other listener. `None`, if that cannot be had;
    /// the reason is in the log.
    pub(crate) fn listen(platform: &dyn Platform) -> Option<Self> {
        platform
            .connect_line(SERIAL_LINE, Callback::new(received))
            .map(|line| Self { _line: line })
            .inspect_err(|error| log::debug!("console: no input, {error}"))
            .ok()
    }

    /// The next line that is not blank.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            match CONSOLE.with(Console::receive) {
                Received::Line(line) => return line,
                Received::Part => yield_now().await,
                Received::Nothing => RECEIVED.wait().await,
            }
        }
    }
}

/// The interrupt handler. The port is silent until the receiver has been emptied, whatever its line
/// is like.
fn received() {
    CONSOLE.with(|console| {
        if let Some(uart) = &mut console.port.serial {
            uart.disable_interrupts(IER::DATA_READY);
        }
    });
    RECEIVED.raise();
}

/// What the receiver held.
enum Received {
    /// The end of a line, and perhaps more.
    Line(String),
    /// A part of a line, and perhaps more.
    Part,
    /// Nothing; an interrupt tells of the next byte.
    Nothing,
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
        let Some(uart) = &mut console.port.serial else {
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
    /// Takes some bytes out of the receiver, but none after the end of a line: they stay where they
    /// are while the line is being dealt with.
    fn receive(&mut self) -> Received {
        let Self { port, editor } = self;
        for _ in 0..BYTES_AT_ONCE {
            let Some(byte) = port.receive() else {
                if port.listen() {
                    return Received::Nothing;
                }
                continue;
            };
            // Writing to the console does not fail.
            if let Ok(Some(line)) = editor.feed(byte, port) {
                return Received::Line(line);
            }
        }
        Received::Part
    }
}

impl Port {
    fn receive(&mut self) -> Option<u8> {
        self.serial.as_mut()?.try_receive_byte().ok()
    }

    /// Lets the port interrupt when there is a byte. False, if there is one already.
    fn listen(&mut self) -> bool {
        let Some(uart) = &mut self.serial else {
            return true;
        };
        uart.enable_interrupts(IER::DATA_READY);
        !uart.lsr().contains(LSR::DATA_READY)
    }

    fn send(&mut self, mut bytes: &[u8]) {
        if let Some(port) = &mut self.debug {
            for byte in bytes {
                // SAFETY: the port takes bytes for somebody to read, and touches no memory.
                unsafe { port.write(*byte) };
            }
        }
        let Some(uart) = &mut self.serial else {
            return;
        };
        let mut patience = PATIENCE;
        while !bytes.is_empty() && patience > 0 {
            let sent = uart.send_bytes(bytes);
            bytes = &bytes[sent..];
            patience -= 1;
        }
    }
}

impl Write for Port {
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
