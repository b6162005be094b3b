//! What all benches share: trials in turns, quantiles, fitted lines, and the table of
//! `docs/performance.md` as Markdown.
//!
//! A figure is a ratio within one run. What is compared is measured in turns, one of each a trial, so
//! that the machine's mood is in every figure alike. The benches of the other crates have this folder
//! by a symbolic link, which a package follows: a crate for it would be a published one.

// Each bench uses a part of it.
#![allow(dead_code)]

use std::time::{Duration, Instant};

/// Prints the head of a table, under its title.
pub(crate) fn title(title: &str) {
    println!("\n### {title}\n");
    println!("| measured | it | against | of that | to reach | |");
    println!("|---|---|---|---|---|---|");
}

/// Prints a row with a bar: `value` is not to exceed `at_most`.
pub(crate) fn row(what: &str, it: &str, against: &str, value: f64, at_most: f64, unit: &str) {
    println!(
        "| {what} | {it} | {against} | {value:.2}{unit} | ≤ {at_most}{unit} | {} |",
        verdict(value <= at_most)
    );
}

/// Prints a row whose bar is a ratio of two times in nanoseconds.
pub(crate) fn ratio(what: &str, it: f64, floor_is: &str, floor: f64, at_most: f64) {
    row(what, &time(it), &format!("{floor_is}: {}", time(floor)), it / floor, at_most, "×");
}

/// Prints a row without a bar.
pub(crate) fn note(what: &str, it: &str, against: &str) {
    println!("| {what} | {it} | {against} | | | |");
}

/// The word for a bar.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Nanoseconds for people.
pub(crate) fn time(ns: f64) -> String {
    match ns.abs() {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// How long it takes, in nanoseconds.
pub(crate) fn clock<T>(work: impl FnOnce() -> T) -> u64 {
    let begin = Instant::now();
    std::hint::black_box(work());
    nanos(begin.elapsed())
}

/// A span in nanoseconds.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// So many trials of each of these, in turns; the times in nanoseconds, in the order given. A tenth
/// as many come first and do not count.
pub(crate) fn in_turns<const N: usize>(
    trials: usize,
    mut works: [&mut dyn FnMut() -> u64; N],
) -> [Vec<u64>; N] {
    let mut samples = [const { Vec::new() }; N];
    for trial in 0..trials + trials / 10 {
        for (work, samples) in works.iter_mut().zip(&mut samples) {
            let took = work();
            if trial >= trials / 10 {
                samples.push(took);
            }
        }
    }
    samples
}

/// The value that so many per cent of the samples do not exceed.
pub(crate) fn quantile(samples: &[u64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)] as f64
}

/// The middle one.
pub(crate) fn median(samples: &[u64]) -> f64 {
    quantile(samples, 50)
}

/// The line through these points by least squares: what one more costs, and what none costs.
pub(crate) fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let slope = over / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    (slope, y - slope * x)
}

/// The power that time grows with: 1 is linear, 2 is square. From the two largest points, as small
/// ones are all constant cost.
pub(crate) fn power(points: &[(f64, f64)]) -> f64 {
    let [.., (n, a), (m, b)] = points else { return f64::NAN };
    (b / a).ln() / (m / n).ln()
}

/// Prints the row of how something grows; linear is a power of 1.
pub(crate) fn growth(what: &str, each: &str, points: &[(f64, f64)]) {
    let (slope, constant) = line(points);
    let fit = format!("{} + {} a {each}", time(constant.max(0.0)), time(slope));
    row(&format!("{what}: growth"), &fit, "n to the power of", power(points), 1.15, "");
}
