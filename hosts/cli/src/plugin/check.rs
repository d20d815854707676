//! `easytransfer plugin check`: the checks run in a child process, which a plugin may crash, leave or stop; what it
//! was doing then is a finding, and the checks begin again without that one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use easytransfer::{Error, Result};
use easytransfer_conformance::{CheckReport, CheckWatch, LIBRARY, LOADS, Line, Verdict};

use super::child::{Ending, Limits, run};
use crate::print;

/// Most checks that may end the child, of a plugin and of one of its components.
const ENDS: usize = 16;
const ENDS_OF_COMPONENT: usize = 4;

/// Load a plugin in a child process, hold every component to what it promises, and report what is wrong; exit code 0
/// when nothing is, 1 with findings, 2 when it cannot be loaded
#[derive(Args)]
pub struct Check {
    /// Its manifest or folder
    path: PathBuf,
    /// Most seconds for one check
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Most memory, in MiB beside that of the engine
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    memory: u64,
    /// Print every check, not only the findings
    #[arg(long)]
    all: bool,
    /// Print the report as JSON
    #[arg(long, conflicts_with = "all")]
    json: bool,
}

impl Check {
    pub fn run(self) -> Result<()> {
        let report = self.report()?;
        let text = match (self.json, self.all) {
            (true, _) => format!("{}\n", report.to_json()),
            (false, true) => report.to_string(),
            (false, false) => report.summary(),
        };
        print::text(&text)?;
        match report.failures().count() {
            0 => Ok(()),
            count => Err(Error::other(format!(
                "`{}`: {count} findings about plugin {}; the lines with FAILED say what was promised and found",
                self.path.display(),
                report.id
            ))),
        }
    }

    /// Runs children until one comes to its end.
    fn report(&self) -> Result<CheckReport> {
        let limits = Limits {
            time: Duration::from_secs(self.timeout),
            memory: self.memory.saturating_mul(1 << 20),
        };
        let mut ended: BTreeMap<String, String> = BTreeMap::new();
        let mut of_components: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let (lines, found) = match run(&self.path, &limits, &ended)? {
                Ending::Report(report) => return Ok(report),
                Ending::Refused(text) => return Err(Error::user(text)),
                Ending::Died { lines, at, found } => {
                    let key = CheckWatch::key(&at.component, &at.check);
                    let count = of_components.entry(at.component.clone()).or_default();
                    *count += 1;
                    let is_again = ended.insert(key, found.clone()).is_some();
                    let is_useless = at.component == LIBRARY && at.check == LOADS;
                    if !is_again && !is_useless && ended.len() < ENDS && *count < ENDS_OF_COMPONENT
                    {
                        continue;
                    }
                    (lines, Line { verdict: Verdict::Failed(found), ..at })
                }
            };
            return Ok(self.partial(lines, found));
        }
    }

    /// The report of a child that did not come to its end, with what ended it.
    fn partial(&self, mut lines: Vec<Line>, last: Line) -> CheckReport {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let not_run = Line {
            slot: String::new(),
            check: "everything after that".to_owned(),
            verdict: Verdict::NotRun("too many checks ended the process".to_owned()),
            ..last.clone()
        };
        lines.extend([last, not_run]);
        CheckReport { id: name, version: String::new(), lines }
    }
}
