//! The commands of the console: what a line that somebody types does.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::pin::Pin;

use crate::machine::console::{self, Lines};

/// What a command answers, running.
type Answer = Pin<Box<dyn Future<Output = String>>>;

/// A command that an application offers on the console.
pub struct ConsoleCommand {
    name: &'static str,
    summary: &'static str,
    run: Box<dyn Fn(Vec<String>) -> Answer>,
}

impl ConsoleCommand {
    /// A command that is called `name`. `run` gets the words after it, and what it returns is
    /// printed. `summary` is for the list of commands.
    pub fn new<F>(
        name: &'static str,
        summary: &'static str,
        run: impl Fn(Vec<String>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = String> + 'static,
    {
        Self {
            name,
            summary,
            run: Box::new(move |words| Box::pin(run(words))),
        }
    }
}

impl fmt::Debug for ConsoleCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsoleCommand({})", self.name)
    }
}

/// Does what the lines say, one after the other.
pub(crate) async fn serve(mut lines: Lines, commands: Vec<ConsoleCommand>) {
    loop {
        let line = lines.next().await;
        let answer = answer(&commands, &line).await;
        // Line by line, so that nobody waits for the console longer than a line takes.
        for line in answer.lines() {
            console::write(format_args!("{line}\n"));
        }
    }
}

async fn answer(commands: &[ConsoleCommand], line: &str) -> String {
    let mut words = line.split_ascii_whitespace().map(String::from);
    let Some(name) = words.next() else {
        return String::new();
    };
    if name == "help" {
        return help(commands);
    }
    match commands.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(words.collect()).await,
        None => format!("there is no command {name}; type help"),
    }
}

fn help(commands: &[ConsoleCommand]) -> String {
    let own = [("help", "lists the commands")];
    let commands = commands
        .iter()
        .map(|command| (command.name, command.summary));
    own.into_iter()
        .chain(commands)
        .map(|(name, summary)| format!("{name:10} {summary}\n"))
        .collect()
}
