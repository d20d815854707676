//! The child process of `plugin check`: how it is started, heard and ended, and what it does.
//!
//! Its standard input is a socket: the parent sends one line, the checks that are not run, and the child answers with
//! lines of JSON for every step. Its standard output and error are files, because a plugin may write there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use easytransfer::{Error, Result};
use easytransfer_conformance::{CheckReport, CheckStep, CheckWatch, Line, Verdict, check_watched};
use serde_json::{Value, json};

/// Name of the hidden command.
pub const NAME: &str = "check-in-child";

/// How often the parent looks at the child's memory and time.
const LOOK: Duration = Duration::from_millis(10);

/// What a child may use.
pub struct Limits {
    /// For one check.
    pub time: Duration,
    /// In bytes, beside what it has before the first check.
    pub memory: u64,
}

/// What came of a child.
pub enum Ending {
    /// All checks were made.
    Report(CheckReport),
    /// The plugin cannot be loaded, with the reason.
    Refused(String),
    /// It ended within a check or after the last.
    Died {
        /// The checks that were made.
        lines: Vec<Line>,
        /// The check that it was in, or the last.
        at: Line,
        /// What ended it.
        found: String,
    },
}

/// Runs a child over the plugin at `path`, without the checks of `ended`, of which it tells what is said there.
pub fn run(path: &Path, limits: &Limits, ended: &BTreeMap<String, String>) -> Result<Ending> {
    let failed = |doing: &'static str| {
        move |source: std::io::Error| Error::io(doing, Path::new("a child process"), source)
    };
    let output = unnamed_file().map_err(failed("write to"))?;
    let errors = unnamed_file().map_err(failed("write to"))?;
    let program = std::env::current_exe().map_err(failed("find the program of"))?;
    let (mut ours, theirs) = UnixStream::pair().map_err(failed("talk to"))?;
    let mut process = Command::new(program)
        .args(["plugin", NAME])
        .arg(path)
        .arg(limits.memory.to_string())
        .arg(limits.time.as_secs().to_string())
        .stdin(OwnedFd::from(theirs))
        .stdout(output)
        .stderr(errors.try_clone().map_err(failed("write to"))?)
        .spawn()
        .map_err(failed("start"))?;
    // A child that went away is told of by its status.
    let _ = ours.write_all(format!("{}\n", json!(ended)).as_bytes());
    let (sender, lines) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(ours).lines() {
            let value = line.ok().and_then(|line| serde_json::from_str::<Value>(&line).ok());
            if value.is_none_or(|value| sender.send(value).is_err()) {
                break;
            }
        }
    });
    let mut heard = Heard::default();
    let stopped = heard.listen(&mut process, &lines, limits);
    // It is either at its end or to be ended.
    if stopped.is_some() {
        let _ = process.kill();
    }
    let status = process.wait().map_err(failed("wait for"))?;
    drop(lines);
    let _ = reader.join();
    Ok(heard.ending(stopped, status, errors))
}

/// A file without a name, so that nothing is left behind.
fn unnamed_file() -> std::io::Result<File> {
    let name = format!("easytransfer-check-{}-{:?}", std::process::id(), Instant::now());
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let path = std::env::temp_dir().join(name);
    let file = File::options().create_new(true).read(true).append(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// What a child has told so far.
#[derive(Default)]
struct Heard {
    lines: Vec<Line>,
    /// The check that runs.
    current: Option<Line>,
    result: Option<Ending>,
}

impl Heard {
    /// Hears a child to its end. Some: why it must be ended.
    fn listen(
        &mut self,
        process: &mut Process,
        lines: &Receiver<Value>,
        limits: &Limits,
    ) -> Option<String> {
        let mut since = Instant::now();
        let mut before = None;
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(value) => {
                    since = Instant::now();
                    self.note(&value);
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if since.elapsed() > limits.time {
                return Some(format!(
                    "it took longer than {} seconds, and was ended (--timeout)",
                    limits.time.as_secs()
                ));
            }
            let Some(memory) = memory_of(process.id()) else { continue };
            if self.current.is_some() {
                let before = *before.get_or_insert(memory);
                if memory.saturating_sub(before) > limits.memory {
                    return Some(format!(
                        "it took more than {} MiB of memory, and was ended (--memory)",
                        limits.memory >> 20
                    ));
                }
            }
            if self.result.is_some() && process.try_wait().is_ok_and(|status| status.is_some()) {
                return None;
            }
        }
    }

    fn note(&mut self, value: &Value) {
        if let Some(line) = value.get("begins").and_then(Line::from_json) {
            self.current = Some(line);
        } else if let Some(line) = value.get("ends").and_then(Line::from_json) {
            self.current = None;
            self.lines.push(line);
        } else if let Some(text) = value["refused"].as_str() {
            self.result = Some(Ending::Refused(text.to_owned()));
        } else if let (Some(id), Some(version)) = (value["id"].as_str(), value["version"].as_str())
        {
            let lines = std::mem::take(&mut self.lines);
            let (id, version) = (id.to_owned(), version.to_owned());
            self.result = Some(Ending::Report(CheckReport { id, version, lines }));
        }
    }

    fn ending(self, stopped: Option<String>, status: ExitStatus, errors: File) -> Ending {
        let is_good = stopped.is_none() && status.success();
        let found = stopped.unwrap_or_else(|| {
            let said = last_line(errors);
            let how = ended_by(status, &said);
            if said.is_empty() {
                how
            } else {
                format!("{how}; its standard error ends with {said:?}")
            }
        });
        let whole = |check: &str| Line {
            component: easytransfer_conformance::LIBRARY.to_owned(),
            slot: "library".to_owned(),
            check: check.to_owned(),
            verdict: Verdict::Failed(found.clone()),
        };
        match self.result {
            Some(Ending::Report(mut report)) if !is_good => {
                report.lines.push(whole("lets the process end after the last check"));
                Ending::Report(report)
            }
            Some(result) => result,
            None => {
                let last = || self.lines.last().cloned();
                let at = self.current.clone().or_else(last);
                let at = at.unwrap_or_else(|| whole("lets the process begin"));
                Ending::Died { lines: self.lines, at, found }
            }
        }
    }
}

/// Bytes of memory that a process has in use.
fn memory_of(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let text = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = text.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}

fn last_line(mut errors: File) -> String {
    let mut text = Vec::new();
    let read = errors.seek(SeekFrom::Start(0)).and_then(|_| errors.read_to_end(&mut text));
    let text = String::from_utf8_lossy(if read.is_ok() { &text } else { b"" }).into_owned();
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("")
        .chars()
        .take(160)
        .collect()
}

fn ended_by(status: ExitStatus, said: &str) -> String {
    let Some(signal) = status.signal() else {
        let code = status.code().unwrap_or(-1);
        return format!("it ended the process with exit code {code}");
    };
    let what = match signal {
        _ if said.contains("memory allocation of") => "no more memory: --memory",
        libc::SIGSEGV | libc::SIGBUS => "it used memory that is not its own",
        libc::SIGABRT => "abort",
        libc::SIGFPE => "a division by zero",
        libc::SIGILL => "an instruction that does not exist",
        libc::SIGKILL => "killed",
        libc::SIGXCPU => "too much time",
        _ => "a signal",
    };
    format!("it crashed: the process was ended by signal {signal} ({what})")
}

/// Sends a line to the parent. One that went away has nothing more to hear.
fn tell(mut parent: &UnixStream, value: &Value) {
    if parent.write_all(format!("{value}\n").as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// The child's command.
#[derive(Args)]
pub struct Child {
    path: PathBuf,
    /// Bytes.
    memory: u64,
    /// Seconds of one check.
    time: u64,
}

impl Child {
    pub fn run(self) -> Result<()> {
        let failed = |source| Error::io("hear", Path::new("the parent process"), source);
        let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let socket = UnixStream::from(socket);
        let mut first = String::new();
        BufReader::new(socket.try_clone().map_err(failed)?)
            .read_line(&mut first)
            .map_err(failed)?;
        let ended: BTreeMap<String, String> = serde_json::from_str(&first).map_err(|error| {
            Error::user(format!("this command is for `easytransfer plugin check` alone: {error}"))
        })?;
        self.limit();
        let answers = socket.try_clone().map_err(failed)?;
        let observer = Box::new(move |step: &CheckStep| match step {
            CheckStep::Begins(line) => tell(&answers, &json!({ "begins": line.to_json() })),
            CheckStep::Ends(line) => tell(&answers, &json!({ "ends": line.to_json() })),
        });
        let mut watch = CheckWatch { observer: Some(observer), ended, alone: true };
        let last = match check_watched(&self.path, &mut watch) {
            Ok(report) => json!({ "id": report.id, "version": report.version }),
            Err(error) => json!({ "refused": error.to_string() }),
        };
        tell(&socket, &last);
        Ok(())
    }

    /// Bounds what the process may take, and ends it with its parent; the parent looks at it more closely.
    fn limit(&self) {
        let set = |resource, value: u64| {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            // SAFETY: the structure is a local. A bound that the system refuses is one less.
            unsafe { libc::setrlimit(resource, &limit) };
        };
        // Pages are counted where they are used; reservations of the engine and of threads are not.
        let reserved = 16 << 30;
        set(libc::RLIMIT_AS, self.memory.saturating_add(reserved));
        set(libc::RLIMIT_CPU, self.time.saturating_mul(100));
        set(libc::RLIMIT_CORE, 0);
        // SAFETY: plain calls of the system; the descriptors are the process's own.
        unsafe {
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // A plugin that reads standard input finds its end.
            let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
            libc::dup2(nothing, 0);
            libc::close(nothing);
        }
    }
}
