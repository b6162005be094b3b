//! `forensics show`

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use forensics_core::json;
use forensics_core::record::{Event, RecordFile, Run};

use crate::format::{self, unread_lines};
use crate::html;
use crate::layout::{Color, Tone};
use crate::output::replace;
use crate::timeline::Collector;
use crate::{report, text};

/// Longest name of a service shown, in characters.
const MAX_SERVICE: usize = 160;

#[derive(Debug, Args)]
#[command(after_help = "\
A bar is the time that a phase used. The dots after it are the time that it had left. The bar of a
phase that was still running when the run ended has a different fill.

Exit status: 0; 2 if the record cannot be read or the page cannot be written.

Example:
  forensics show --html stop.html \"$(ls -d /var/lib/gateway/shutdown/*.jsonl | tail -1)\"")]
pub(crate) struct Show {
    /// The record
    file: PathBuf,
    /// Print JSON: the verdict and all events, on one line
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a self-contained page for a browser instead, with mode 0600; `-` is standard output
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    #[command(flatten)]
    color: Color,
}

impl Show {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<()> {
        let file = RecordFile::open(&self.file).map_err(io::Error::other)?;
        let (mut collector, mut context) = (Collector::default(), Vec::new());
        let run = Run::of(file, |entry| {
            collector.add(entry);
            if let Event::Signal(signal) = &entry.event
                && context.is_empty()
            {
                context = html::facts(&signal.context);
            }
        });
        let run = run.map_err(io::Error::other)?;
        let timeline = collector.timeline(run.post_mortem.stop_timeout_us);
        if let Some(path) = &self.html {
            let page = html::Page { run: &run, timeline: &timeline, context: &context };
            if path == Path::new("-") {
                page.write(out)?;
            } else {
                let failed = |e| format!("cannot write {}: {e}", path.display());
                replace(path, |out| page.write(out)).map_err(|e| io::Error::other(failed(e)))?;
            }
        } else if self.json {
            print_json(out, &run)?;
        } else {
            let post_mortem = &run.post_mortem;
            let service = format::name(&post_mortem.service, MAX_SERVICE);
            let title = format!("{service}[{}], started {}", post_mortem.pid, post_mortem.started);
            let style = self.color.style();
            style.text(out, Tone::PLAIN, &title)?;
            text::draw(out, &timeline, style)?;
            if io::stdout().is_terminal() {
                writeln!(out)?;
                report::write(out, &run, &timeline, style)?;
            } else {
                writeln!(out, "{post_mortem}")?;
            }
            if let Some(unread) = unread_lines(&run.record) {
                writeln!(out, "{unread}")?;
            }
        }
        Ok(())
    }
}

/// The verdict, and the events as they are in the record. They are read once more, because all of
/// them at once may not fit into memory.
fn print_json(out: &mut dyn Write, run: &Run) -> io::Result<()> {
    write!(out, "{{\"verdict\":{},\"events\":[", json::to_string(&run.post_mortem)?)?;
    let (mut separator, mut written) = ("", Ok(()));
    let read = run.file.read(|_, line| {
        if written.is_ok() {
            let write = write!(out, "{separator}");
            written = write.and_then(|()| out.write_all(&json::safe_line(line)));
            separator = ",";
        }
    });
    written?;
    read.map_err(io::Error::other)?;
    writeln!(out, "]}}")
}
