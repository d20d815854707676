//! Work done ahead by threads, handed out in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

struct State<T> {
    /// The next item that a worker takes.
    next_to_start: usize,
    /// The next item that the caller gets.
    next_to_return: usize,
    ready: BTreeMap<usize, Result<T>>,
    stop: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Told when a result is ready.
    ready: Condvar,
    /// Told when a result was taken, or everybody shall stop.
    room: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Job<T> = Arc<dyn Fn(usize) -> Result<T> + Send + Sync>;

/// Iterates over `job(0)`, `job(1)`, … `job(count - 1)`, computed by worker threads at most `capacity` items ahead. A
/// failed item is returned as an error in its place, and so is a panic; the items after it follow. Dropping the
/// iterator stops and joins the threads after the items they are working on.
pub struct Prefetch<T: Send + 'static> {
    count: usize,
    capacity: usize,
    job: Job<T>,
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads; with 0 the caller's thread computes each item when it is asked for. A thread that the
    /// operating system refuses is done without.
    pub fn new(
        count: usize,
        workers: usize,
        capacity: usize,
        job: impl Fn(usize) -> Result<T> + Send + Sync + 'static,
    ) -> Prefetch<T> {
        let state =
            State { next_to_start: 0, next_to_return: 0, ready: BTreeMap::new(), stop: false };
        let mut prefetch = Prefetch {
            count,
            capacity: capacity.max(1),
            job: Arc::new(job),
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                ready: Condvar::new(),
                room: Condvar::new(),
            }),
            workers: Vec::new(),
        };
        for index in 0..workers.min(count) {
            let (shared, job) = (prefetch.shared.clone(), prefetch.job.clone());
            let capacity = prefetch.capacity;
            let thread = std::thread::Builder::new().name(format!("prefetch-{index}"));
            match thread.spawn(move || work(&shared, &*job, count, capacity)) {
                Ok(handle) => prefetch.workers.push(handle),
                Err(_) => break,
            }
        }
        prefetch
    }
}

/// Runs the work on item number `item`; a panic becomes an error.
pub(crate) fn caught<T>(item: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = easytransfer_text::panic_text(&*panic).to_owned();
        Err(Error::Worker { item, message })
    })
}

fn work<T>(
    shared: &Shared<T>,
    job: &(dyn Fn(usize) -> Result<T> + Send + Sync),
    count: usize,
    capacity: usize,
) {
    loop {
        let item = {
            let mut state = shared.lock();
            loop {
                if state.stop || state.next_to_start >= count {
                    return;
                }
                if state.next_to_start < state.next_to_return.saturating_add(capacity) {
                    break;
                }
                state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.next_to_start += 1;
            state.next_to_start - 1
        };
        let result = caught(item, || job(item));
        shared.lock().ready.insert(item, result);
        shared.ready.notify_one();
    }
}

impl<T: Send + 'static> Iterator for Prefetch<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let mut state = self.shared.lock();
        let item = state.next_to_return;
        if item >= self.count {
            return None;
        }
        if self.workers.is_empty() {
            state.next_to_return += 1;
            drop(state);
            return Some(caught(item, || (self.job)(item)));
        }
        loop {
            if let Some(result) = state.ready.remove(&item) {
                state.next_to_return += 1;
                drop(state);
                self.shared.room.notify_all();
                return Some(result);
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.count - self.shared.lock().next_to_return;
        (left, Some(left))
    }
}

impl<T: Send + 'static> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        for worker in self.workers.drain(..) {
            // A worker cannot panic: what it runs is caught.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_workers_do() {
        for workers in [0, 1, 4] {
            let items = Prefetch::new(200, workers, 3, |item| {
                if item % 7 == 0 {
                    std::thread::yield_now();
                }
                Ok(item * 2)
            });
            let items: Vec<usize> = items.map(Result::unwrap).collect();
            assert_eq!(items, (0..200).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn errors_and_panics_stay_in_their_place() {
        for workers in [0, 2] {
            let items = Prefetch::new(4, workers, 2, |item| match item {
                1 => Err(Error::user("bad")),
                2 => panic!("worse"),
                item => Ok(item),
            });
            let texts: Vec<String> =
                items.map(|item| item.map_or_else(|e| e.to_string(), |i| i.to_string())).collect();
            assert_eq!(texts, ["0", "bad", "a worker thread failed at item 2: worse", "3"]);
        }
    }

    #[test]
    fn no_more_than_the_capacity_is_ahead_and_drop_joins() {
        let started = Arc::new(AtomicUsize::new(0));
        let alive = Arc::new(());
        let (counter, guard) = (started.clone(), alive.clone());
        let mut items = Prefetch::new(1000, 2, 4, move |item| {
            let _guard = &guard;
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(item)
        });
        for expected in 0..10 {
            assert_eq!(items.next().unwrap().unwrap(), expected);
        }
        drop(items);
        assert!(started.load(Ordering::SeqCst) <= 14);
        assert_eq!(Arc::strong_count(&alive), 1, "a thread still holds the job");
    }
}
