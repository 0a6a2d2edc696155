//! Bodies of requests: JSON with the words of a command as keys.

use vdpa_mgmt::tool::{Command, Form, Invocation, Options};

use super::machine::Machine;
use super::tool_words::carry_out;

/// Reads each line as all that it could be, and carries it out.
///
/// # Panics
/// If what is read is another command, or a device cannot be deleted.
pub fn tool_json(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let machine = Machine::new();
    let options = Options {
        form: Form::Json,
        ..Options::default()
    };
    for line in text.lines().take(16) {
        for (kind, command) in [
            Command::add_from_json(line),
            Command::set_from_json("vdpa0", line),
            Command::move_from_json("vdpa0", line),
        ]
        .into_iter()
        .enumerate()
        {
            let Ok(command) = command else {
                continue;
            };
            let read = match &command {
                Command::Add { .. } => 0,
                Command::SetMac { device, .. } if device == "vdpa0" => 1,
                Command::Move { device, .. } if device == "vdpa0" => 2,
                other => panic!("{other:?} out of {line:?}"),
            };
            assert_eq!(read, kind, "{line:?}");
            if read > 0 || !machine.is_full() {
                carry_out(&machine, &Invocation { options, command });
            }
        }
    }
    machine.clear();
}
