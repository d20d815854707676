//! What was checked and what came of it.

use std::fmt;

use easytransfer::plugin;

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, with what was found.
    Failed(String),
    /// It was not run, with the reason.
    NotRun(String),
}

/// One check of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Kind and name of the component.
    pub component: String,
    /// What must hold.
    pub check: String,
    /// Whether it does.
    pub verdict: Verdict,
}

/// All checks of a plugin. Printed, it is one line per check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Id of the plugin.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The checks in the order in which they were made.
    pub lines: Vec<Line>,
}

impl CheckReport {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), version: String::new(), lines: Vec::new() }
    }

    /// The checks that do not hold.
    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Failed(_)))
    }

    /// Whether no check failed.
    pub fn is_good(&self) -> bool {
        self.failures().next().is_none()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plugin {} {}: loaded", self.id, self.version)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let count = |what: fn(&Verdict) -> bool| {
            self.lines.iter().filter(|line| what(&line.verdict)).count()
        };
        writeln!(
            f,
            "{} checks passed, {} failed, {} not run",
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::NotRun(_)))
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.component, self.check)?;
        match &self.verdict {
            Verdict::Passed => f.write_str("ok"),
            Verdict::Failed(found) => write!(f, "FAILED: {found}"),
            Verdict::NotRun(reason) => write!(f, "not run: {reason}"),
        }
    }
}

/// Why a check ends early.
pub(crate) enum Stop {
    Failed(String),
    Skipped(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Stop>;

pub(crate) fn failed<T>(found: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(found.into()))
}

pub(crate) fn skipped<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skipped(reason.into()))
}

impl From<plugin::Error> for Stop {
    fn from(error: plugin::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<easytransfer::Error> for Stop {
    fn from(error: easytransfer::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Adds the checks of one component to a report.
pub(crate) struct Checks<'a> {
    report: &'a mut CheckReport,
    component: String,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(report: &'a mut CheckReport, component: String) -> Self {
        Self { report, component }
    }

    /// Runs one check.
    pub(crate) fn check(&mut self, check: &str, body: impl FnOnce() -> Outcome) {
        let verdict = match body() {
            Ok(()) => Verdict::Passed,
            Err(Stop::Failed(found)) => Verdict::Failed(found),
            Err(Stop::Skipped(reason)) => Verdict::NotRun(reason),
        };
        let (component, check) = (self.component.clone(), check.to_owned());
        self.report.lines.push(Line { component, check, verdict });
    }
}
