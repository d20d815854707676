//! Adafactor's four passes over an arena on the card; the formulas are those of `kernels::optim::adafactor`.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::et_optim_step;

use super::launch::{Launch, Module::Adafactor};
use super::memory::{empty, floats, table};
use super::optim::{Addresses, TASK, Task};
use easytransfer_core::error::{Result, fail};
use easytransfer_kernels::optim::Segment;
use easytransfer_kernels::optim::adafactor::adafactor_state_len;

/// `EtFactored` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Factored {
    start: u64,
    state: u64,
    partial: u64,
    rows: u32,
    cols: u32,
    first_task: u32,
    tasks: u32,
    keep: f32,
    rate: f32,
}

/// `EtFactoring` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    eps: f32,
    mix: f32,
    clip: f32,
}

/// What the kernels are told: active parameters, their tasks, and the elements of all tasks' sums of columns.
struct Plan {
    params: Vec<Factored>,
    tasks: Vec<Task>,
    partial: usize,
}

impl Plan {
    /// `keep` and `rate` of a segment come from `rates`. All segments have state, active or not.
    fn new(segments: &[Segment], rates: impl Fn(&Segment) -> (f32, f32)) -> Self {
        let mut plan = Self { params: Vec::new(), tasks: Vec::new(), partial: 0 };
        let mut state = 0;
        for segment in segments {
            let own = state;
            state += adafactor_state_len(segment);
            if !segment.active || segment.len == 0 {
                continue;
            }
            let (param, first_task) = (plan.params.len() as u32, plan.tasks.len() as u32);
            // Whole rows of a matrix, any part of a vector.
            let each = match segment.cols {
                0 => TASK,
                cols => (TASK / cols).max(1) * cols,
            };
            for at in (0..segment.len).step_by(each) {
                let len = (segment.len - at).min(each) as u32;
                plan.tasks.push(Task { start: (segment.offset + at) as u64, len, param });
            }
            let tasks = plan.tasks.len() as u32 - first_task;
            let (keep, rate) = rates(segment);
            plan.params.push(Factored {
                start: segment.offset as u64,
                state: own as u64,
                partial: plan.partial as u64,
                rows: if segment.cols == 0 { segment.len } else { segment.rows } as u32,
                cols: segment.cols as u32,
                first_task,
                tasks,
                keep,
                rate,
            });
            plan.partial += tasks as usize * segment.cols;
        }
        plan
    }
}

/// One step with the gradients times `grad_scale`, which also writes the copies of the values. Errors:
/// `INVALID_ARGUMENT` for a clipping threshold out of range.
pub(super) fn step(
    step: &et_optim_step,
    grad_scale: f64,
    segments: &[Segment],
    [values, grads, state]: [&Raw; 3],
    written: Addresses,
) -> Result<()> {
    let clip = step.momentum;
    if !(clip > 0.0 && clip.is_finite()) {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "optim_step: the clipping threshold of adafactor must be positive, found {clip}"
        );
    }
    let plan = Plan::new(segments, |segment| {
        let lr = step.lr * segment.lr_scale;
        ((1.0 - lr * segment.weight_decay) as f32, lr as f32)
    });
    if plan.tasks.is_empty() {
        return Ok(());
    }
    let rates = Rates {
        scale: grad_scale as f32,
        eps: step.epsilon as f32,
        mix: (step.step as f64).powf(step.beta2) as f32,
        clip: clip as f32,
    };
    let (tasks, params) = (table(&plan.tasks)?, table(&plan.params)?);
    let (partial, means) = (floats(plan.partial.max(1))?, floats(plan.params.len())?);
    let squares = empty(DType::F64, plan.tasks.len())?;
    let over_tasks = |name| {
        let launch = Launch::new(Adafactor, name).grid(plan.tasks.len(), 1);
        launch.tensor(&tasks).tensor(&params).value(rates).tensor(grads).tensor(state)
    };
    // SAFETY: the tasks lie within the arenas, states within `state`; every task of a matrix has a row of sums.
    unsafe { over_tasks("et_adafactor_moments").tensor(&partial).run() }?;
    let factors = Launch::new(Adafactor, "et_adafactor_factors").grid(plan.params.len(), 1);
    let factors = factors.tensor(&params).value(rates).tensor(&partial).tensor(state);
    // SAFETY: as above; there is a mean for every parameter.
    unsafe { factors.tensor(&means).run() }?;
    let launch = over_tasks("et_adafactor_squares").tensor(&means).tensor(&squares);
    // SAFETY: as above; there is a sum for every task.
    unsafe { launch.run() }?;
    let launch = over_tasks("et_adafactor_apply").tensor(&means).tensor(&squares).tensor(values);
    // SAFETY: as above; copies are as long as the arena.
    unsafe { launch.value(written).run() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_whole_rows_and_states_follow_each_other() {
        let segment = |offset, len, rows, cols, active| Segment {
            offset,
            len,
            rows,
            cols,
            lr_scale: 1.0,
            weight_decay: 0.0,
            active,
        };
        let wide = TASK / 2 + 1;
        let segments = [
            segment(0, 3 * wide, 3, wide, true),
            segment(100_000, 12, 3, 4, false),
            segment(200_000, TASK + 1, 0, 0, true),
        ];
        let plan = Plan::new(&segments, |_| (0.9, 0.1));
        let found: Vec<_> = plan.tasks.iter().map(|t| (t.start, t.len as usize, t.param)).collect();
        let rows = (0..3).map(|row| ((row * wide) as u64, wide, 0));
        let rest = [(200_000, TASK, 1), (200_000 + TASK as u64, 1, 1)];
        assert_eq!(found, rows.chain(rest).collect::<Vec<_>>());
        assert_eq!(plan.partial, 3 * wide);
        let [matrix, vector] = plan.params[..] else { panic!("two are active") };
        assert_eq!(
            (matrix.rows, matrix.cols, matrix.first_task, matrix.tasks),
            (3, wide as u32, 0, 3)
        );
        // Behind the state of the matrix and that of the one that is left alone.
        assert_eq!(vector.state as usize, 3 + wide + 3 + 4);
        assert_eq!((vector.rows as usize, vector.cols, vector.tasks), (TASK + 1, 0, 2));
        assert_eq!((size_of::<Factored>(), size_of::<Rates>()), (48, 16));
    }
}
