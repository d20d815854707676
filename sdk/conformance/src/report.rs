//! What was checked and what came of it.

use std::fmt;

use easytransfer::plugin;
use serde_json::{Value, json};

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
    /// Kind and name of the component; "library" for what belongs to none.
    pub component: String,
    /// The slots of the component's table that the check is about.
    pub slot: String,
    /// What must hold.
    pub check: String,
    /// Whether it does.
    pub verdict: Verdict,
}

/// All checks of a plugin. Printed, it is one line per check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The checks that do not hold: the findings.
    pub fn failures(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Failed(_)))
    }

    /// Whether no check failed.
    pub fn is_good(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The report for people: a line for each finding, and one for each component with how many checks it passed.
    pub fn summary(&self) -> String {
        let mut text = format!("plugin {} {}: loaded\n", self.id, self.version);
        let mut components: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !components.contains(&line.component.as_str()) {
                components.push(&line.component);
            }
        }
        for component in components {
            let of = || self.lines.iter().filter(|line| line.component == component);
            text.push_str(&format!("{component}: {}\n", counts(of())));
            for line in of().filter(|line| matches!(line.verdict, Verdict::Failed(_))) {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text.push_str(&match self.failures().count() {
            0 => "no findings\n".to_owned(),
            1 => "1 finding\n".to_owned(),
            count => format!("{count} findings\n"),
        });
        text
    }

    /// The report for programs: {"plugin", "version", "findings", "checks"}; "findings" has the checks that failed,
    /// and each check is {"component", "slot", "promised", "verdict": "passed", "failed" or "not run", "found"}.
    pub fn to_json(&self) -> Value {
        let lines = |lines: Vec<&Line>| lines.into_iter().map(Line::to_json).collect::<Vec<_>>();
        json!({
            "plugin": self.id,
            "version": self.version,
            "findings": lines(self.failures().collect()),
            "checks": lines(self.lines.iter().collect()),
        })
    }
}

fn counts<'a>(lines: impl Iterator<Item = &'a Line>) -> String {
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for line in lines {
        match line.verdict {
            Verdict::Passed => passed += 1,
            Verdict::Failed(_) => failed += 1,
            Verdict::NotRun(_) => not_run += 1,
        }
    }
    format!("{passed} checks passed, {failed} failed, {not_run} not run")
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plugin {} {}: loaded", self.id, self.version)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "{}", counts(self.lines.iter()))
    }
}

impl Line {
    /// The line as JSON, see [`CheckReport::to_json`].
    pub fn to_json(&self) -> Value {
        let (verdict, found) = match &self.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Failed(found) => ("failed", found.as_str()),
            Verdict::NotRun(reason) => ("not run", reason.as_str()),
        };
        json!({
            "component": self.component, "slot": self.slot, "promised": self.check, "verdict": verdict, "found": found,
        })
    }

    /// The line of [`Line::to_json`].
    pub fn from_json(value: &Value) -> Option<Line> {
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let verdict = match value.get("verdict")?.as_str()? {
            "passed" => Verdict::Passed,
            "failed" => Verdict::Failed(text("found")?),
            _ => Verdict::NotRun(text("found")?),
        };
        let (component, slot, check) = (text("component")?, text("slot")?, text("promised")?);
        Some(Line { component, slot, check, verdict })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { component, slot, check, verdict } = self;
        match verdict {
            Verdict::Passed => write!(f, "{component}: {check}: ok"),
            Verdict::Failed(found) => {
                write!(f, "{component}: {slot}: {check}: FAILED: {}", found.trim_end())
            }
            Verdict::NotRun(reason) => write!(f, "{component}: {check}: not run: {reason}"),
        }
    }
}

/// Why a check ends early.
#[derive(Debug)]
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
