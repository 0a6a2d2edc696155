//! The table: what each contender needs for one chain, without its counterpart, beside the others.

use crate::contest::{Case, Contender, Load, Side};

/// What was measured of a case, per chain, counterpart and all.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub side: Side,
    pub load: Load,
    pub contender: Contender,
    pub cost: f64,
}

impl Figure {
    /// What `cost` over `rounds` rounds of a case comes to.
    pub fn new(case: &Case, rounds: u64, cost: f64) -> Self {
        let chains = rounds as f64 * f64::from(case.load.batch);
        let Case {
            side,
            load,
            contender,
            ..
        } = *case;
        Self {
            side,
            load,
            contender,
            cost: cost / chains,
        }
    }
}

/// Prints the figures, which are counted in `unit`.
pub fn print(unit: &str, figures: &[Figure]) {
    println!();
    println!("Per chain, in {unit}, without the counterpart that plays the other side:");
    println!();
    println!(
        "{:<12} {:<22} {:<24} {:>8} {:>13} {:>10}",
        "side", "load", "contender", "net", "counterpart", "to theirs"
    );
    for figure in figures
        .iter()
        .filter(|figure| !figure.contender.is_counterpart())
    {
        let of = |contender| {
            let same = |other: &&Figure| {
                (other.side, other.load, other.contender) == (figure.side, figure.load, contender)
            };
            figures
                .iter()
                .find(same)
                .map_or(f64::NAN, |other| other.cost)
        };
        let net = |contender: Contender| of(contender) - of(contender.counterpart());
        let ratio = if figure.contender.is_compared() {
            format!("{:.2}", net(figure.contender) / net(Contender::Theirs))
        } else {
            "-".into()
        };
        println!(
            "{:<12} {:<22} {:<24} {:>8.1} {:>13.1} {:>10}",
            figure.side.to_string(),
            figure.load.to_string(),
            figure.contender.name(figure.side),
            net(figure.contender),
            of(figure.contender.counterpart()),
            ratio,
        );
    }
}
