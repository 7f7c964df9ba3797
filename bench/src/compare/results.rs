//! All figures of a run: medians, ranges, ratios; as a table for people and as JSON for programs.
//!
//! Two gateways are compared round by round, where each measured a minute apart from the other at
//! most, and only then is the median taken: what disturbs the machine for a while disturbs both
//! sides of a pair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::gateway::Target;
use super::scenario::{Figure, Scenario};

/// Figures by row, gateway and round.
#[derive(Debug, Default)]
pub(super) struct Results {
    rows: BTreeMap<(Scenario, Figure), BTreeMap<Target, Rounds>>,
}

type Rounds = BTreeMap<usize, f64>;

/// The middle of some values and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// One row as it goes into the JSON file.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    scenario: Scenario,
    figure: Figure,
    targets: BTreeMap<Target, Column>,
    /// Pointsman divided by nginx, round by round.
    ratio_to_nginx: Option<Spread>,
    /// Pointsman less nginx, round by round.
    above_nginx: Option<Spread>,
    /// Translated divided by passed on, round by round.
    ratio_of_translation: Option<Spread>,
}

#[derive(Debug, Serialize)]
struct Column {
    #[serde(flatten)]
    spread: Spread,
    rounds: Rounds,
}

impl Results {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn add(
        &mut self,
        scenario: Scenario,
        target: Target,
        round: usize,
        figures: &[(Figure, f64)],
    ) {
        for &(figure, value) in figures {
            self.rows
                .entry((scenario, figure))
                .or_default()
                .entry(target)
                .or_default()
                .insert(round, value);
        }
    }

    /// The rows in order, with those that follow from others.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut all = self.rows.clone();
        for (&(scenario, figure), targets) in &self.rows {
            let (Some(beyond), Some(direct)) =
                (figure.beyond_direct(), targets.get(&Target::Direct))
            else {
                continue;
            };
            let through_gateway = targets
                .iter()
                .filter(|(target, _)| **target != Target::Direct);
            let added = through_gateway
                .map(|(&target, rounds)| (target, paired(rounds, direct, |a, b| a - b)));
            all.insert((scenario, beyond), added.collect());
        }
        all.into_iter()
            .filter_map(|((scenario, figure), targets)| row(scenario, figure, targets))
            .collect()
    }

    /// The table that ends a run.
    pub(super) fn table(&self) -> String {
        let rows = self.rows();
        let present: BTreeSet<Target> = rows
            .iter()
            .flat_map(|row| row.targets.keys().copied())
            .collect();
        let compared = present.contains(&Target::Nginx) && present.contains(&Target::Pointsman);
        let translates =
            present.contains(&Target::Translated) && present.contains(&Target::Pointsman);
        let mut lines = vec![vec!["scenario".to_owned(), "figure".to_owned()]];
        lines[0].extend(present.iter().map(|target| target.name().to_owned()));
        if compared {
            lines[0].extend(["pointsman / nginx", "pointsman - nginx"].map(str::to_owned));
        }
        if translates {
            lines[0].push("translated / pointsman".to_owned());
        }
        for row in &rows {
            let mut line = vec![row.scenario.name(), row.figure.label().to_owned()];
            let spread = |target| row.targets.get(target).map(|column| column.spread);
            line.extend(
                present
                    .iter()
                    .map(|target| cell(spread(target), "", digits)),
            );
            if compared {
                line.push(cell(row.ratio_to_nginx, "x", |_| 2));
                line.push(cell(row.above_nginx, "", digits));
            }
            if translates {
                line.push(cell(row.ratio_of_translation, "x", |_| 2));
            }
            lines.push(line);
        }
        aligned(&lines)
    }
}

fn row(scenario: Scenario, figure: Figure, targets: BTreeMap<Target, Rounds>) -> Option<Row> {
    let compare = |one, other, with: fn(f64, f64) -> f64| {
        let (one, other) = (targets.get(&one)?, targets.get(&other)?);
        Spread::of(paired(one, other, with).into_values())
    };
    let (ours, nginx) = (Target::Pointsman, Target::Nginx);
    let ratio_to_nginx = compare(ours, nginx, |a, b| a / b);
    let above_nginx = compare(ours, nginx, |a, b| a - b);
    let ratio_of_translation = compare(Target::Translated, ours, |a, b| a / b);
    let column = |(target, rounds): (Target, Rounds)| {
        Some((
            target,
            Column {
                spread: Spread::of(rounds.values().copied())?,
                rounds,
            },
        ))
    };
    let targets: BTreeMap<Target, Column> = targets.into_iter().filter_map(column).collect();
    (!targets.is_empty()).then_some(Row {
        scenario,
        figure,
        targets,
        ratio_to_nginx,
        above_nginx,
        ratio_of_translation,
    })
}

/// Combines two gateways' values of the same round; a round that one of them lacks is left out.
fn paired(left: &Rounds, right: &Rounds, with: impl Fn(f64, f64) -> f64) -> Rounds {
    left.iter()
        .filter_map(|(round, &value)| Some((*round, with(value, *right.get(round)?))))
        .collect()
}

impl Spread {
    /// `None` without a finite value. The median of an even number of values lies between the
    /// middle two.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, min, max })
    }
}

fn cell(spread: Option<Spread>, unit: &str, digits: impl Fn(f64) -> usize) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "-".to_owned();
    };
    let precision = digits(median);
    format!("{median:.precision$}{unit} ({min:.precision$}..{max:.precision$})")
}

/// Three significant digits are more than this method can promise.
fn digits(value: f64) -> usize {
    match value.abs() {
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(padded, "{cell:width$}  ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[f64], expected: Option<(f64, f64, f64)>| {
            let spread = Spread::of(values.iter().copied());
            assert_eq!(
                spread.map(|spread| (spread.median, spread.min, spread.max)),
                expected,
                "{values:?}"
            );
        };
        check(&[], None);
        check(&[f64::NAN], None);
        check(&[3.0, 1.0, 2.0], Some((2.0, 1.0, 3.0)));
        check(&[4.0, 1.0, 2.0, 3.0], Some((2.5, 1.0, 4.0)));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut results = Results::default();
        // A slow first round slows both; pooled medians would say 1.5.
        for (round, nginx, pointsman) in [(1, 20.0, 30.0), (2, 10.0, 11.0), (3, 10.0, 12.0)] {
            results.add(
                Scenario::Json1k,
                Target::Nginx,
                round,
                &[(Figure::CpuMicrosPerRequest, nginx)],
            );
            results.add(
                Scenario::Json1k,
                Target::Pointsman,
                round,
                &[(Figure::CpuMicrosPerRequest, pointsman)],
            );
        }
        results.add(
            Scenario::Json1k,
            Target::Nginx,
            4,
            &[(Figure::CpuMicrosPerRequest, 99.0)],
        );
        let ratio = results.rows()[0].ratio_to_nginx.unwrap();
        assert!(
            (ratio.median - 1.2).abs() < 1e-9 && (ratio.max - 1.5).abs() < 1e-9,
            "{ratio:?}"
        );
    }

    #[test]
    fn added_latency_is_what_exceeds_direct_in_the_same_round() {
        let mut results = Results::default();
        for (round, direct, nginx) in [(1, 100.0, 300.0), (2, 200.0, 450.0)] {
            results.add(
                Scenario::Latency,
                Target::Direct,
                round,
                &[(Figure::P50Micros, direct)],
            );
            results.add(
                Scenario::Latency,
                Target::Nginx,
                round,
                &[(Figure::P50Micros, nginx)],
            );
        }
        let rows = results.rows();
        let added = rows
            .iter()
            .find(|row| row.figure == Figure::AddedP50Micros)
            .unwrap();
        assert_eq!(
            added.targets.keys().copied().collect::<Vec<_>>(),
            [Target::Nginx]
        );
        assert_eq!(
            added.targets[&Target::Nginx].spread,
            Spread {
                median: 225.0,
                min: 200.0,
                max: 250.0
            }
        );
        let table = results.table();
        assert!(
            table.contains("added p50 µs") && table.contains("225 (200..250)"),
            "{table}"
        );
    }
}
