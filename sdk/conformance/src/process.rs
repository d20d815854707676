//! What a plugin must leave alone in the process of its host, and whether it did.
//!
//! The host's program owns its output, folder, environment, locale, signals and threads; a plugin's text goes through
//! the host's log.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// The state of the process at one time.
pub(crate) struct Process {
    folder: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    locale: String,
    signals: Vec<usize>,
    mask: String,
    rounding: [u32; 3],
    threads: BTreeSet<OsString>,
    files: usize,
    written: [u64; 2],
}

/// The promise about open files, which the loader itself does not keep.
pub(crate) const CLOSES_FILES: &str = "closes the files that it opens";

/// A promise and how it was broken.
pub(crate) type Change = (&'static str, String);

impl Process {
    /// The state now.
    pub fn now() -> Self {
        let mut environment: Vec<_> = std::env::vars_os().collect();
        environment.sort();
        Self {
            folder: std::env::current_dir().ok(),
            environment,
            locale: locale(),
            signals: signals(),
            mask: file_mask(),
            rounding: rounding(),
            threads: threads(),
            files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            written: written(),
        }
    }

    /// What has changed since the last look, which this one replaces.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut now = Self::now();
        let mut changes = Vec::new();
        let before = &*self;
        if now.folder != before.folder {
            let found = format!("it is {:?} now, and was {:?}", now.folder, before.folder);
            changes.push(("leaves the working directory as it is", found));
            if let Some(folder) = &before.folder {
                // Where the rest of the checks expects to be.
                let _ = std::env::set_current_dir(folder);
                now.folder = std::env::current_dir().ok();
            }
        }
        if now.environment != before.environment {
            let differs = now.environment.iter().find(|entry| !before.environment.contains(entry));
            let gone = before.environment.iter().find(|entry| !now.environment.contains(entry));
            let name = differs.or(gone).map(|(name, _)| name.to_string_lossy().into_owned());
            let found = format!("{} is another now", name.unwrap_or_default());
            changes.push(("leaves the environment as it is", found));
        }
        if now.locale != before.locale {
            let found = format!("setlocale: it is {} now, and was {}", now.locale, before.locale);
            changes.push(("leaves the locale as it is", found));
        }
        if now.signals != before.signals {
            let all = now.signals.iter().zip(&before.signals).enumerate();
            let numbers: Vec<String> =
                all.filter(|(_, (a, b))| a != b).map(|(at, _)| (at + 1).to_string()).collect();
            let found = format!("the handler of signal {} is another now", numbers.join(", "));
            changes.push(("leaves signal handlers as they are", found));
        }
        if now.mask != before.mask {
            let found = format!("umask: it is {} now, and was {}", now.mask, before.mask);
            changes.push(("leaves the mask of new files as it is", found));
        }
        if now.rounding != before.rounding {
            let found = "small numbers or divisions come out otherwise".to_owned();
            changes.push(("leaves the rounding of numbers as it is", found));
        }
        if now.threads.len() > before.threads.len() {
            // A thread that was joined may need a moment to go.
            std::thread::sleep(Duration::from_millis(20));
            now.threads = threads();
            let more = now.threads.difference(&before.threads).count();
            if more > 0 {
                let found = format!("{more} threads of its own are still running");
                changes.push(("ends its own threads before a call returns", found));
            }
        }
        if now.files > before.files {
            let found = format!("{} files are still open", now.files - before.files);
            changes.push((CLOSES_FILES, found));
        }
        changes.extend(outputs(before.written, now.written));
        now.written = written();
        *self = now;
        changes
    }
}

/// What was written to the two outputs, and whether the host's log wrote it.
fn outputs(before: [u64; 2], now: [u64; 2]) -> Vec<Change> {
    let mut changes = Vec::new();
    let text = |at: usize| read_from(at + 1, before[at], now[at]);
    if now[0] > before[0] {
        let found = format!("wrote {:?}", excerpt(&text(0)));
        changes.push(("writes nothing to standard output, which is the host's", found));
    }
    if now[1] > before[1] {
        let text = text(1);
        let is_log = |line: &str| {
            ["error ", "warning ", "info ", "debug "].iter().any(|level| line.starts_with(level))
        };
        // What is told of NULL is harmless.
        let is_of_handles =
            |line: &&str| line.starts_with("error engine: ") && !line.contains("found NULL");
        if let Some(line) = text.lines().find(is_of_handles) {
            let found = line.trim_start_matches("error engine: ").to_owned();
            changes.push(("uses handles as they may be used", found));
        }
        let own: Vec<&str> = text.lines().filter(|line| !is_log(line)).collect();
        if !own.is_empty() {
            let found = format!("wrote {:?}", excerpt(&own.join("\n")));
            changes.push(("writes nothing to standard error but through the host's log", found));
        }
    }
    changes
}

fn excerpt(text: &str) -> String {
    text.trim_end().chars().take(80).collect()
}

/// Handlers of the signals 1 to 31; 0 and 1 are the default and none.
fn signals() -> Vec<usize> {
    let handler = |signal: i32| {
        // SAFETY: all bytes 0 are a valid `sigaction`.
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks only; the out is a local.
        match unsafe { libc::sigaction(signal, std::ptr::null(), &mut old) } {
            0 => old.sa_sigaction,
            _ => 0,
        }
    };
    (1..32).map(handler).collect()
}

fn locale() -> String {
    // SAFETY: NULL asks only, and the text is read before anybody can change it: the process is alone.
    let name = unsafe { libc::setlocale(libc::LC_ALL, std::ptr::null()) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: a NUL-terminated text of the C library.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Files that C's buffers of standard output and error go to, with their lengths; 0 where they are no files.
fn written() -> [u64; 2] {
    // SAFETY: NULL stands for all open streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    [1, 2].map(|output| {
        let data = fs::metadata(format!("/proc/self/fd/{output}")).ok();
        data.filter(fs::Metadata::is_file).map_or(0, |data| data.len())
    })
}

fn read_from(output: usize, begin: u64, end: u64) -> String {
    let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or(0).min(4096)];
    let mut read = || -> std::io::Result<usize> {
        let mut file = File::open(format!("/proc/self/fd/{output}"))?;
        file.seek(SeekFrom::Start(begin))?;
        file.read(&mut bytes)
    };
    let read = read().unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

fn threads() -> BTreeSet<OsString> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| task.file_name()).collect()
}

fn file_mask() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap_or("").trim().to_owned()
}

/// Two quotients that the direction of rounding decides, and one below the normal numbers.
fn rounding() -> [u32; 3] {
    let third = black_box(1.0f32) / black_box(3.0);
    let minus = black_box(-1.0f32) / black_box(3.0);
    [third, minus, black_box(f32::MIN_POSITIVE) / black_box(4.0)].map(f32::to_bits)
}

/// Bytes that the C library's allocator has handed out.
pub(crate) fn memory_in_use() -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: reads the allocator's figures.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks + info.hblkhd
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0
}
