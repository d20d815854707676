//! How work is cut into tasks, and where they run: on the team of a prediction where one is active, else in the
//! engine's pool.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

use crate::machine::{team, workers};

/// Elements that one task of an elementwise kernel handles; a constant, so that results do not
/// depend on threads.
pub const BLOCK_LEN: usize = 16 * 1024;

/// Rows of `cols` elements that one task handles: about [`BLOCK_LEN`] elements, at least one row.
pub fn rows_per_block(cols: usize) -> usize {
    (BLOCK_LEN / cols.max(1)).max(1)
}

/// Calls `f` for every item, in parallel if there is more than one. Items must be independent of
/// each other.
pub fn for_each_task<T: Send>(tasks: Vec<T>, f: impl Fn(T) + Send + Sync) {
    if tasks.len() <= 1 || workers::count() == 1 {
        tasks.into_iter().for_each(f);
    } else if team::is_active() {
        let tasks: Vec<_> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
        team::run(tasks.len(), |index| {
            // Nobody else takes this task, so its lock is free and whole.
            if let Some(task) = tasks[index].try_lock().ok().and_then(|mut task| task.take()) {
                f(task);
            }
        });
    } else {
        workers::enter(|| tasks.into_par_iter().for_each(f));
    }
}

/// Calls `f` for every item, in parallel if there is more than one, and returns the answers in the
/// order of the items.
pub fn map_tasks<T: Send, R: Send>(tasks: Vec<T>, f: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if tasks.len() <= 1 || workers::count() == 1 {
        tasks.into_iter().map(f).collect()
    } else if team::is_active() {
        let mut answers: Vec<_> = tasks.iter().map(|_| None).collect();
        for_each_task(tasks.into_iter().zip(&mut answers).collect(), |(task, answer)| {
            *answer = Some(f(task));
        });
        // `for_each_task` did every task.
        answers.into_iter().flatten().collect()
    } else {
        workers::enter(|| tasks.into_par_iter().map(f).collect())
    }
}

/// Ranges of `block` elements (the last may be shorter) that cover `0..len`.
pub fn blocks(len: usize, block: usize) -> Vec<Range<usize>> {
    let block = block.max(1);
    (0..len.div_ceil(block)).map(|i| i * block..((i + 1) * block).min(len)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_range_once() {
        assert!(blocks(0, 4).is_empty());
        assert_eq!(blocks(9, 4), vec![0..4, 4..8, 8..9]);
    }
}
