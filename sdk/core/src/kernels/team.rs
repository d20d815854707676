//! Threads that wait for work with their eyes open.
//!
//! Handing a task to a sleeping thread costs more than a short text's whole layer. In prediction one layer follows the other within
//! microseconds, so while a [`Scope`] lives, its thread shares its tasks with a team whose members look for work for some
//! microseconds before they sleep. The caller works too, and never waits for a member that has not begun. The team serves one
//! caller at a time; others do their tasks themselves. Which thread does a task changes nothing in its result.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a member looks for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at the shared state between two looks at the clock.
const LOOKS: u32 = 64;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// True if this thread shares its tasks with the team.
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

/// While it lives, this thread shares its tasks with the team.
pub(crate) struct Scope {
    before: bool,
}

impl Scope {
    pub(crate) fn new() -> Self {
        Self { before: ACTIVE.replace(true) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        ACTIVE.set(self.before);
    }
}

/// Tasks `0..count` and the function that does one.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
    count: usize,
}

struct Team {
    /// Held by the caller whose job this is.
    caller: Mutex<()>,
    /// Number of the job; odd while there is one.
    epoch: AtomicU64,
    job: Mutex<Option<Job>>,
    /// The next task.
    next: AtomicUsize,
    /// Members that hold the present job.
    inside: AtomicUsize,
    panicked: AtomicBool,
    /// Members that sleep or are about to.
    asleep: AtomicUsize,
    members: OnceLock<Vec<Thread>>,
}

// SAFETY: the pointer of a job is followed only by members that the job's caller waits for.
unsafe impl Send for Job {}

static TEAM: Team = Team {
    caller: Mutex::new(()),
    epoch: AtomicU64::new(0),
    job: Mutex::new(None),
    next: AtomicUsize::new(0),
    inside: AtomicUsize::new(0),
    panicked: AtomicBool::new(false),
    asleep: AtomicUsize::new(0),
    members: OnceLock::new(),
};

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Team {
    /// Starts one member less than the engine has threads; one that the system refuses is done without.
    fn members(&'static self) -> &'static [Thread] {
        self.members.get_or_init(|| {
            let wanted = rayon::current_num_threads().saturating_sub(1);
            let start = |index| {
                let thread = std::thread::Builder::new().name(format!("team-{index}"));
                thread.spawn(move || self.serve()).ok().map(|handle| handle.thread().clone())
            };
            (0..wanted).filter_map(start).collect()
        })
    }

    fn serve(&'static self) {
        let mut seen = 0;
        loop {
            let epoch = self.await_job(seen);
            seen = epoch;
            // Entering before looking at the job: a caller that closes it either sees this member inside or is seen to have closed.
            self.inside.fetch_add(1, Ordering::SeqCst);
            let job =
                if self.epoch.load(Ordering::SeqCst) == epoch { *lock(&self.job) } else { None };
            if let Some(job) = job {
                self.work(job);
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits until there is a job with another number than `seen`.
    fn await_job(&self, seen: u64) -> u64 {
        let is_new = |epoch: u64| epoch != seen && epoch % 2 == 1;
        let begin = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let epoch = self.epoch.load(Ordering::SeqCst);
                if is_new(epoch) {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let epoch = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if is_new(epoch) {
                break epoch;
            }
            std::thread::park();
        };
        self.asleep.fetch_sub(1, Ordering::SeqCst);
        epoch
    }

    /// Does tasks until none is left.
    fn work(&self, job: Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.count {
                return;
            }
            // SAFETY: the caller keeps `data` alive until all members have left the job.
            let call = std::panic::AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) });
            if std::panic::catch_unwind(call).is_err() {
                self.panicked.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// Calls `f(0)` to `f(count - 1)`, shared with the team, and returns when all are done.
///
/// # Panics
/// If a call did.
pub(crate) fn run<F: Fn(usize) + Sync>(count: usize, f: F) {
    unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
        // SAFETY: `data` is the `f` below.
        unsafe { (*data.cast::<F>())(index) }
    }
    let members = TEAM.members();
    let caller = match TEAM.caller.try_lock() {
        Ok(caller) if !members.is_empty() => caller,
        _ => return (0..count).for_each(f),
    };
    let job = Job { call: call::<F>, data: std::ptr::from_ref(&f).cast(), count };
    *lock(&TEAM.job) = Some(job);
    TEAM.next.store(0, Ordering::SeqCst);
    TEAM.epoch.fetch_add(1, Ordering::SeqCst);
    if TEAM.asleep.load(Ordering::SeqCst) > 0 {
        members.iter().take(count - 1).for_each(Thread::unpark);
    }
    {
        // Tasks of tasks stay where they are.
        let nested = ACTIVE.replace(false);
        TEAM.work(job);
        ACTIVE.set(nested);
    }
    *lock(&TEAM.job) = None;
    TEAM.epoch.fetch_add(1, Ordering::SeqCst);
    let mut looks = 0u32;
    while TEAM.inside.load(Ordering::SeqCst) > 0 {
        looks += 1;
        // A member that was interrupted in its task needs a processor more than this loop does.
        if looks > 20_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
    let panicked = TEAM.panicked.swap(false, Ordering::SeqCst);
    drop(caller);
    if panicked {
        panic!("a task of a kernel panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_over_many_jobs_and_callers() {
        let callers = (0..3).map(|caller| {
            std::thread::spawn(move || {
                for round in 0..300 {
                    let count = 1 + (round + caller) % 7;
                    let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    run(count, |index| {
                        done[index].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
                    if round % 100 == 0 {
                        // Long enough for the members to fall asleep.
                        std::thread::sleep(3 * PATIENCE);
                    }
                }
            })
        });
        callers.collect::<Vec<_>>().into_iter().for_each(|caller| caller.join().unwrap());
    }

    #[test]
    fn panics_reach_the_caller_and_the_team_lives() {
        let caught = std::panic::catch_unwind(|| run(4, |index| assert_ne!(index, 2)));
        assert!(caught.is_err());
        let done = AtomicUsize::new(0);
        run(4, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 4);
    }
}
