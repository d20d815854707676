//! How far a long job is: a bar on a terminal, plain lines now and then elsewhere, or nothing.

#[cfg(feature = "progress")]
use std::io::IsTerminal;
use std::io::Write;
use std::time::{Duration, Instant};

#[cfg(feature = "progress")]
use indicatif::{ProgressBar, ProgressStyle};

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgressMode {
    /// A bar if standard error is a terminal, plain lines otherwise and without the feature `progress`.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// Nothing.
    Silent,
}

enum Output {
    #[cfg(feature = "progress")]
    Bar(ProgressBar),
    Plain(Box<dyn Write + Send>),
    Silent,
}

/// The progress of one job, shown on standard error.
pub struct ProgressLine {
    name: String,
    total: u64,
    done: u64,
    rows: u64,
    tokens: u64,
    /// Steps done before this process started; they do not count for the rates.
    first: u64,
    note: String,
    every: Duration,
    started: Instant,
    /// Time that does not count for the rates.
    aside: Duration,
    last: Option<Instant>,
    output: Output,
}

impl ProgressLine {
    /// Starts showing the job `name` of `total` steps (0 when unknown); plain lines appear at most once in `every`.
    pub fn new(name: &str, total: u64, mode: ProgressMode, every: Duration) -> ProgressLine {
        let output = match mode {
            ProgressMode::Silent => Output::Silent,
            #[cfg(feature = "progress")]
            ProgressMode::Auto if std::io::stderr().is_terminal() => {
                let bar =
                    if total == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(total) };
                let template = if total == 0 {
                    "{prefix} {spinner} {pos} {wide_msg}"
                } else {
                    "{prefix} [{bar:30}] {pos}/{len} {wide_msg}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(name.to_string());
                Output::Bar(bar)
            }
            _ => Output::Plain(Box::new(std::io::stderr())),
        };
        ProgressLine::with_output(name, total, every, output)
    }

    fn with_output(name: &str, total: u64, every: Duration, output: Output) -> ProgressLine {
        ProgressLine {
            name: name.to_string(),
            total,
            done: 0,
            rows: 0,
            tokens: 0,
            first: 0,
            note: String::new(),
            every,
            started: Instant::now(),
            aside: Duration::ZERO,
            last: None,
            output,
        }
    }

    /// Says that `done` steps had been made by an earlier process.
    pub fn resume_at(&mut self, done: u64) {
        self.first = done;
        self.done = done;
    }

    /// Leaves time out of the rates: that of an evaluation or a checkpoint between steps.
    pub fn leave_out(&mut self, time: Duration) {
        self.aside += time;
    }

    /// Sets what is shown behind the numbers: `loss 0.3120 lr 4.1e-5`.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = note.into();
    }

    /// Adds one step with so many rows and tokens.
    pub fn step(&mut self, rows: u64, tokens: u64) {
        self.advance(1, rows, tokens);
    }

    /// Adds steps with so many rows and tokens.
    pub fn advance(&mut self, steps: u64, rows: u64, tokens: u64) {
        self.done += steps;
        self.rows += rows;
        self.tokens += tokens;
        let now = Instant::now();
        let counts = self.counts();
        match &mut self.output {
            Output::Silent => {}
            #[cfg(feature = "progress")]
            Output::Bar(bar) => {
                bar.set_position(self.done);
                // The message is costly to make; ten a second are enough to read.
                if self.last.is_none_or(|last| now - last >= Duration::from_millis(100)) {
                    self.last = Some(now);
                    let elapsed = (now - self.started).saturating_sub(self.aside);
                    bar.set_message(counts.describe(elapsed, &self.note));
                }
            }
            Output::Plain(_) => {
                let since = now - self.last.unwrap_or(self.started);
                if since >= self.every {
                    self.last = Some(now);
                    self.line((now - self.started).saturating_sub(self.aside));
                }
            }
        }
    }

    /// Prints a line of its own without damaging the bar; silent when progress is.
    pub fn print(&mut self, text: &str) {
        match &mut self.output {
            Output::Silent => {}
            #[cfg(feature = "progress")]
            Output::Bar(bar) => bar.println(text),
            Output::Plain(out) => {
                // ProgressLine is a courtesy: a closed standard error must not end the job.
                let _ = writeln!(out, "{text}");
            }
        }
    }

    /// Ends the display with a last line.
    pub fn finish(&mut self) {
        let elapsed = self.started.elapsed().saturating_sub(self.aside);
        let last = self.counts().describe(elapsed, &self.note);
        match &mut self.output {
            Output::Silent => {}
            #[cfg(feature = "progress")]
            Output::Bar(bar) => bar.finish_with_message(last),
            Output::Plain(_) => self.line(elapsed),
        }
        self.output = Output::Silent;
    }

    /// Ends the display without a trace: what was shown was a courtesy to those who wait.
    pub fn clear(self) {
        #[cfg(feature = "progress")]
        if let Output::Bar(bar) = self.output {
            bar.finish_and_clear();
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            done: self.done,
            here: self.done - self.first.min(self.done),
            total: self.total,
            rows: self.rows,
            tokens: self.tokens,
        }
    }

    fn line(&mut self, elapsed: Duration) {
        let counts = self.counts();
        let text = counts.describe(elapsed, &self.note);
        let position = match self.total {
            0 => self.done.to_string(),
            total => format!("{}/{total}", self.done),
        };
        if let Output::Plain(out) = &mut self.output {
            let _ = writeln!(out, "{} {position} {text}", self.name);
        }
    }
}

/// What has been done; `here` is the part of it that this process did.
struct Counts {
    done: u64,
    here: u64,
    total: u64,
    rows: u64,
    tokens: u64,
}

impl Counts {
    /// The rates, the remaining time and the note.
    fn describe(&self, elapsed: Duration, note: &str) -> String {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let mut parts = Vec::new();
        if self.rows > 0 {
            parts.push(format!("{} rows/s", short(self.rows as f64 / seconds)));
        }
        if self.tokens > 0 {
            parts.push(format!("{} tokens/s", short(self.tokens as f64 / seconds)));
        }
        if self.here > 0 && self.total > self.done {
            let left = seconds * (self.total - self.done) as f64 / self.here as f64;
            parts.push(format!("{} left", clock(left)));
        } else {
            parts.push(format!("in {}", clock(seconds)));
        }
        if !note.is_empty() {
            parts.push(note.to_string());
        }
        parts.join(", ")
    }
}

/// A rate with three digits: `7.25`, `413`, `12.3k`, `1.50M`.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        number if number >= 999_500.0 => (number / 1e6, "M"),
        number if number >= 999.5 => (number / 1e3, "k"),
        number => (number, ""),
    };
    let digits = if number >= 99.95 {
        0
    } else if number >= 9.995 {
        1
    } else {
        2
    };
    format!("{number:.digits$}{unit}")
}

/// Seconds as `0:07`, `12:34` or `3:07:09`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rates_and_remaining_time_are_right() {
        let counts = Counts { done: 30, here: 20, total: 130, rows: 640, tokens: 50_000 };
        let text = counts.describe(Duration::from_secs(10), "loss 0.5");
        assert_eq!(text, "64.0 rows/s, 5.00k tokens/s, 0:50 left, loss 0.5");
        let counts = Counts { done: 5, here: 5, total: 5, rows: 0, tokens: 0 };
        assert_eq!(counts.describe(Duration::from_secs(3725), ""), "in 1:02:05");
        assert_eq!(
            [7.254, 413.2, 12_340.0, 1.5e6, 999.9].map(short),
            ["7.25", "413", "12.3k", "1.50M", "1.00k"]
        );
    }

    #[test]
    fn plain_lines_are_rare_and_complete() {
        let captured = Captured::default();
        let lines = |every| {
            captured.0.lock().unwrap().clear();
            let output = Output::Plain(Box::new(captured.clone()));
            let mut progress = ProgressLine::with_output("train", 3, every, output);
            for _ in 0..3 {
                progress.step(2, 10);
            }
            progress.finish();
            progress.finish();
            String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
        };
        let rare = lines(Duration::from_secs(100_000));
        assert_eq!(rare.lines().count(), 1);
        assert!(rare.starts_with("train 3/3 "), "{rare}");
        assert_eq!(lines(Duration::ZERO).lines().count(), 4);
    }
}
