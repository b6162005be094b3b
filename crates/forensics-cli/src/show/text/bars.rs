//! Phases as bars: when, for how long of which budget, how they ended.

use std::io;

use forensics_core::escape::Plain;
use forensics_core::record::Outcome;

use super::line::{BAD, DIM, Line, NONE, Screen, columns, fitting, style};
use super::{MAX_SHOWN, shown, words};
use crate::timeline::{Axis, Ending, Phase, Timeline};

/// The offset in front, as `+1234.56s`.
const OFFSET: usize = 9;
/// The longest ending: `not finished`.
const ENDING: usize = 12;
/// The longest `used of budget` that other lines are aligned to.
const MAX_USED: usize = 19;
const GAP: &str = "  ";

const USED: char = '█';
const OPEN: char = '▒';
const BUDGET: char = '░';
const EMPTY: char = '·';
const DEADLINE: char = '│';

/// The columns that all phases share.
pub(super) struct Bars {
    axis: Axis,
    run: Outcome,
    deadline_us: Option<u64>,
    label: usize,
    used: usize,
    /// 0 where there is no room for any.
    bar: usize,
}

impl Bars {
    pub(super) fn new(timeline: &Timeline<'_>, axis: Axis, run: Outcome, width: usize) -> Self {
        let label = widest(timeline, |phase| columns(&Plain(phase.name).to_string()));
        let used = widest(timeline, |phase| columns(&words::used(phase))).min(MAX_USED);
        let label = label.min((width / 4).max(8));
        let others = OFFSET + label + used + ENDING + 4 * GAP.len();
        let bar = width.checked_sub(others).filter(|&bar| bar >= 8).unwrap_or(0);
        Self { axis, run, deadline_us: timeline.deadline_us, label, used, bar }
    }

    pub(super) fn print(&self, screen: &mut Screen<'_>, phase: &Phase<'_>) -> io::Result<()> {
        self.one(screen, phase, "")?;
        phase.members.iter().try_for_each(|member| self.one(screen, member, GAP))
    }

    fn one(&self, screen: &mut Screen<'_>, phase: &Phase<'_>, indent: &str) -> io::Result<()> {
        let name = Plain(phase.name).to_string();
        let label = label(&name, indent, self.label);
        let style = style(phase.ending, self.run);
        let mut line = Line::default()
            .put(DIM, &format!("{:>OFFSET$}", words::offset(phase.from_us)))
            .put(NONE, GAP)
            .put_escaped(NONE, label);
        if self.bar > 0 {
            line = line.put(NONE, GAP);
            for (part, drawn) in self.draw(phase) {
                line = line.put(if part == Part::Time { style } else { DIM }, &drawn);
            }
        }
        let used = format!("{GAP}{:>width$}{GAP}", words::used(phase), width = self.used);
        let line = line.put(NONE, &used).put(style, phase.ending.word(self.run));
        screen.print(&line)?;

        let below = " ".repeat(OFFSET + GAP.len() + indent.len() + GAP.len());
        if let Some(error) = phase.error {
            screen.wrap(&below, BAD, &shown(error))?;
        }
        if !phase.values.is_empty() {
            let values = phase.values.iter();
            let values = values.map(|(name, value)| format!("{name}={}", words::value(value)));
            screen.wrap(&below, DIM, &shown(&values.take(MAX_SHOWN).collect::<Vec<_>>().join(" ")))?;
        }
        Ok(())
    }

    /// The characters of a bar, those alike together: at least one is for the time it took.
    fn draw(&self, phase: &Phase<'_>) -> Vec<(Part, String)> {
        let column = |us| self.axis.column(us, self.bar);
        let from = column(phase.from_us).min(self.bar - 1);
        let to = column(phase.to_us).clamp(from + 1, self.bar);
        let budget = phase.budget_ends_us().map_or(to, column);
        let deadline = self.deadline_us.filter(|&us| self.axis.shows(us));
        let deadline = deadline.map(|us| column(us).min(self.bar - 1));
        let took = if phase.ending == Ending::Open { OPEN } else { USED };
        let mut drawn: Vec<(Part, String)> = Vec::new();
        for at in 0..self.bar {
            let (part, c) = match at {
                at if (from..to).contains(&at) => (Part::Time, took),
                at if deadline == Some(at) => (Part::Rest, DEADLINE),
                at if (to..budget).contains(&at) => (Part::Rest, BUDGET),
                _ => (Part::Rest, EMPTY),
            };
            match drawn.last_mut().filter(|(last, _)| *last == part) {
                Some((_, text)) => text.push(c),
                None => drawn.push((part, c.to_string())),
            }
        }
        drawn
    }

    /// What the characters mean, where there are any.
    pub(super) fn legend(&self, screen: &mut Screen<'_>) -> io::Result<()> {
        if self.bar == 0 || self.label == 0 {
            return Ok(());
        }
        let deadline = match self.deadline_us {
            Some(us) if self.axis.shows(us) => format!("  {DEADLINE} deadline"),
            Some(_) => "; the deadline is beyond".to_owned(),
            None => String::new(),
        };
        screen.print(&Line::default())?;
        let span = words::offset(self.axis.span_us);
        screen.wrap("", DIM, &format!(
            "bars from 0 to {span}: {USED} used  {OPEN} never ended  {BUDGET} rest of the budget{deadline}"
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Time,
    Rest,
}

/// The escaped name, indented, cut or filled to a width.
fn label(name: &str, indent: &str, width: usize) -> String {
    let room = width.saturating_sub(indent.len());
    let name = match columns(name) > room {
        true => format!("{}…", fitting(name, room.saturating_sub(1))),
        false => name.to_owned(),
    };
    let fill = " ".repeat(room.saturating_sub(columns(&name)));
    format!("{indent}{name}{fill}")
}

/// The most columns that a phase takes; members are indented.
fn widest(timeline: &Timeline<'_>, columns: impl Fn(&Phase<'_>) -> usize) -> usize {
    let phases = timeline.phases.iter().flat_map(|phase| {
        let members = phase.members.iter().map(|member| columns(member) + GAP.len());
        members.chain([columns(phase)])
    });
    phases.max().unwrap_or(0)
}
