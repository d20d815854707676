//! Working memory of the kernels' tasks: one buffer per thread and element type, kept from call to call, because
//! fresh pages cost more than the arithmetic of a small task.

use std::any::Any;
use std::cell::RefCell;

use crate::Float;

/// Elements above which a buffer is given back instead of kept.
const KEPT_LEN: usize = 1 << 24;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of unspecified content. Nested calls get buffers of their own.
pub(crate) fn with_scratch<F: Float, R>(len: usize, f: impl FnOnce(&mut [F]) -> R) -> R {
    // The buffer leaves the store while it is used, so a task that this thread steals meanwhile cannot meet it.
    let mut buffer = BUFFERS.with_borrow_mut(|buffers| {
        let at = buffers.iter().position(|buffer| buffer.is::<Vec<F>>());
        at.map_or_else(|| Box::new(Vec::<F>::new()) as Box<dyn Any>, |at| buffers.swap_remove(at))
    });
    let Some(data) = buffer.downcast_mut::<Vec<F>>() else {
        unreachable!("the buffer was chosen by its type")
    };
    if data.len() < len {
        data.resize(len, F::ZERO);
    }
    let answer = f(&mut data[..len]);
    if data.len() <= KEPT_LEN {
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
    answer
}

/// Cuts `len` elements off the front of `rest`.
///
/// # Panics
/// If `rest` is shorter.
pub(crate) fn take<'a, F>(rest: &mut &'a mut [F], len: usize) -> &'a mut [F] {
    let (head, tail) = std::mem::take(rest).split_at_mut(len);
    *rest = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_nested_and_typed() {
        let outer = with_scratch::<f32, _>(10, |a| {
            a.fill(1.0);
            let inner = with_scratch::<f32, _>(4, |b| {
                b.fill(2.0);
                b.as_ptr() as usize
            });
            let other = with_scratch::<f64, _>(3, |b| b.len());
            assert_eq!((a[0], a.len(), other), (1.0, 10, 3));
            assert_ne!(inner, a.as_ptr() as usize);
            a.as_ptr() as usize
        });
        let mut seen = vec![];
        with_scratch::<f32, _>(2, |a| {
            seen.push(a.as_ptr() as usize);
            with_scratch::<f32, _>(2, |b| seen.push(b.as_ptr() as usize));
        });
        assert!(seen.contains(&outer));
        let mut buffer = [1, 2, 3];
        let mut rest = &mut buffer[..];
        assert_eq!((take(&mut rest, 2).len(), rest.len()), (2, 1));
    }
}
