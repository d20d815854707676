//! Profiles of what a program does: a Chrome trace in a file, and sums by operation.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use easytransfer_plugin::profile;
use easytransfer_train::files::atomic::AtomicFile;
use easytransfer_train::{Error, Result};
use serde::Serialize;
use serde_json::Value;

/// A running recording; see [`crate::Runtime::profile`]. Dropped without [`Profile::finish`], it leaves no file.
pub struct Profile {
    path: PathBuf,
    file: AtomicFile,
}

/// One line of a summary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileOp {
    /// The operation; for layers with the shape of the weight.
    pub name: String,
    /// "forward", "backward", "engine" (work that is not on the tape), "train", or what a plugin said.
    pub category: String,
    /// How often.
    pub calls: u64,
    /// Milliseconds without what ran inside.
    pub self_ms: f64,
    /// Milliseconds with what ran inside.
    pub total_ms: f64,
    /// Floating point operations; 0 where none are counted.
    pub flop: f64,
    /// Milliseconds that a card took, without what ran inside; 0 where none computes.
    pub card_ms: f64,
}

/// What a recording came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileSummary {
    /// Wall-clock seconds of the recording.
    pub seconds: f64,
    /// Events in the trace.
    pub events: u64,
    /// Events that did not fit; the sums hold them too.
    pub dropped: u64,
    /// Operations by falling own time.
    pub ops: Vec<ProfileOp>,
    /// Where the trace is.
    pub path: PathBuf,
}

impl Profile {
    pub(crate) fn start(path: &Path, capacity: usize) -> Result<Profile> {
        // Made first: a place that cannot be written to is an error before the work, not after it.
        let file = AtomicFile::create(path)?;
        profile::start(capacity)?;
        Ok(Profile { path: path.to_path_buf(), file })
    }

    /// Ends the recording and writes the trace, whole or not at all.
    pub fn finish(mut self) -> Result<ProfileSummary> {
        profile::stop();
        let io = |error| Error::io("write", &self.path, error);
        self.file.write_all(profile::trace()?.as_slice()).map_err(io)?;
        self.file.commit()?;
        ProfileSummary::parse(&profile::summary()?, &self.path)
    }
}

impl ProfileSummary {
    fn parse(text: &str, path: &Path) -> Result<ProfileSummary> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::other(format!("profile: the engine's summary: {error}")))?;
        let op = |op: &Value| ProfileOp {
            name: op["name"].as_str().unwrap_or_default().to_owned(),
            category: op["category"].as_str().unwrap_or_default().to_owned(),
            calls: op["calls"].as_u64().unwrap_or(0),
            self_ms: op["self_ms"].as_f64().unwrap_or(0.0),
            total_ms: op["total_ms"].as_f64().unwrap_or(0.0),
            flop: op["flop"].as_f64().unwrap_or(0.0),
            card_ms: op["card_ms"].as_f64().unwrap_or(0.0),
        };
        Ok(ProfileSummary {
            seconds: value["seconds"].as_f64().unwrap_or(0.0),
            events: value["events"].as_u64().unwrap_or(0),
            dropped: value["dropped"].as_u64().unwrap_or(0),
            ops: value["ops"].as_array().map_or_else(Vec::new, |ops| ops.iter().map(op).collect()),
            path: path.to_path_buf(),
        })
    }
}

impl fmt::Display for ProfileSummary {
    /// The 25 operations with the most own time, on the card where one computes. The share is of the wall clock;
    /// threads that work at the same time add up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        writeln!(f, "profile: {:.2} s, {} events: {path}", self.seconds, self.events)?;
        if self.dropped > 0 {
            writeln!(f, "the trace is full: {} later events are only in these sums", self.dropped)?;
        }
        let on_card = self.ops.iter().any(|op| op.card_ms > 0.0);
        let own = |op: &ProfileOp| if on_card { op.card_ms } else { op.self_ms };
        let what = if on_card { "card ms" } else { "own ms" };
        writeln!(f, "{:>7} {what:>10} {:>8} {:>9}  operation", "share", "calls", "GFLOP/s")?;
        let mut ops: Vec<&ProfileOp> = self.ops.iter().collect();
        // Stable: the engine has sorted them by the host's time.
        ops.sort_by(|a, b| own(b).total_cmp(&own(a)));
        for op in ops.into_iter().take(25) {
            let time = own(op);
            let share = time / (self.seconds * 10.0).max(1e-9);
            let rate = match op.flop > 0.0 && time > 0.0 {
                true => format!("{:.1}", op.flop / time / 1e6),
                false => String::new(),
            };
            let (name, category) = (&op.name, &op.category);
            writeln!(f, "{share:>6.1}% {time:>10.1} {:>8} {rate:>9}  {category} {name}", op.calls)?;
        }
        Ok(())
    }
}
