//! The suite that any plugin must pass: each component is made, used on small inputs of its kind, and held to what
//! the boundary promises of it.
//!
//! A plugin's own tests call [`check_record`], in their process; `easytransfer plugin check` calls [`check_watched`]
//! in a child process that may crash. A check that a component gives no hold for (a loss that wants other inputs than
//! usual) is told as not run, and is no failure.
//!
//! What it deliberately does not do: it does not judge whether a method is good, only whether it computes what it
//! says it does.

mod app;
mod checks;
mod inputs;
mod library;
mod loss;
mod memory;
mod metric;
mod model;
mod op;
mod optimizer;
mod options;
mod process;
mod report;
mod schema;
mod strategy;

use std::path::Path;
use std::time::{Duration, Instant};

use easytransfer::plugin::{LinkedPlugin, live_handles};
use easytransfer::{Result, Runtime, RuntimeOptions};

use checks::Checks;
pub use checks::{CheckStep, CheckWatch, Observer};
use library::Library;
pub use report::{CheckReport, Line, Verdict};
use report::{failed, skipped};

/// What the checks of the plugin as a whole are told of.
pub const LIBRARY: &str = "library";
/// The check within which the library is opened and `init` runs.
pub const LOADS: &str = "is loaded, and ready, within a second";

/// Most time from opening the library to the end of `init`, and for `init` alone.
const LOAD_LIMIT: Duration = Duration::from_millis(1000);
const INIT_LIMIT: Duration = Duration::from_millis(250);

/// Loads the plugin of a manifest or folder into a runtime of its own and checks it. Errors: it cannot be loaded; the
/// message says what was required, what was found and what to do.
pub fn check_file(path: &Path) -> Result<CheckReport> {
    check_watched(path, &mut CheckWatch::default())
}

/// [`check_file`] with an observer, and with more checks where nothing else runs in the process.
pub fn check_watched(path: &Path, watch: &mut CheckWatch) -> Result<CheckReport> {
    let runtime = runtime()?;
    // The engine's own threads and files are there before the first look at the process.
    inputs::warm_up()?;
    let mut report = CheckReport::default();
    let mut loaded = None;
    let mut checks = Checks::new(&mut report, watch, LIBRARY);
    checks.check("init", LOADS, || {
        let start = Instant::now();
        loaded = Some(runtime.load_plugin(path));
        let first = start.elapsed();
        if !matches!(loaded, Some(Ok(_))) {
            return Ok(());
        }
        // A second runtime calls `init` again, of a library that is open already.
        let other = self::runtime()?;
        let start = Instant::now();
        other.load_plugin(path)?;
        let again = start.elapsed();
        let slow = |time: Duration, limit: Duration| {
            failed(format!(
                "it took {:.2} seconds, expected less than {:.2}",
                time.as_secs_f64(),
                limit.as_secs_f64()
            ))
        };
        match () {
            () if again > INIT_LIMIT => slow(again, INIT_LIMIT),
            () if first > LOAD_LIMIT => slow(first, LOAD_LIMIT),
            () => Ok(()),
        }
    });
    let Some(loaded) = loaded else { return Ok(report) };
    report.id = loaded?;
    let id = report.id.clone();
    components(&runtime, &id, &mut report, watch);
    Ok(report)
}

/// Checks a plugin that is linked into the program. Errors: as for [`check_file`].
pub fn check_record(plugin: LinkedPlugin) -> Result<CheckReport> {
    let runtime = runtime()?;
    let id = runtime.register_plugin(plugin)?;
    Ok(check(&runtime, &id))
}

/// Checks a plugin that a runtime has loaded.
pub fn check(runtime: &Runtime, id: &str) -> CheckReport {
    let mut report = CheckReport::new(id);
    components(runtime, id, &mut report, &mut CheckWatch::default());
    report
}

/// A runtime that knows no plugins, so that no other of the same id answers.
fn runtime() -> Result<Runtime> {
    Runtime::new(RuntimeOptions { only_these: true, ..RuntimeOptions::default() })
}

fn components(runtime: &Runtime, id: &str, report: &mut CheckReport, watch: &mut CheckWatch) {
    for plugin in runtime.plugins().into_iter().filter(|plugin| plugin.id == id) {
        report.version = plugin.version;
        let library = Library::open(&plugin.path);
        let mut checks = Checks::new(report, watch, LIBRARY);
        library::check(library.as_ref(), &mut checks);
        for (kind, name) in &plugin.provides {
            let mut checks = Checks::new(report, watch, format!("{kind} {name}"));
            component(runtime, (kind, name), library.as_ref(), &mut checks);
        }
    }
}

fn component(
    runtime: &Runtime,
    (kind, name): (&str, &str),
    library: Option<&Library>,
    checks: &mut Checks<'_>,
) {
    let mut found = None;
    checks.check("name", "is found by its name", || {
        found = Some(runtime.components().find(&format!("et.{kind}/1"), name)?);
        Ok(())
    });
    let Some(component) = found else { return };
    let before = live_handles();
    if kind != "op" {
        schema::check(&component, checks);
        checks.check("release", "release accepts NULL", || Ok(component.release_null()?));
        options::made(&component, checks);
    }
    match kind {
        "loss" => loss::check(&component, checks),
        "optimizer" => optimizer::check(&component, checks),
        "metric" => metric::check(&component, checks),
        "model" => model::check(&component, checks),
        "app" => app::check(&component, checks),
        "strategy" => strategy::check(&component, checks),
        "op" => op::check(&component, checks),
        other => checks
            .check("component", "is exercised", || skipped(format!("no checks for kind {other}"))),
    }
    if kind != "op" {
        options::check(&component, library, checks);
    }
    checks.check("release", "gives back every handle", || match live_handles() - before {
        0 => Ok(()),
        more => failed(format!("{more} handles are still alive")),
    });
}
