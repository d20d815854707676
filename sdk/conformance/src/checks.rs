//! Running the checks of a component one by one: telling an observer what begins, and looking after each whether the
//! plugin has left the process as it was.

use std::collections::{BTreeMap, BTreeSet};

use easytransfer::handle_threads;
use easytransfer::plugin::live_handles;

use crate::process::{CLOSES_FILES, Process};
use crate::report::{CheckReport, Line, Outcome, Stop, Verdict};

/// What an observer hears while a plugin is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckStep {
    /// A check begins: component, slot, what must hold.
    Begins(Line),
    /// What came of checks.
    Ends(Line),
}

/// Who hears of every step.
pub type Observer = Box<dyn FnMut(&CheckStep)>;

/// How a plugin is checked.
#[derive(Default)]
pub struct CheckWatch {
    /// Hears of every step.
    pub observer: Option<Observer>,
    /// Checks that are not run, as [`CheckWatch::key`] names them, with what is told of them instead: they ended the
    /// process before.
    pub ended: BTreeMap<String, String>,
    /// Whether the process does nothing else meanwhile, so that its memory, threads, output, folder, environment,
    /// locale and signals tell of the plugin.
    pub alone: bool,
}

impl CheckWatch {
    /// Name of a check in [`CheckWatch::ended`].
    pub fn key(component: &str, check: &str) -> String {
        format!("{component}: {check}")
    }

    fn tell(&mut self, step: &CheckStep) {
        if let Some(observer) = &mut self.observer {
            observer(step);
        }
    }
}

/// Adds the checks of one component to a report.
pub(crate) struct Checks<'a> {
    report: &'a mut CheckReport,
    watch: &'a mut CheckWatch,
    component: String,
    process: Option<Process>,
    /// The next check calls the plugin from threads of its own.
    uses_threads: bool,
    /// The next check is about an instance that lives on, and may keep handles.
    lives_on: bool,
    /// Promises about the process that were found broken, so that each is told once.
    told: BTreeSet<String>,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(
        report: &'a mut CheckReport,
        watch: &'a mut CheckWatch,
        component: impl Into<String>,
    ) -> Self {
        let process = watch.alone.then(Process::now);
        Self {
            report,
            watch,
            component: component.into(),
            process,
            uses_threads: false,
            lives_on: false,
            told: BTreeSet::new(),
        }
    }

    /// Whether nothing but the checks runs in this process.
    pub(crate) fn is_alone(&self) -> bool {
        self.watch.alone
    }

    /// [`Checks::check`] with a body that calls the plugin from several threads.
    pub(crate) fn check_in_threads(
        &mut self,
        slot: &str,
        check: &str,
        body: impl FnOnce() -> Outcome,
    ) {
        self.uses_threads = true;
        self.check(slot, check, body);
        self.uses_threads = false;
    }

    /// [`Checks::check`] of an instance that was made before and lives on.
    pub(crate) fn check_living(&mut self, slot: &str, check: &str, body: impl FnOnce() -> Outcome) {
        self.lives_on = true;
        self.check(slot, check, body);
        self.lives_on = false;
    }

    fn line(&self, slot: &str, check: &str, verdict: Verdict) -> Line {
        let (component, slot, check) = (self.component.clone(), slot.to_owned(), check.to_owned());
        Line { component, slot, check, verdict }
    }

    fn add(&mut self, line: Line) {
        self.watch.tell(&CheckStep::Ends(line.clone()));
        self.report.lines.push(line);
    }

    /// Runs one check of a slot, unless it ended the process before.
    pub(crate) fn check(&mut self, slot: &str, check: &str, body: impl FnOnce() -> Outcome) {
        let key = CheckWatch::key(&self.component, check);
        if let Some(found) = self.watch.ended.get(&key) {
            let verdict = Verdict::Failed(found.clone());
            return self.add(self.line(slot, check, verdict));
        }
        let begins = self.line(slot, check, Verdict::NotRun(String::new()));
        self.watch.tell(&CheckStep::Begins(begins));
        let (before, threads) = (live_handles(), handle_threads());
        let verdict = match body() {
            Ok(()) => Verdict::Passed,
            Err(Stop::Failed(found)) => Verdict::Failed(found),
            Err(Stop::Skipped(reason)) => Verdict::NotRun(reason),
        };
        // Tests of one process run beside each other and have handles of their own.
        let more = if self.watch.alone { live_handles() - before } else { 0 };
        self.add(self.line(slot, check, verdict));
        let mut changes = self.process.as_mut().map(Process::changes).unwrap_or_default();
        if more > 0 && !self.lives_on {
            let found = format!("{more} handles are still alive");
            changes.push(("gives back every handle that it gets", found));
        }
        if self.watch.alone && !self.uses_threads && handle_threads() > threads {
            let more = handle_threads() - threads;
            let found = format!("{more} other threads have called it");
            changes.push(("calls the host on the thread that it was called on", found));
        }
        if self.component == crate::LIBRARY {
            // The loader keeps the library that it has hashed open.
            changes.retain(|(promise, _)| *promise != CLOSES_FILES);
        }
        for (promise, found) in changes {
            if self.told.insert(format!("{promise} {slot}")) {
                let found = format!("{found}, after the check \"{check}\"");
                self.add(self.line(slot, promise, Verdict::Failed(found)));
            }
        }
    }
}
