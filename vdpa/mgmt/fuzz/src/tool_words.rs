//! Commands as a user types them, one a line.

use std::collections::BTreeSet;

use serde_json::Value;
use vdpa_mgmt::tool::{self, Command, Form, Invocation};

use super::machine::Machine;

/// Carries out some commands, one after the other.
///
/// # Panics
/// If JSON is none, a name occurs twice, or a device cannot be deleted.
pub fn tool_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let machine = Machine::new();
    for line in text.lines().take(16) {
        let words: Vec<_> = line.split_whitespace().collect();
        let invocation = match Invocation::parse(&words) {
            Ok(invocation) => invocation,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        if matches!(invocation.command, Command::Add { .. }) && machine.is_full() {
            continue;
        }
        carry_out(&machine, &invocation);
    }
    let names = machine.names();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
    machine.clear();
}

pub fn carry_out(machine: &Machine, invocation: &Invocation) {
    let Invocation { options, command } = invocation;
    let result = machine
        .platform
        .block_on(tool::run(&machine.management, command));
    match result {
        Ok(output) => {
            let printed = output.print(*options);
            if options.form != Form::Text {
                let json: Value = serde_json::from_str(&printed).expect("JSON");
                assert!(json.is_object(), "{printed}");
            }
            assert!(printed.is_empty() || printed.ends_with('\n'), "{printed:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
