//! Threads that wait for work with their eyes open.
//!
//! Handing a task to a sleeping thread costs more than a short text's whole layer. In prediction one layer follows
//! the other within microseconds, so while a [`TeamScope`] lives, its thread shares its tasks with a team whose
//! members look for work for some microseconds before they sleep. The caller works too, and never waits for a member
//! that has not begun. The team serves one caller at a time; others do their tasks themselves. Which thread does a
//! task changes nothing in its result.
//!
//! A member that loses its processor in the middle of a task holds the caller up, as does one that runs where the
//! caller should. So nobody waits with open eyes for longer than [`PATIENCE`], and a caller that loses more than a
//! part of its time does its next jobs alone, ever more of them while that goes on: where there are more threads than
//! processors the team falls asleep. A loss now and then, which every machine has, is borne. The team has as many
//! members as the process may use cores, by affinity and control group, less one for the caller; on one core there
//! are none.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::machine::workers;

/// How long a member looks for work, and a caller for the end of its job, before it sleeps.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at the shared state between two looks at the clock.
const LOOKS: u32 = 64;

/// How long a caller's jobs are done alone after it was held up for the first time, and at most: twice as long every
/// time. It is the time that its jobs take, because to be held up costs time, and to work alone costs long jobs more
/// of it.
const ALONE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(250));
/// After so many jobs without being held up the next time is half as long.
const GOOD: u32 = 64;
/// One part in so many of its time may a caller lose. What it loses beyond is owed,
const BEARABLE: u64 = 4;
/// and so much of it means that it is held up. A single loss counts no more than that, however long, so it takes a
/// second one soon after.
const HELD_UP: Duration = Duration::from_millis(2);
/// One job of so many is compared with the processor time of its caller.
const SAMPLED: u64 = 8;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// True if this thread shares its tasks with the team.
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

/// While it lives, this thread shares its tasks with the team.
pub struct TeamScope {
    before: bool,
}

impl TeamScope {
    /// Begins it.
    #[expect(
        clippy::new_without_default,
        reason = "it changes this thread, which a default must not"
    )]
    pub fn new() -> Self {
        Self { before: ACTIVE.replace(true) }
    }
}

impl Drop for TeamScope {
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
    /// True while the caller sleeps until the members are outside; then `sleeper` is its thread.
    is_awaited: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
    /// Nanoseconds of jobs that are still to be done without members, and how many that will be the next time.
    alone: AtomicU64,
    alone_next: AtomicU64,
    /// Nanoseconds owed to callers, and jobs with members since one was held up.
    owed: AtomicU64,
    good: AtomicU32,
    members: OnceLock<Vec<Thread>>,
}

// SAFETY: the pointer of a job is followed only by members that the job's caller waits for.
unsafe impl Send for Job {}

static TEAM: Team = Team::new();

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Processor time that this thread has used, where the system tells.
fn processor_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the place may be written.
        let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        (done == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    #[cfg(not(unix))]
    None
}

const fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

impl Team {
    const fn new() -> Self {
        Self {
            caller: Mutex::new(()),
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            is_awaited: AtomicBool::new(false),
            sleeper: Mutex::new(None),
            alone: AtomicU64::new(0),
            alone_next: AtomicU64::new(nanoseconds(ALONE.0)),
            owed: AtomicU64::new(0),
            good: AtomicU32::new(0),
            members: OnceLock::new(),
        }
    }

    /// Starts one member less than the engine has threads; one that the system refuses is done without.
    fn members(&'static self) -> &'static [Thread] {
        self.members.get_or_init(|| {
            let wanted = workers::count().saturating_sub(1);
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
            // Entering before looking at the job: a caller that closes it either sees this member inside or is seen
            // to have closed.
            self.inside.fetch_add(1, Ordering::SeqCst);
            let job =
                if self.epoch.load(Ordering::SeqCst) == epoch { *lock(&self.job) } else { None };
            if let Some(job) = job {
                self.work(job);
            }
            // Either this sees that the caller waits, or the caller sees the count before it sleeps.
            self.inside.fetch_sub(1, Ordering::SeqCst);
            if self.is_awaited.load(Ordering::SeqCst)
                && let Some(sleeper) = &*lock(&self.sleeper)
            {
                sleeper.unpark();
            }
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

    /// Waits until no member is inside.
    fn await_members(&self) {
        let begin = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.inside.load(Ordering::SeqCst) == 0 {
                    return;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() > PATIENCE {
                break;
            }
        }
        *lock(&self.sleeper) = Some(std::thread::current());
        self.is_awaited.store(true, Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) > 0 {
            std::thread::park();
        }
        self.is_awaited.store(false, Ordering::SeqCst);
        *lock(&self.sleeper) = None;
    }

    /// Takes note of what the caller lost in a job that took it so long in all.
    fn judge(&self, lost: Duration, all: Duration) {
        let owed = self.owed.load(Ordering::Relaxed) + nanoseconds(lost.min(HELD_UP));
        let owed = owed.saturating_sub(nanoseconds(all.saturating_sub(lost)) / BEARABLE);
        let next = self.alone_next.load(Ordering::Relaxed);
        if owed > nanoseconds(HELD_UP) {
            self.alone.store(next, Ordering::Relaxed);
            self.alone_next.store((2 * next).min(nanoseconds(ALONE.1)), Ordering::Relaxed);
            self.good.store(0, Ordering::Relaxed);
            self.owed.store(0, Ordering::Relaxed);
            return;
        }
        self.owed.store(owed, Ordering::Relaxed);
        let good = self.good.load(Ordering::Relaxed) + 1;
        if good == GOOD {
            self.alone_next.store((next / 2).max(nanoseconds(ALONE.0)), Ordering::Relaxed);
        }
        self.good.store(good % GOOD, Ordering::Relaxed);
    }

    /// Does a job without members because callers were held up.
    fn rest(&self, job: impl FnOnce()) {
        let begin = Instant::now();
        job();
        let spent = nanoseconds(begin.elapsed()).max(1);
        let less = |left: u64| Some(left.saturating_sub(spent));
        // It always answers with something.
        let _ = self.alone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// See [`run`].
    fn run<F: Fn(usize) + Sync>(&'static self, count: usize, f: F) {
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: `data` is the `f` below.
            unsafe { (*data.cast::<F>())(index) }
        }
        let members = self.members();
        if count <= 1 || members.is_empty() {
            return (0..count).for_each(f);
        }
        let Ok(caller) = self.caller.try_lock() else { return (0..count).for_each(f) };
        if self.alone.load(Ordering::Relaxed) > 0 {
            return self.rest(|| (0..count).for_each(f));
        }
        let begin = Instant::now();
        let is_sampled = (self.epoch.load(Ordering::Relaxed) / 2).is_multiple_of(SAMPLED);
        let used_before = if is_sampled { processor_time() } else { None };
        let job = Job { call: call::<F>, data: std::ptr::from_ref(&f).cast(), count };
        *lock(&self.job) = Some(job);
        self.next.store(0, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            members.iter().take(count - 1).for_each(Thread::unpark);
        }
        {
            // Tasks of tasks stay where they are.
            let nested = ACTIVE.replace(false);
            self.work(job);
            ACTIVE.set(nested);
        }
        *lock(&self.job) = None;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let worked = begin.elapsed();
        self.await_members();
        let all = begin.elapsed();
        // Tasks are about as long as each other, so whoever waits longer than it has worked waits for somebody who
        // does not run.
        let mut lost = all.saturating_sub(2 * worked);
        // And a member may run where the caller should.
        if let Some(before) = used_before
            && let Some(after) = processor_time()
        {
            let preempted = all.saturating_sub(after.saturating_sub(before));
            lost = lost.max(preempted * SAMPLED as u32);
        }
        self.judge(lost, all);
        let panicked = self.panicked.swap(false, Ordering::SeqCst);
        drop(caller);
        if panicked {
            panic!("a task of a kernel panicked");
        }
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
    TEAM.run(count, f);
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

    #[test]
    fn a_caller_sleeps_until_a_slow_member_is_done() {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        if team.members().is_empty() {
            return;
        }
        let me = std::thread::current().id();
        // A member that begins late has held nobody up, so it may take more than one run until a loss is noted.
        let is_noted = (0..50).any(|_| {
            let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let deadline = Instant::now() + Duration::from_secs(5);
            team.run(2, |_| {
                if std::thread::current().id() == me {
                    // A member takes the other task.
                    while begun.load(Ordering::SeqCst) == 0 && Instant::now() < deadline {
                        std::thread::yield_now();
                    }
                } else {
                    begun.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(100 * PATIENCE);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
            assert_eq!(done.load(Ordering::SeqCst), 1);
            assert!(!team.is_awaited.load(Ordering::SeqCst));
            team.owed.load(Ordering::SeqCst) > 0
        });
        assert!(is_noted);
    }

    #[test]
    fn a_caller_that_was_held_up_works_alone_for_a_while() {
        let team: &'static Team = Box::leak(Box::new(Team::new()));
        let me = std::thread::current().id();
        if team.members().is_empty() {
            return;
        }
        for turn in 0..6 {
            // One loss is borne, the second one soon after is not.
            team.judge(Duration::from_millis(50), Duration::from_millis(51));
            let alone = if turn % 2 == 1 { nanoseconds(ALONE.0) << (turn / 2) } else { 0 };
            assert_eq!(team.alone.load(Ordering::SeqCst), alone);
            while team.alone.load(Ordering::SeqCst) > 0 {
                team.run(3, |_| assert_eq!(std::thread::current().id(), me));
            }
        }
        // Nor does a loss count that comes after enough good work.
        team.judge(Duration::from_millis(50), Duration::from_millis(51));
        team.judge(Duration::ZERO, BEARABLE as u32 * HELD_UP);
        team.judge(Duration::from_millis(50), Duration::from_millis(51));
        assert_eq!(team.alone.load(Ordering::SeqCst), 0);
        // After many jobs without a loss the next time alone is half as long.
        let next = team.alone_next.load(Ordering::SeqCst);
        (0..GOOD).for_each(|_| team.judge(Duration::ZERO, Duration::from_millis(1)));
        assert_eq!(team.alone_next.load(Ordering::SeqCst), next / 2);
    }

    #[test]
    fn more_callers_than_processors_come_through() {
        let callers = (0..16).map(|_| {
            std::thread::spawn(|| {
                let done = AtomicUsize::new(0);
                for _ in 0..200 {
                    run(5, |_| {
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert_eq!(done.load(Ordering::Relaxed), 1000);
            })
        });
        callers.collect::<Vec<_>>().into_iter().for_each(|caller| caller.join().unwrap());
    }
}
