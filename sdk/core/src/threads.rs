//! The threads that compute: rayon's global pool, made when the engine starts.

use std::sync::Once;

/// Makes the pool unless the program has made one: as many threads as `RAYON_NUM_THREADS` says, else as the process may use
/// (its affinity and its control group's quota). Where that is every processor that the process may run on, each thread stays on
/// one of them: a system that wakes a thread on the processor of its waker may otherwise leave both there for thousands of
/// products while another processor is idle.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let processors = allowed();
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|index| format!("easytransfer-{index}"))
            .start_handler(move |index| {
                if rayon::current_num_threads() == processors.len() {
                    stay_on(processors[index]);
                }
            });
        // A program that has a pool of its own keeps it.
        let _ = pool.build_global();
    });
}

/// The processors that this process may run on; none where the system cannot be asked.
fn allowed() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a set is plain bits, for which zero is valid; the call fills one set of the size it is told.
        let (set, failed) = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let failed = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            (set, failed != 0)
        };
        let count = if failed { 0 } else { 8 * size_of::<libc::cpu_set_t>() };
        // SAFETY: the number is below the number of bits of a set.
        (0..count).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// Binds the calling thread to a processor. A refusal does no harm.
fn stay_on(processor: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: a set is plain bits, for which zero is valid, and the number came from a set; the call reads one set of the size it is
    // told and concerns the calling thread only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
    let _ = processor;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_has_as_many_threads_as_the_process_may_use() {
        start();
        start();
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            let expected = std::thread::available_parallelism().map_or(1, usize::from);
            assert_eq!(rayon::current_num_threads(), expected);
        }
        let before = allowed();
        std::thread::spawn(move || {
            if let Some(&last) = before.last() {
                stay_on(last);
                assert_eq!(allowed(), [last]);
            }
        })
        .join()
        .unwrap();
    }
}
