//! `forensics last`

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use forensics_core::capture::is_secure_execution;
use forensics_core::escape::{Escaped, error_chain};
use forensics_core::json;
use forensics_core::record::{
    ForeignRecords, Run, UnitEnd, Witness, append_witness, journal_arguments, parse_inspect,
    parse_journal,
};

use super::audit::search::senders;
use crate::layout::Options;
use crate::program::output;
use crate::report;
use crate::timeline::Collector;

/// Longest inspection read, in bytes.
const MAX_INSPECTION: u64 = 16 << 20;

#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal it prints a short block for people. Otherwise, and with --format line, it prints one
line of fields.

In ExecStopPost=, systemd passes the result of the unit and the end of its main process in the
environment. They are shown, and added to the record, so that the next start knows them. Otherwise,
if the run recorded no end, the journal is asked for the messages of the manager, which needs root or
the group systemd-journal. The audit log is asked who sent it SIGKILL, or a signal whose sender was gone,
if it can be read: see forensics audit.

Exit status: 0 the run ended cleanly, 1 it did not, 2 there is no readable record.

Examples:
  ExecStopPost=-/usr/bin/forensics last /var/lib/gateway/shutdown
  podman inspect gateway | forensics last /srv/gateway/shutdown --inspect -
  kubectl get pod gateway-0 -o json | forensics last shutdown --inspect - --container gateway")]
pub(crate) struct Last {
    /// The folder of the records
    dir: PathBuf,
    /// Use what a container runtime says: the output of `podman inspect`, `docker inspect` or `kubectl
    /// get pod NAME -o json`; `-` is standard input
    #[arg(long, value_name = "FILE")]
    inspect: Option<PathBuf>,
    /// The container of the pod that the service ran in
    #[arg(long, value_name = "NAME", requires = "inspect")]
    container: Option<String>,
    /// Search this audit log, with its rotated files, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// Print JSON, on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

impl Last {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        let mut run = self.find()?;
        if let Some(inspection) = &self.inspect {
            let text = read(inspection)?;
            let (start, started, last) =
                (&run.record.start, run.record.started, run.post_mortem.last);
            let failed = |e| {
                let why = error_chain(&e);
                io::Error::other(format!("{}: {why}", inspection.display()))
            };
            let end = parse_inspect(&text, self.container.as_deref(), start, started, last);
            add(&mut run, &Witness::from(&end.map_err(failed)?));
        }
        let has_just_ended = std::env::var_os("SERVICE_RESULT").is_some();
        for sent in senders(&run, has_just_ended, self.audit_log.as_deref()) {
            let witness = Witness::from(&sent);
            // Only the owner of a record can add to it. Root may read those of others.
            let _ = append_witness(&run, &witness);
            run.add(&witness);
        }
        let last = &run.post_mortem;
        if last.file_uid.is_none()
            && let Ok(foreign @ ForeignRecords { count: 1.., .. }) = ForeignRecords::of(&self.dir)
        {
            eprintln!("forensics: not used: {foreign}");
        }
        if self.json {
            writeln!(out, "{}", json::to_string(last)?)?;
        } else if let Some(style) = self.options.for_people() {
            let mut collector = Collector::default();
            run.file.read(|entry, _| collector.add(entry)).map_err(io::Error::other)?;
            let timeline = collector.timeline(last.stop_timeout_us);
            report::write(out, &run, &timeline, style)?;
        } else {
            writeln!(out, "{last}")?;
        }
        Ok(ExitCode::from(u8::from(!last.is_clean())))
    }

    /// The run to report, with what systemd says about its end.
    fn find(&self) -> io::Result<Run> {
        // A caller of a program with more rights than its own could write anything there.
        let variable = |name: &str| std::env::var(name).ok().filter(|_| !is_secure_execution());
        if let Some((id, end)) = UnitEnd::from_environment(variable) {
            if let Some(mut run) =
                Run::of_invocation(&self.dir, &id, &end).map_err(io::Error::other)?
            {
                add(&mut run, &Witness::from(&end));
                return Ok(run);
            }
            let result = end.service_result.unwrap_or_default();
            eprintln!(
                "forensics: no run in {} has the invocation id {id} of this unit, whose result is {}: \
                 the service recorded none, or is still alive; what follows is the last run before it",
                Escaped(&self.dir.display().to_string()),
                Escaped(&result)
            );
        }
        let last = Run::last(&self.dir).map_err(io::Error::other)?;
        let none = || format!("{}: no record that can be read", self.dir.display());
        let mut run = last.ok_or_else(|| io::Error::other(none()))?;
        if run.may_be_in_journal()
            && let Some(arguments) = journal_arguments(&run.record.start)
            && let Ok(said) = output("journalctl", &arguments)
            && let Some(end) = parse_journal(&said, &run.record.start)
        {
            run.add(&Witness::from(&end));
        }
        Ok(run)
    }
}

/// Uses what a witness said, and keeps it in the record if that is ours.
fn add(run: &mut Run, witness: &Witness) {
    // First, because a run that is not visible from here may be known to have ended by now.
    if !run.post_mortem.witnesses.contains(witness) {
        run.add(witness);
    }
    if let Err(error) = append_witness(run, witness) {
        eprintln!("forensics: not added to the record: {}", Escaped(&error_chain(&error)));
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().lock().take(MAX_INSPECTION).read_to_end(&mut text)?;
        return Ok(text);
    }
    let failed = |e| io::Error::other(format!("cannot read {}: {e}", file.display()));
    // It may be a pipe, as in `--inspect <(podman inspect gateway)`.
    let mut text = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(MAX_INSPECTION).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}
