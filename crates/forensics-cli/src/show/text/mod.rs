//! The timeline on a terminal: a line each for what happened, with bars for the phases.

mod bars;
mod line;
mod screen;

use std::io;

use forensics_core::record::{Outcome, Record, Verdict};

use super::words;
use crate::timeline::{Axis, Mark, Timeline};
use bars::Bars;
use line::{BAD, BOLD, DIM, GOOD, LATE, Line, NONE, Screen};
pub(crate) use screen::{Color, Terminal};

/// Longest text of the record that is shown in full, in characters.
const MAX_SHOWN: usize = 500;

/// Shows the run.
pub(crate) fn show(
    terminal: Terminal<'_>,
    record: &Record,
    verdict: &Verdict,
) -> io::Result<()> {
    let screen = &mut terminal.screen();
    let timeline = Timeline::of(record);
    head(screen, &timeline, verdict)?;
    events(screen, &timeline, verdict)?;
    if record.corrupt > 0 || record.torn {
        let torn = if record.torn { ", and the last line is torn" } else { "" };
        screen.wrap("", DIM, &format!("{} lines could not be read{torn}", record.corrupt))?;
    }
    Ok(())
}

fn head(screen: &mut Screen<'_>, timeline: &Timeline<'_>, verdict: &Verdict) -> io::Result<()> {
    let Verdict { service, pid, started, outcome, reason, .. } = verdict;
    // The facts first: a name may be as long as it likes.
    let line = Line::default()
        .put(outcome_style(verdict), outcome.as_str())
        .put(NONE, &format!(", reason {reason}"));
    screen.print(&line)?;
    screen.wrap("  run       ", BOLD, &shown(&format!("{service}[{pid}], started {started}")))?;
    screen.wrap("  evidence  ", NONE, &verdict.evidence)?;
    if let Some(advice) = &verdict.advice {
        screen.wrap("  advice    ", NONE, advice)?;
    }
    let deadline = match timeline.deadline_us {
        Some(us) => format!("{} after {}", words::offset(us), timeline.zero.as_str()),
        None => "none".to_owned(),
    };
    screen.wrap("  deadline  ", NONE, &deadline)?;
    screen.print(&Line::default())
}

fn events(screen: &mut Screen<'_>, timeline: &Timeline<'_>, verdict: &Verdict) -> io::Result<()> {
    let bars = Bars::new(timeline, Axis::of(timeline, verdict), verdict.outcome, screen.width);
    let said = |at_us, rank, style, text| (at_us, rank, style, text);
    let mut marks = Vec::new();
    for &Mark { at_us, what } in &timeline.signals {
        marks.push(said(at_us, 0, BOLD, words::signal(what)));
    }
    for &Mark { at_us, what } in &timeline.wedged {
        marks.push(said(at_us, 2, BAD, words::wedged(what)));
    }
    for &Mark { at_us, what } in &timeline.diag {
        marks.push(said(at_us, 2, DIM, words::diag(what)));
    }
    if let Some(Mark { at_us, what }) = timeline.stopped {
        let how = format!("stopped: {}, exit code {}", what.how, what.exit_code);
        marks.push(said(at_us, 3, outcome_style(verdict), how));
    }
    marks.sort_by_key(|&(at_us, rank, ..)| (at_us, rank));

    let mut marks = marks.into_iter().peekable();
    let mut until = |screen: &mut Screen<'_>, before: Option<(u64, u8)>| {
        while let Some((at_us, _, style, text)) = marks
            .next_if(|&(at_us, rank, ..)| before.is_none_or(|before| (at_us, rank) < before))
        {
            screen.wrap(&format!("{:>9}  ", words::offset(at_us)), style, &shown(&text))?;
        }
        io::Result::Ok(())
    };
    for phase in &timeline.phases {
        until(screen, Some((phase.from_us, 1)))?;
        bars.print(screen, phase)?;
    }
    until(screen, None)?;
    bars.legend(screen)
}

fn outcome_style(verdict: &Verdict) -> anstyle::Style {
    let style = match verdict.outcome {
        Outcome::Clean if verdict.is_clean() => GOOD,
        Outcome::Running => NONE,
        Outcome::TimedOut | Outcome::Forced | Outcome::Rebooted => LATE,
        _ => BAD,
    };
    style.bold()
}

/// What is too long to be read is cut.
fn shown(text: &str) -> String {
    forensics_core::escape::cut(text, MAX_SHOWN).into_owned()
}
