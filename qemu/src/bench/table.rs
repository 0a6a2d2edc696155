//! The figures as a table for people.

use std::fmt;

use super::summary::{Line, Summary};

/// Prints a [`Summary`].
pub(super) struct Table<'a>(pub(super) &'a Summary);

/// The titles of the columns.
const TITLES: [&str; COLUMNS] = [
    "row",
    "min/s",
    "median/s",
    "max/s",
    "ns",
    "instructions",
    "Linux/s",
    "ratio",
    "Linux instr.",
    "ratio",
];

const COLUMNS: usize = 10;

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<[String; COLUMNS]> = self.0.rows.iter().map(cells).collect();
        let width = |column: usize| {
            let lengths = cells.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or(0).max(TITLES[column].len())
        };
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        write_row(f, &widths, &TITLES.map(String::from))?;
        for row in &cells {
            write_row(f, &widths, row)?;
        }
        self.write_legend(f)
    }
}

impl Table<'_> {
    fn write_legend(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = &self.0.conditions;
        writeln!(
            f,
            "\nMeasured: {} rounds of about {} ms, {}, {}, {}. Instructions per operation: a second boot with a clock \
             that counts them.",
            conditions.rounds,
            conditions.round_milliseconds,
            conditions.accelerator,
            conditions.machine,
            conditions.memory,
        )?;
        if self.0.rows.iter().any(|line| line.idled) {
            writeln!(
                f,
                "idle: the processor had nothing to do at times, so that instructions cannot be counted."
            )?;
        }
        if self.0.rows.iter().any(|line| line.peer.is_some()) {
            write!(
                f,
                "Linux: {}, not measured here ({}).\nratio: our median, or our instructions, divided by those of Linux.",
                conditions.peer, conditions.peer_details
            )?;
        }
        Ok(())
    }
}

fn write_row(
    f: &mut fmt::Formatter<'_>,
    widths: &[usize; COLUMNS],
    cells: &[String; COLUMNS],
) -> fmt::Result {
    let [name, figures @ ..] = cells;
    let mut line = format!("{name:<width$}", width = widths[0]);
    for (cell, width) in figures.iter().zip(&widths[1..]) {
        line += &format!("  {cell:>width$}");
    }
    writeln!(f, "{}", line.trim_end())
}

fn cells(line: &Line) -> [String; COLUMNS] {
    let number = |value: Option<f64>| value.map(grouped).unwrap_or_default();
    let peer = line.peer.as_ref();
    let instructions = if line.idled {
        "idle".into()
    } else {
        number(line.instructions)
    };
    [
        line.name.clone(),
        number(line.per_second.map(|rate| rate.min)),
        number(line.per_second.map(|rate| rate.median)),
        number(line.per_second.map(|rate| rate.max)),
        number(line.nanoseconds),
        instructions,
        number(peer.map(|peer| peer.per_second.median)),
        ratio(peer.and_then(|peer| peer.rate_ratio)),
        number(peer.and_then(|peer| peer.instructions)),
        ratio(peer.and_then(|peer| peer.instructions_ratio)),
    ]
}

/// A number with a blank between each three digits; small ones with a decimal.
fn grouped(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A ratio with as many decimals as it needs.
fn ratio(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value < 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Rate;
    use super::super::summary::{Comparison, Conditions};
    use super::*;

    fn summary() -> Summary {
        let rate = |median| Rate {
            min: median / 2.0,
            median,
            max: median * 2.0,
        };
        let compared = Line {
            name: "sim-blk/virtio/read/1".into(),
            per_second: Some(rate(300_000.0)),
            nanoseconds: Some(3_333.3),
            instructions: Some(1_870.4),
            idled: false,
            peer: Some(Comparison {
                per_second: rate(30_000.0),
                instructions: Some(18_700.0),
                rate_ratio: Some(10.0),
                instructions_ratio: Some(0.1),
            }),
        };
        let idled = Line {
            name: "iotlb/map/1".into(),
            per_second: None,
            nanoseconds: None,
            instructions: None,
            idled: true,
            peer: None,
        };
        Summary {
            conditions: Conditions {
                accelerator: "tcg".into(),
                machine: "q35".into(),
                memory: "256M".into(),
                rounds: 7,
                round_milliseconds: 100,
                peer: "another run",
                peer_details: "elsewhere",
            },
            rows: vec![compared, idled],
        }
    }

    #[test]
    fn figures_stand_below_their_titles() {
        let text = Table(&summary()).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "sim-blk/virtio/read/1  150 000   300 000  600 000  3 333         1 870   30 000   10.0        18 700   0.10"
        );
        for (title, figure) in [("median/s", "300 000"), ("instructions", "1 870")] {
            let end = |line: &str, part: &str| line.find(part).unwrap() + part.len();
            assert_eq!(end(lines[0], title), end(lines[1], figure), "{text}");
        }
        assert!(lines[2].trim_end().ends_with("idle"), "{text}");
    }

    #[test]
    fn legend_says_where_the_figures_of_linux_come_from() {
        let mut summary = summary();
        let text = Table(&summary).to_string();
        assert!(text.contains("another run, not measured here"), "{text}");
        assert!(text.contains("7 rounds of about 100 ms"), "{text}");
        assert!(text.contains("idle: "), "{text}");
        summary.rows.truncate(0);
        let text = Table(&summary).to_string();
        assert!(!text.contains("another run") && !text.contains("idle: "));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (value, text) in [
            (0.0, "0.0"),
            (99.94, "99.9"),
            (100.0, "100"),
            (1_000.4, "1 000"),
            (12_345_678.0, "12 345 678"),
        ] {
            assert_eq!(grouped(value), text);
        }
        for (value, text) in [(0.1, "0.10"), (0.004, "0.00"), (9.96, "10.0")] {
            assert_eq!(ratio(Some(value)), text);
        }
    }
}
