//! Ctrl-C and its relatives: nothing of an unfinished output remains, and the exit code is 128 and the signal's
//! number.
//!
//! A thread of its own waits for the signals, so that a command may be wherever it is: loading, computing, waiting for
//! a pipe. It takes back what was begun and ends the process. A run of training that is at its steps is asked to stop
//! instead, which it does after the present step (and the evaluation that may belong to it) with a checkpoint; a
//! second signal ends it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use easytransfer::train::files::atomic::abandon;
use easytransfer::train::run::is_at_steps;

use crate::print;

static CANCEL: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// The signal that came, 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// A flag that the first signal sets.
pub fn flag() -> Arc<AtomicBool> {
    CANCEL.get_or_init(Arc::default).clone()
}

/// The exit code of a run that was cancelled.
pub fn exit_code() -> u8 {
    let signal = SIGNAL.load(Ordering::Relaxed);
    u8::try_from(128 + if signal == 0 { libc::SIGINT } else { signal }).unwrap_or(130)
}

/// Begins to watch for SIGINT, SIGTERM and SIGHUP, the last one unless it is ignored (`nohup`). To be called before
/// any other thread is started: all of them leave the signals to the one that waits here.
pub fn watch() {
    // SAFETY: the sets and the action are plain data that these functions fill in or read; a write that exceeds the
    // limit on the size of files then fails with an error instead of a signal.
    let signals = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut hangup: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut hangup);
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGINT);
        libc::sigaddset(&mut signals, libc::SIGTERM);
        if hangup.sa_sigaction != libc::SIG_IGN {
            libc::sigaddset(&mut signals, libc::SIGHUP);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        signals
    };
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: the set is initialised and the out is local.
            if unsafe { libc::sigwait(&signals, &mut signal) } == 0 {
                came(signal);
            }
        }
    });
    if waiting.is_err() {
        // Without the thread the signals end the process as they always do.
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &signals, std::ptr::null_mut()) };
    }
}

fn came(signal: i32) {
    let first = SIGNAL.swap(signal, Ordering::Relaxed) == 0;
    if let Some(cancel) = CANCEL.get() {
        cancel.store(true, Ordering::Relaxed);
        if first && is_at_steps() {
            print::message("stopping after this step; once more to stop at once");
            return;
        }
    }
    abandon();
    // SAFETY: ends the process without running what other threads may be in the middle of.
    unsafe { libc::_exit(i32::from(exit_code())) }
}
