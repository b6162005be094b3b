//! A run as a page: complete in itself, without scripts and without network.
//!
//! A record holds foreign text. All of it goes through [`Text`], and a policy in the head of the page
//! forbids scripts.

use std::fmt::{self, Display, Write};

use forensics_core::escape::{self, MAX_NAME_CHARS, Plain, is_safe};
use forensics_core::json;
use forensics_core::record::{Event, PostMortem, Record};
use serde_json::Value;

use crate::format::{seconds, unread_lines};
use crate::timeline::{Bar, Timeline, Tone, What};

/// Into how many parts the axis is divided.
const TICKS: u64 = 5;

/// Longest name or value shown, in characters; more of it is among the events.
const MAX_VALUE: usize = 2000;

/// How much of a record is on its page, so that a browser can open it even if the record was made to be
/// too large: facts of the context, marks in the row of a phase, events, and characters of one event.
const MAX_FACTS: usize = 1000;
const MAX_IN_ROW: usize = 32;
const MAX_EVENTS: usize = 5000;
const MAX_LINE: usize = 32 << 10;

/// Longest tooltip, in characters.
const MAX_TITLE: usize = 200;

/// Text as HTML: markup is escaped, and so are characters that are invisible or reorder the line.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c if is_safe(c) => f.write_char(c),
            c => write!(f, "{}", Plain(c.encode_utf8(&mut [0; 4]))),
        })
    }
}

/// The page.
pub(crate) fn page(record: &Record, verdict: &PostMortem) -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ = write_page(&mut page, record, verdict);
    page
}

fn write_page(page: &mut String, record: &Record, verdict: &PostMortem) -> fmt::Result {
    let timeline = Timeline::of(record);
    let service = cut(&verdict.service);
    let service = Text(&service);
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{service}[{}]: {}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        verdict.pid,
        verdict.ended(),
        include_str!("html.css"),
    )?;
    heading(page, record, verdict)?;
    chart(page, &timeline)?;
    marks(page, &timeline)?;
    context(page, record)?;
    events(page, record)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn heading(page: &mut String, record: &Record, verdict: &PostMortem) -> fmt::Result {
    let tone = if verdict.is_clean() { Tone::Good } else { Tone::Bad };
    writeln!(
        page,
        "<header>\n<h1>{}[{}] <span class=\"badge {}\" id=\"outcome\">{}</span></h1>",
        Text(&cut(&verdict.service)),
        verdict.pid,
        class(tone),
        verdict.ended(),
    )?;
    writeln!(page, "<p id=\"evidence\">{}</p>", Text(&verdict.evidence))?;
    if let Some(advice) = &verdict.advice {
        writeln!(page, "<p class=\"advice\" id=\"advice\">{}</p>", Text(advice))?;
    }
    let mut facts =
        vec![format!("started {}", verdict.started), format!("last event {}", verdict.last)];
    if let Some(unit) = &record.start.unit {
        facts.push(format!("unit {}", cut(unit)));
    }
    if let Some(deadline) = verdict.deadline_us {
        facts.push(format!("deadline {} after the signal", seconds(deadline)));
    }
    if let Some(code) = verdict.exit_code {
        facts.push(format!("exit status {code}"));
    }
    facts.extend(unread_lines(record));
    writeln!(page, "<p class=\"soft\">{}</p>\n</header>", Text(&facts.join(" · ")))
}

fn chart(page: &mut String, timeline: &Timeline<'_>) -> fmt::Result {
    page.push_str("<h2>Teardown</h2>\n");
    if timeline.bars.is_empty() {
        page.push_str("<p>No phase had begun.</p>\n");
        return Ok(());
    }
    let span = timeline.span();
    page.push_str("<div class=\"chart\" role=\"list\" aria-label=\"Phases over time\">\n");
    page.push_str(
        "<div class=\"row axis\" aria-hidden=\"true\"><span></span><div class=\"track\">",
    );
    for tick in 0..=TICKS {
        let at = (u128::from(span) * u128::from(tick) / u128::from(TICKS)) as u64;
        write!(page, "<span style=\"left:{:.2}%\">+{}</span>", percent(at, span), seconds(at))?;
    }
    page.push_str("</div><span></span></div>\n");
    for bar in timeline.rows() {
        row(page, bar, timeline, span)?;
    }
    if let Some(more) = timeline.omitted() {
        writeln!(page, "<p>{}</p>", Text(&more))?;
    }
    page.push_str(
        "<p class=\"legend\"><i class=\"bar faint\"></i>used<i class=\"budget\"></i>budget\
         <i class=\"bar open bad\"></i>not finished\
         <i class=\"line\" style=\"border-left:2px solid var(--signal)\"></i>signal\
         <i class=\"line\" style=\"border-left:4px dotted var(--bad)\"></i>stalled",
    );
    match timeline.deadline {
        Some(deadline) if deadline <= span => page
            .push_str("<i class=\"line\" style=\"border-left:2px dashed var(--bad)\"></i>deadline"),
        Some(deadline) => write!(page, " · deadline +{}, beyond the chart", seconds(deadline))?,
        None => {}
    }
    page.push_str("</p>\n</div>\n");
    Ok(())
}

fn row(page: &mut String, bar: &Bar<'_>, timeline: &Timeline<'_>, span: u64) -> fmt::Result {
    let (member, tone) = (if bar.group.is_some() { " member" } else { "" }, class(bar.tone()));
    let (used, word) = (bar.used(), bar.word());
    let (phase, group) = (cut(bar.name), cut(bar.group.unwrap_or_default()));
    write!(
        page,
        "<div class=\"row phase{member}\" role=\"listitem\" data-phase=\"{name}\" data-group=\"{}\" \
         aria-label=\"{name}: +{}, {used}, {word}\">\
         <span class=\"name\">{name}</span><div class=\"track\">",
        Text(&group),
        seconds(bar.from),
        name = Text(&phase),
    )?;
    if let Some(budget) = bar.budget {
        let end = bar.from.saturating_add(budget);
        place(page, "budget", bar.from, end, span)?;
    }
    let open = if bar.outcome.is_some() { "" } else { " open" };
    place(page, &format!("bar {tone}{open}"), bar.from, bar.to, span)?;
    for mark in timeline.marks.iter().take(MAX_IN_ROW) {
        let class = match &mark.what {
            What::Signal { .. } => "at",
            What::Wedged(phase, _) if phase.is_none_or(|phase| phase == bar.name) => "wedge",
            _ => continue,
        };
        at(page, class, mark.at, span, &escape::cut(&mark.what.describe(), MAX_TITLE))?;
    }
    if let Some(deadline) = timeline.deadline.filter(|&deadline| deadline <= span) {
        at(page, "deadline", deadline, span, &format!("deadline +{}", seconds(deadline)))?;
    }
    write!(page, "</div><span class=\"used\">{used} <b class=\"{tone}\">{word}</b></span>")?;
    for note in [bar.error.unwrap_or_default(), &bar.recorded()] {
        if !note.is_empty() {
            write!(page, "<span class=\"note\">{}</span>", Text(&cut(note)))?;
        }
    }
    page.push_str("</div>\n");
    Ok(())
}

/// A bar between two instants.
fn place(page: &mut String, class: &str, from: u64, to: u64, span: u64) -> fmt::Result {
    let (left, right) = (percent(from, span), percent(to, span));
    let width = right - left;
    write!(page, "<div class=\"{class}\" style=\"left:{left:.3}%;width:{width:.3}%\"></div>")
}

/// A line at an instant.
fn at(page: &mut String, class: &str, at: u64, span: u64, title: &str) -> fmt::Result {
    let left = percent(at, span);
    write!(
        page,
        "<div class=\"{class}\" style=\"left:{left:.3}%\" title=\"{}\"></div>",
        Text(title)
    )
}

fn marks(page: &mut String, timeline: &Timeline<'_>) -> fmt::Result {
    page.push_str(
        "<h2>What happened</h2>\n<div class=\"scroll\"><table id=\"marks\">\n\
         <caption>Signals and who sent them, what stalled, the diagnostic, the end</caption>\n",
    );
    for mark in &timeline.marks {
        let (tone, text) = (class(mark.what.tone()), mark.what.describe());
        writeln!(
            page,
            "<tr><th scope=\"row\" class=\"time\">+{}</th><td class=\"{tone}\">{}</td></tr>",
            seconds(mark.at),
            Text(&cut(&text)),
        )?;
    }
    page.push_str("</table></div>\n");
    Ok(())
}

fn context(page: &mut String, record: &Record) -> fmt::Result {
    let context = record.entries.iter().find_map(|entry| match &entry.event {
        Event::Signal(signal) if !signal.context.is_null() => Some(&signal.context),
        _ => None,
    });
    let Some(context) = context else { return Ok(()) };
    let mut facts = Vec::new();
    flatten("", context, &mut facts);
    page.push_str(
        "<h2>Context</h2>\n<div class=\"scroll\"><table id=\"context\">\n\
         <caption>Everything that was known at the first signal</caption>\n",
    );
    let more = facts.len() > MAX_FACTS;
    for (name, value) in facts.iter().take(MAX_FACTS) {
        writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"value\">{}</td></tr>",
            Text(name),
            Text(&cut(value)),
        )?;
    }
    if more {
        page.push_str("<tr><th scope=\"row\">…</th><td>more in the record</td></tr>\n");
    }
    page.push_str("</table></div>\n");
    Ok(())
}

fn events(page: &mut String, record: &Record) -> fmt::Result {
    let count = record.entries.len();
    write!(
        page,
        "<h2>Record</h2>\n<details><summary>All {count} events</summary><div class=\"scroll\">\n"
    )?;
    for entry in record.entries.iter().take(MAX_EVENTS) {
        let line = json::to_string(entry).unwrap_or_default();
        writeln!(page, "<pre>{}</pre>", Text(&escape::cut(&line, MAX_LINE)))?;
    }
    if let Some(more) = count.checked_sub(MAX_EVENTS).filter(|&more| more > 0) {
        writeln!(page, "<p>… {more} more are in the record.</p>")?;
    }
    page.push_str("</div></details>\n");
    Ok(())
}

/// The leaves of a JSON value, by dotted names.
fn flatten(name: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    if facts.len() > MAX_FACTS {
        return;
    }
    let below = |key: &str| {
        let key = escape::cut(key, MAX_NAME_CHARS);
        let name = if name.is_empty() { key.into_owned() } else { format!("{name}.{key}") };
        escape::cut(&name, MAX_NAME_CHARS).into_owned()
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
        Value::String(text) => facts.push((name.to_owned(), text.clone())),
        other => facts.push((name.to_owned(), other.to_string())),
    }
}

fn cut(text: &str) -> std::borrow::Cow<'_, str> {
    escape::cut(text, MAX_VALUE)
}

fn percent(at: u64, span: u64) -> f64 {
    (at.min(span) as f64 / span as f64) * 100.0
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Warning => "warning",
        Tone::Bad => "bad",
        Tone::Faint => "faint",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup_and_nothing_in_it_is_unseen() {
        let cases = [
            ("<b a='x' b=\"y\">&", "&lt;b a=&#39;x&#39; b=&quot;y&quot;&gt;&amp;"),
            ("a\u{0}\n\u{1b}[31m", "a\\0\\n\\u{1b}[31m"),
            ("\u{202e}evil", "\\u{202e}evil"),
            (r"gw@b\x2dc", r"gw@b\x2dc"),
            ("größe ✓", "größe ✓"),
        ];
        for (text, expected) in cases {
            assert_eq!(Text(text).to_string(), expected);
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
