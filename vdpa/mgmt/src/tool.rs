//! The program `vdpa` of iproute2, as a library: its words in, its text or JSON out.
//!
//! [`Invocation::parse`] reads words as a user types them, [`run`] lets [`Management`] do it, and
//! the [`Output`] shows itself as text or as JSON, in the program's shapes and with its keys. Here
//! is no console and no network: both belong to an application.
//!
//! Beyond the program, the configuration of block devices is shown, devices can be made with a
//! capacity, a block size and queues, devices can be moved (`dev move`), and an error says what to
//! type instead.
//!
//! Source of words and shapes: `vdpa(8)`, `vdpa-dev(8)`, `vdpa-mgmtdev(8)`.

mod attribute;
mod command;
mod error;
mod fields;
mod json;
mod names;
mod options;
mod output;
mod print;
mod shape;
mod size;
mod text;
mod usage;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use vdpa::device::Removed;

use crate::{Management, MgmtError};

pub use self::command::{Command, Invocation};
pub use self::error::{Refused, ToolError, UsageError};
pub use self::fields::{Fields, Value};
pub use self::json::words as words_of_json;
pub use self::options::{Form, Numbers, Options};
pub use self::output::Output;

/// Reads `words`, does what they say, and returns what there is to print.
///
/// # Errors
/// [`ToolError`]: its text says what to type instead.
pub async fn run_words(
    management: &Management,
    words: impl IntoIterator<Item = &str>,
) -> Result<String, ToolError> {
    let words: Vec<_> = words.into_iter().collect();
    let Invocation { options, command } = Invocation::parse(&words)?;
    let output = run(management, &command).await?;
    Ok(output.print(options))
}

/// Lets `management` do what the command says.
///
/// # Errors
/// [`Refused`]: its text says what to type instead.
pub async fn run(management: &Management, command: &Command) -> Result<Output, Refused> {
    let output = carry_out(management, command).await;
    output.map_err(|error| Refused {
        subject: subject(command),
        error,
    })
}

async fn carry_out(management: &Management, command: &Command) -> Result<Output, MgmtError> {
    Ok(match command {
        Command::Help(usage) => Output::Help(usage),
        Command::ShowManagers(wanted) => {
            Output::Managers(management.managers(wanted.as_ref()).await?)
        }
        Command::ShowDevices(wanted) => {
            Output::Devices(management.devices(wanted.as_deref()).await?)
        }
        Command::ShowConfigs(wanted) => {
            Output::Configs(management.configs(wanted.as_deref()).await?)
        }
        Command::ShowStatistics { device, queue } => {
            Output::Statistics(device.clone(), management.statistics(device, *queue).await?)
        }
        Command::Add {
            name,
            manager,
            attributes,
        } => {
            management.add(name, manager, attributes).await?;
            Output::Done
        }
        Command::Delete(name) => match management.delete(name).await? {
            Removed::Clean => Output::Done,
            Removed::Leaked { queues } => Output::Leaked {
                device: name.clone(),
                queues,
            },
        },
        Command::Move { device, to } => {
            management.move_device(device, to).await?;
            Output::Done
        }
        Command::SetMac { device, mac } => {
            management.set_mac(device, *mac).await?;
            Output::Done
        }
    })
}

/// What the command is about, by which a refusal begins.
fn subject(command: &Command) -> String {
    match command {
        Command::Help(_) => String::new(),
        Command::ShowManagers(wanted) => {
            wanted.as_ref().map(ToString::to_string).unwrap_or_default()
        }
        Command::ShowDevices(wanted) | Command::ShowConfigs(wanted) => {
            wanted.clone().unwrap_or_default()
        }
        Command::ShowStatistics { device, .. }
        | Command::Move { device, .. }
        | Command::SetMac { device, .. } => device.clone(),
        Command::Add { name, .. } | Command::Delete(name) => name.clone(),
    }
}
