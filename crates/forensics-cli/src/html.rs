//! A run as a self-contained page, without scripts or network access.
//!
//! A record holds foreign text. All of it goes through [`escaped`], and a policy in the head of the page
//! forbids scripts.

use std::fmt::{self, Display};
use std::io::{self, Write};

use forensics_core::escape::{Escaped, MAX_NAME_CHARS, is_safe, truncate};
use forensics_core::json;
use forensics_core::record::{Basis, PostMortem, Run};
use serde_json::Value;

use crate::format::{seconds, short, unread_lines};
use crate::report;
use crate::timeline::{Bar, Kind, Mark, Timeline};

/// Longest name or value shown, in characters. The events have it in full.
const MAX_VALUE: usize = 2000;

/// Limits of a page: facts of the context, marks in the row of a phase, events, and characters of
/// one event. With them a browser can open the page even if an attacker made the record huge.
const MAX_FACTS: usize = 1000;
const MAX_IN_ROW: usize = 32;
const MAX_EVENTS: usize = 5000;
const MAX_LINE: usize = 32 << 10;

/// Longest tooltip, in characters.
const MAX_TITLE: usize = 200;

/// A page that has not been written yet.
pub(crate) struct Page<'a> {
    pub(crate) run: &'a Run,
    pub(crate) timeline: &'a Timeline,
    /// The facts of the context, by [`facts`].
    pub(crate) context: &'a [(String, String)],
}

/// Each item as HTML, made only when it is written.
struct Each<'a, T>(&'a [T], &'a dyn Fn(&T) -> String);

impl<T> Display for Each<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| f.write_str(&(self.1)(item)))
    }
}

impl Page<'_> {
    /// Writes the page. The events are read from the record once more.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Page { run: Run { record, post_mortem: run, file, .. }, timeline, context } = self;
        let tone = report::tone(run);
        let facts = [
            Some(format!("started {}", run.started)),
            Some(format!("last event {}", run.last)),
            record.start.unit.as_ref().map(|unit| format!("unit {}", truncate(unit, MAX_VALUE))),
            run.file_uid.map(|uid| format!("file of uid {uid}, who may have made it up")),
            run.exit_code.map(|code| format!("exit status {code}")),
            unread_lines(record),
        ];
        let ticks = timeline.ticks(5);
        let step = ticks.get(1).map_or(1.0, |(at, _)| timeline.fraction(*at)) * 100.0;
        let no_rows = if timeline.bars.is_empty() { "No phase had begun." } else { "" };
        let limits: Vec<_> = timeline.limits().collect();
        let basis = match &run.basis {
            Basis::Inferred { from, .. } => format!(
                "inferred from:<ul>{}</ul>",
                Each(from, &|fact| format!("<li>{}</li>", value(fact)))
            ),
            basis => escaped(&basis.sentence()),
        };
        write!(
            out,
            include_str!("page.html"),
            css = include_str!("html.css"),
            service = value(&run.service),
            pid = run.pid,
            ended = run.outcome,
            tone = tone.class,
            evidence = escaped(&run.evidence),
            basis = basis,
            advice = escaped(run.advice.as_deref().unwrap_or_default()),
            facts = escaped(&facts.into_iter().flatten().collect::<Vec<_>>().join(" · ")),
            step = step,
            ticks = Each(&ticks, &|tick| self.tick(tick)),
            rows = Each(&timeline.bars, &|bar| row(bar, timeline)),
            notice = timeline.omitted.as_deref().unwrap_or(no_rows),
            limits = Each(&limits, &|limit| self.limit(*limit)),
            marks = Each(&timeline.marks, &mark),
            said = said(run),
            context = Each(context, &fact),
            count = record.read,
        )?;
        let (mut count, mut written) = (0, Ok(()));
        let read = file.read(|_, line| {
            count += 1;
            if count <= MAX_EVENTS && written.is_ok() {
                let line = json::safe_line(line);
                let line = escaped(&truncate(String::from_utf8_lossy(&line), MAX_LINE));
                written = writeln!(out, "<pre>{line}</pre>");
            }
        });
        read.map_err(io::Error::other)?;
        written?;
        if let Some(more) = count.checked_sub(MAX_EVENTS).filter(|&more| more > 0) {
            writeln!(out, "<p>… {more} more are in the record.</p>")?;
        }
        out.write_all(b"</div></details>\n</main>\n</body>\n</html>\n")
    }
}

impl Page<'_> {
    fn tick(&self, (at, label): &(u64, String)) -> String {
        let left = self.timeline.fraction(*at) * 100.0;
        let class = if left > 90.0 { " class=\"end\"" } else { "" };
        format!("<span{class} style=\"left:{left:.3}%\">{label}</span>")
    }

    /// The row of the deadline, or of the stop timeout.
    fn limit(&self, (name, at): (&str, u64)) -> String {
        let beyond = if at > self.timeline.span { ", beyond the chart" } else { "" };
        let line = limit_line(name, at, self.timeline);
        let at = seconds(at);
        format!(
            "<div class=\"row limit\" role=\"listitem\"><span class=\"name\">{name}</span>\
             <div class=\"track\">{line}</div><span class=\"used\">+{at}{beyond}</span></div>\n"
        )
    }
}

/// An element of a track, from one time to another.
fn place(timeline: &Timeline, class: &str, (from, to): (u64, u64), title: &str) -> String {
    let [left, right] = [from, to].map(|at| timeline.fraction(at) * 100.0);
    let (width, title) = (right - left, escaped(&truncate(title, MAX_TITLE)));
    format!(
        "<div class=\"{class}\" style=\"--left:{left:.3}%;width:{width:.3}%\" \
         title=\"{title}\"></div>"
    )
}

/// The line of a limit in a track; nothing if it is beyond the chart.
fn limit_line(name: &str, at: u64, timeline: &Timeline) -> String {
    if at > timeline.span {
        return String::new();
    }
    let class = if name == "deadline" { "deadline" } else { "stop-timeout" };
    place(timeline, class, (at, at), &format!("{name} +{}", seconds(at)))
}

fn row(bar: &Bar, timeline: &Timeline) -> String {
    let (name, group) = (value(&bar.name), value(bar.group.as_deref().unwrap_or_default()));
    let (tone, used, word) = (bar.tone().class, bar.used(), bar.word());
    let member = if bar.group.is_some() { " member" } else { "" };
    let open = if bar.outcome.is_some() { "" } else { " open" };
    let place = |class: &str, times, title: &str| place(timeline, class, times, title);
    let from = bar.from;
    let mut track = String::new();
    for (class, us) in [("budget", bar.budget), ("reserve", bar.reserve)] {
        if let Some(us) = us {
            let title = format!("{class} {}", short(us));
            track += &place(class, (from, from.saturating_add(us)), &title);
        }
    }
    track += &place(&format!("bar {tone}{open}"), (from, bar.to), &word);
    for mark in timeline.marks.iter().take(MAX_IN_ROW) {
        let class = match &mark.kind {
            Kind::Signal { .. } => "at",
            Kind::Stall { phase } if phase.as_ref().is_none_or(|name| *name == bar.name) => "wedge",
            _ => continue,
        };
        track += &place(class, (mark.at, mark.at), &mark.text);
    }
    for (name, at) in timeline.limits() {
        track += &limit_line(name, at, timeline);
    }
    let notes: String =
        bar.notes().map(|note| format!("<span class=\"note\">{}</span>", value(&note))).collect();
    format!(
        "<div class=\"row phase{member}\" role=\"listitem\" data-phase=\"{name}\" \
         data-group=\"{group}\" aria-label=\"{name}: +{}, {used}, {word}\">\
         <span class=\"name\">{name}</span><div class=\"track\">{track}</div>\
         <span class=\"used\">{used} <b class=\"{tone}\">{word}</b></span>{notes}</div>\n",
        seconds(bar.from),
    )
}

/// What systemd showed during the stop, and what witnesses said after it.
fn said(run: &PostMortem) -> String {
    let mut rows = Vec::new();
    if let Some(explained) = &run.explained {
        let (detail, basis) = (&explained.detail, explained.basis.sentence());
        let text = format!("{detail} ({}), {basis}", explained.reason);
        rows.push(("systemd, during the stop".to_owned(), text));
    }
    for witness in &run.witnesses {
        let source = witness.source.to_string().replace('_', " ");
        let said = facts(&Value::Object(witness.fields.clone()));
        let said: Vec<_> =
            said.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        rows.push((source, said.join(" ")));
    }
    rows.iter().map(fact).collect()
}

fn mark(mark: &Mark) -> String {
    let (at, tone, text) = (seconds(mark.at), mark.tone().class, value(&mark.text));
    format!(
        "<tr><th scope=\"row\" class=\"time\">+{at}</th><td class=\"{tone}\">{text}</td></tr>\n"
    )
}

fn fact((name, fact): &(String, String)) -> String {
    let (name, fact) = (escaped(name), value(fact));
    format!("<tr><th scope=\"row\">{name}</th><td class=\"value\">{fact}</td></tr>\n")
}

/// The facts of a context.
pub(crate) fn facts(context: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    flatten("", context, &mut facts);
    if facts.len() > MAX_FACTS {
        facts.truncate(MAX_FACTS);
        facts.push(("…".to_owned(), "more in the record".to_owned()));
    }
    facts
}

/// The leaves of a JSON value, by dotted names.
fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    if facts.len() > MAX_FACTS {
        return;
    }
    let below = |key: &str| {
        let dot = if name.is_empty() { "" } else { "." };
        truncate(format!("{name}{dot}{}", truncate(key, MAX_NAME_CHARS)), MAX_NAME_CHARS)
    };
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| flatten(&below(key), value, facts));
        }
        Value::Array(values)
            if values.iter().any(|value| value.is_object() || value.is_array()) =>
        {
            let values = values.iter().enumerate();
            values.for_each(|(n, value)| flatten(&below(&n.to_string()), value, facts));
        }
        Value::Null => {}
        Value::String(text) => facts.push((name.to_owned(), truncate(text, MAX_VALUE))),
        other => facts.push((name.to_owned(), truncate(other.to_string(), MAX_VALUE))),
    }
}

/// A name or value as HTML, cut if it is too long.
fn value(text: &str) -> String {
    escaped(&truncate(text, MAX_VALUE))
}

/// Text as HTML: markup is escaped, and so are characters that are invisible or reorder the line.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '&' => html += "&amp;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c if is_safe(c) => html.push(c),
            c => html += &Escaped(c.encode_utf8(&mut [0; 4])).to_string(),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup_and_invisible_characters_are_escaped() {
        let cases = [
            ("<b a='x' b=\"y\">&", "&lt;b a=&#39;x&#39; b=&quot;y&quot;&gt;&amp;"),
            ("a\u{0}\n\u{1b}[31m", "a\\0\\n\\u{1b}[31m"),
            ("\u{202e}evil", "\\u{202e}evil"),
            (r"gw@b\x2dc", r"gw@b\x2dc"),
            ("größe ✓", "größe ✓"),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn a_context_becomes_rows_by_dotted_names() {
        let value = serde_json::json!({
            "sender": {"pid": 1, "chain": [{"name": "bash"}], "tags": ["a", "b"]}, "none": null,
        });
        let mut facts = Vec::new();
        flatten("", &value, &mut facts);
        let shown: Vec<String> = facts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = ["sender.chain.0.name=bash", "sender.pid=1", "sender.tags=[\"a\",\"b\"]"];
        assert_eq!(shown, expected);
    }
}
