//! Processes that are measured in turn: ours and its peers, all alive at the same time, one at work.
//!
//! The protocol has lines. A process loads and warms up, then writes one JSON object: `{"ready": …}`, or `{"error":
//! "why"}` and ends. Then it reads requests, one per line (`round 5` is five units of work), and answers each with
//! one JSON object, which has `seconds` for a round. It ends when its standard input does. A process that has nothing
//! to do waits in a read, so it takes no time from the other side.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use easytransfer::EnginePrecision;
use serde_json::{Value, json};

use crate::{machine, median};

/// A process that waits for requests.
pub struct Peer {
    /// What tables call it.
    pub name: String,
    /// What it said when it was ready.
    pub ready: Value,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a process and waits until it is ready. `Err` says why it is not.
    pub fn start(name: &str, command: &mut Command) -> Result<Peer, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{name}: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no pipe for the output")?;
        let mut peer = Peer {
            name: name.to_owned(),
            ready: Value::Null,
            child,
            stdin,
            lines: BufReader::new(stdout),
        };
        let answer = peer.answer()?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("{name}: {error}")),
            None => {
                peer.ready = answer["ready"].clone();
                Ok(peer)
            }
        }
    }

    /// The next line that is a JSON object; libraries may chat in between.
    fn answer(&mut self) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line);
            if read.map_err(|error| format!("{}: {error}", self.name))? == 0 {
                return Err(format!("{}: it ended without an answer", self.name));
            }
            if line.starts_with('{') {
                return serde_json::from_str(&line)
                    .map_err(|error| format!("{}: {error}: {line}", self.name));
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: &str) -> Result<Value, String> {
        // What the last process left running (threads that spin before they sleep) ends meanwhile.
        std::thread::sleep(Duration::from_millis(250));
        let stdin = self.stdin.as_mut().ok_or("it was told to end")?;
        writeln!(stdin, "{request}").map_err(|error| format!("{}: {error}", self.name))?;
        stdin.flush().map_err(|error| format!("{}: {error}", self.name))?;
        self.answer()
    }

    /// Seconds of one round of `units`.
    pub fn round(&mut self, units: usize) -> Result<Value, String> {
        self.ask(&format!("round {units}"))
    }

    /// The most memory that it held so far, in MiB.
    pub fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be in the middle of something; nobody waits for it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our side of the protocol: says that it is ready, then answers each request by `each` until there are no more.
pub fn serve(ready: Value, mut each: impl FnMut(&str) -> Value) {
    say(&json!({ "ready": ready }));
    while let Some(request) = request() {
        say(&each(&request));
    }
}

/// Writes one answer.
pub fn say(answer: &Value) {
    let mut out = std::io::stdout().lock();
    let sent = writeln!(out, "{answer}").and_then(|()| out.flush());
    sent.expect("whoever asked reads the answer");
}

/// The next request, `None` at the end.
pub fn request() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).expect("a readable request");
    (read > 0).then(|| line.trim().to_owned())
}

/// The number of a request `round N`.
pub fn units(request: &str) -> usize {
    request.strip_prefix("round ").and_then(|n| n.parse().ok()).expect("a request `round N`")
}

/// Median, least and most of some numbers.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(values: &[f64]) -> Spread {
        Spread {
            median: median(values.to_vec()),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Of the quotients of each round.
    pub fn ratio(theirs: &[f64], ours: &[f64]) -> Spread {
        Spread::of(&theirs.iter().zip(ours).map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// "1.23 (1.20..1.31)" with that many decimals.
pub fn shown(spread: Spread, decimals: usize) -> String {
    let Spread { median, least, most } = spread;
    format!("{median:.decimals$} ({least:.decimals$}..{most:.decimals$})")
}

/// This program once more for each of our precisions, as a side that trains in it; `more` adds its arguments.
pub fn own_sides(precisions: &str, more: impl Fn(&mut Command, &str)) -> Vec<Peer> {
    let start = |precision| {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.env("RAYON_NUM_THREADS", "2").args(["--precision", precision]);
        more(&mut command, precision);
        Peer::start(&format!("ours {precision}"), &mut command).expect("our side starts")
    };
    precisions.split(',').map(start).collect()
}

/// Begins a side that [`own_sides`] started, as the command begins: memory is kept, and the thread that computes is
/// one of the engine's. The answer is the side's precision.
///
/// # Panics
/// If it is neither f32 nor bf16, or something was computed before.
pub fn begin_own() -> EnginePrecision {
    easytransfer::keep_pages();
    easytransfer::include_this_thread(Some(machine::threads())).expect("nothing ran before");
    match flag("--precision").as_deref() {
        None | Some("f32") => EnginePrecision::F32,
        Some("bf16") => EnginePrecision::Bf16,
        Some(other) => panic!("--precision: expected f32 or bf16, found {other}"),
    }
}

/// The value after a flag among the program's arguments.
pub fn flag(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

/// The value after a flag, as a number.
pub fn number(name: &str, default: usize) -> usize {
    match flag(name) {
        Some(text) => {
            text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, found {text}"))
        }
        None => default,
    }
}

/// The interpreter of the peers: `--python PYTHON`, or the first argument if it is no flag.
pub fn python() -> String {
    let first = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    flag("--python")
        .or(first)
        .expect("--python PYTHON: an interpreter with tests/bench/requirements.txt")
}
