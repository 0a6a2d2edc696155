//! The options of `cargo run -- bench`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use guest_bench::row::Row;

use super::BenchError;
use crate::accel::AccelChoice;
use crate::machine::{Machine, Memory};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// Rounds of each row.
    pub(super) rounds: u64,
    /// About how long a round is, in milliseconds of the guest.
    pub(super) length: u64,
}

/// What is measured, on which machine, and where the figures go.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Parts of names: the rows whose names contain every one are measured [default: all rows]
    #[arg(value_name = "WORD")]
    words: Vec<String>,

    /// Fewer and shorter rounds: shows that everything works, and roughly how fast
    #[arg(long)]
    quick: bool,

    /// Where to write the figures as JSON; `-` prints them instead of the table
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<JsonTarget>,

    /// Guest memory, such as 64M or 1G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub(super) memory: Memory,

    /// Board to emulate
    #[arg(long, value_enum, default_value_t)]
    pub(super) machine: Machine,

    /// Accelerator that gives the times; instructions are always counted by the translator
    #[arg(long, value_enum, default_value_t = AccelChoice::Tcg)]
    pub(super) accel: AccelChoice,

    /// Processor model of QEMU [default: max, or host under KVM]
    #[arg(long, value_name = "MODEL")]
    pub(super) cpu: Option<String>,

    /// Bench kernel to boot instead of building it
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
}

/// Where JSON goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JsonTarget {
    /// Standard output.
    Output,
    /// A file.
    File(PathBuf),
}

impl FromStr for JsonTarget {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Output,
            path => Self::File(path.into()),
        })
    }
}

impl Options {
    /// The rows that are wanted.
    pub(super) fn rows(&self) -> Result<Vec<Row>, BenchError> {
        let rows = Row::selected(&self.words);
        if rows.is_empty() {
            let names: Vec<String> = Row::all().map(|row| format!("  {row}")).collect();
            return Err(BenchError::NoRow(self.words.clone(), names.join("\n")));
        }
        Ok(rows)
    }

    /// The words that select them.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// How much is measured for times.
    pub(super) fn timing(&self) -> Effort {
        if self.quick {
            Effort {
                rounds: 3,
                length: 20,
            }
        } else {
            Effort {
                rounds: 7,
                length: 100,
            }
        }
    }

    /// How much is measured for instructions: their number is the same in every round.
    pub(super) fn counting(&self) -> Effort {
        let length = if self.quick { 4 } else { 20 };
        Effort { rounds: 1, length }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Options {
        Program::parse_from([&["bench"], arguments].concat()).options
    }

    #[test]
    fn words_select_rows_and_unknown_words_are_answered_with_the_names() {
        let rows = parse(&["pci-blk", "read"]).rows().unwrap();
        let names: Vec<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names, ["pci-blk/virtio/read/1", "pci-blk/virtio/read/32"]);
        assert_eq!(parse(&[]).rows().unwrap().len(), Row::all().count());
        let error = parse(&["floppy"]).rows().unwrap_err().to_string();
        assert!(error.contains("floppy"), "{error}");
        assert!(error.contains("iotlb/map/1000\n"), "{error}");
    }

    #[test]
    fn quick_is_less_of_everything() {
        let (usual, quick) = (parse(&[]), parse(&["--quick"]));
        for (usual, quick) in [
            (usual.timing(), quick.timing()),
            (usual.counting(), quick.counting()),
        ] {
            assert!(quick.rounds * quick.length < usual.rounds * usual.length);
        }
    }

    #[test]
    fn a_dash_is_the_standard_output() {
        assert_eq!(parse(&["--json", "-"]).json, Some(JsonTarget::Output));
        let file = Some(JsonTarget::File("a.json".into()));
        assert_eq!(parse(&["--json", "a.json"]).json, file);
    }
}
