//! The shared code of all benches: alternating trials, quantiles, fitted lines, and the tables of
//! `docs/performance.md` as Markdown.
//!
//! A figure is a ratio or a difference within one run. Compared values are measured in alternating
//! trials, so that changes of the machine's speed affect both in the same way. The benches of the
//! other crates include this folder through a symbolic link, which `cargo package` follows. A
//! separate crate would have to be published.

// Each bench uses a part of it.
#![allow(dead_code)]

use std::time::{Duration, Instant};

/// Prints the head of a table, under its title.
pub(crate) fn title(title: &str) {
    println!("\n### {title}\n");
    println!("| measured | ours | compared with | result | target | |");
    println!("|---|---|---|---|---|---|");
}

/// Prints a row with a target: `value` must be at most `target`.
pub(crate) fn row(what: &str, ours: &str, floor: &str, value: f64, target: f64, unit: &str) {
    let verdict = verdict(value <= target);
    println!("| {what} | {ours} | {floor} | {value:.2}{unit} | ≤ {target}{unit} | {verdict} |");
}

/// Prints a row with a value and no target.
pub(crate) fn report(what: &str, ours: &str, floor: &str, value: f64, unit: &str) {
    println!("| {what} | {ours} | {floor} | {value:.2}{unit} | | |");
}

/// Prints a row whose target is a ratio of two times in nanoseconds.
pub(crate) fn ratio(what: &str, ours: f64, floor_is: &str, floor: f64, target: f64) {
    row(what, &time(ours), &format!("{floor_is}: {}", time(floor)), ours / floor, target, "×");
}

/// Prints a ratio of two times in nanoseconds, without a target.
pub(crate) fn report_ratio(what: &str, ours: f64, floor_is: &str, floor: f64) {
    report(what, &time(ours), &format!("{floor_is}: {}", time(floor)), ours / floor, "×");
}

/// Prints a row without a comparison.
pub(crate) fn note(what: &str, ours: &str, floor: &str) {
    println!("| {what} | {ours} | {floor} | | | |");
}

/// The last cell of a row.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Nanoseconds in a readable unit.
pub(crate) fn time(ns: f64) -> String {
    match ns.abs() {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// How long `work` takes, in nanoseconds.
pub(crate) fn clock<T>(work: impl FnOnce() -> T) -> u64 {
    let begin = Instant::now();
    std::hint::black_box(work());
    nanos(begin.elapsed())
}

/// A duration in nanoseconds.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs `trials` trials of each of `works`, alternating, after a tenth as many that do not count.
/// Returns the times in nanoseconds in the order of `works`.
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

/// The value that `percent` per cent of the samples do not exceed.
pub(crate) fn quantile(samples: &[u64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)] as f64
}

/// The median.
pub(crate) fn median(samples: &[u64]) -> f64 {
    quantile(samples, 50)
}

/// The line through these points by least squares: its slope, and its value at 0.
pub(crate) fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let slope = over / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    (slope, y - slope * x)
}

/// The exponent of the growth: 1 is linear, 2 is quadratic. From the two largest points, because the
/// constant cost dominates in small ones.
pub(crate) fn power(points: &[(f64, f64)]) -> f64 {
    let [.., (n, a), (m, b)] = points else { return f64::NAN };
    (b / a).ln() / (m / n).ln()
}

/// The fitted line as text.
fn fit(each: &str, points: &[(f64, f64)]) -> String {
    let (slope, constant) = line(points);
    format!("{} + {} a {each}", time(constant.max(0.0)), time(slope))
}

/// Prints how something grows, which must be linear.
pub(crate) fn growth(what: &str, each: &str, points: &[(f64, f64)]) {
    let exponent = power(points);
    row(&format!("{what}: growth"), &fit(each, points), "n to the power of", exponent, 1.15, "");
}

/// Prints how something grows, without a target.
pub(crate) fn report_growth(what: &str, each: &str, points: &[(f64, f64)]) {
    let exponent = power(points);
    report(&format!("{what}: growth"), &fit(each, points), "n to the power of", exponent, "");
}
