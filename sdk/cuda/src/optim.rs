//! Optimizer steps, norms and scaling over arenas on the card, each one pass, which also writes the copies that
//! products read.

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::{
    ET_OPTIM_ADAFACTOR, ET_OPTIM_ADAM, ET_OPTIM_ADAMW, ET_OPTIM_LAMB, ET_OPTIM_SGD, et_optim_step,
};

use super::adafactor;
use super::launch::{Launch, Module::Optim};
use super::memory::{address, download, empty, table};
use easytransfer_core::device::{Ranges, Step};
use easytransfer_core::error::{Result, fail};
use easytransfer_core::storage::Value;
use easytransfer_kernels::optim::Segment;

/// Elements of one task, done by one block.
pub(super) const TASK: usize = 16 * 1024;

/// `EtTask` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub start: u64,
    pub len: u32,
    pub param: u32,
}

/// `EtCopies` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Addresses {
    bf16: u64,
    f16: u64,
}

impl Addresses {
    /// Those of copies of an arena.
    fn of(copies: &[Raw]) -> Result<Self> {
        let mut addresses = Self::default();
        for copy in copies {
            match copy.dtype() {
                DType::BF16 => addresses.bf16 = address(copy)?,
                _ => addresses.f16 = address(copy)?,
            }
        }
        Ok(addresses)
    }
}

/// `EtRates` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Rates {
    keep: f32,
    l2: f32,
    step_size: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    root2: f32,
    eps: f32,
    grad_scale: f32,
    decay: f32,
    rate: f32,
}

/// Tasks of the parts (start, len) that are given, and where those of each part begin and end.
pub(super) fn tasks(parts: impl Iterator<Item = (usize, usize)>) -> (Vec<Task>, Vec<u32>) {
    let (mut tasks, mut first) = (Vec::new(), vec![0u32]);
    for (param, (start, len)) in parts.enumerate() {
        for at in (0..len).step_by(TASK) {
            let len = (len - at).min(TASK) as u32;
            tasks.push(Task { start: (start + at) as u64, len, param: param as u32 });
        }
        first.push(tasks.len() as u32);
    }
    (tasks, first)
}

/// Sum of the squares of the parts (start, len) of an f32 arena, in their order. Waits for the card: the caller wants
/// the number.
pub(crate) fn square_sum(grads: &Raw, parts: Ranges<'_>) -> Result<f64> {
    let (tasks, _) = tasks(parts.iter().copied());
    if tasks.is_empty() {
        return Ok(0.0);
    }
    let sum = squares(grads, &*table(&tasks)?, tasks.len())?;
    Ok(download::<f64>(&sum)?[0])
}

/// The sum of the squares of `len` tasks of an f32 arena, [1] F64 on the card, in the order of the tasks.
pub(super) fn squares(grads: &Raw, tasks: &Raw, len: usize) -> Result<Value> {
    let partial = empty(DType::F64, len)?;
    let sum = empty(DType::F64, 1)?;
    let launch = Launch::new(Optim, "et_square_partial").grid(len, 1);
    // SAFETY: the tasks lie within the arena; partial has one number per task.
    unsafe { launch.tensor(tasks).tensor(grads).tensor(&partial).run() }?;
    let launch = Launch::new(Optim, "et_sum_finish").u64(len);
    // SAFETY: the grid is one block; the sum is one number.
    unsafe { launch.tensor(&partial).tensor(&sum).run() }?;
    Ok(sum)
}

/// Multiplies the parts (start, len) of an f32 arena.
pub(crate) fn scale(grads: &Raw, factor: f64, parts: Ranges<'_>) -> Result<()> {
    let (tasks, _) = tasks(parts.iter().copied());
    let list = table(&tasks)?;
    let launch = Launch::new(Optim, "et_scale_tasks").grid(tasks.len(), 1);
    // SAFETY: the tasks lie within the arena.
    unsafe { launch.tensor(&list).f32(factor as f32).tensor(grads).run() }
}

/// True if there is a kernel for the optimizer; others compute on the host between two copies.
pub(crate) fn has(kind: i32) -> bool {
    matches!(
        kind,
        ET_OPTIM_ADAM | ET_OPTIM_ADAMW | ET_OPTIM_LAMB | ET_OPTIM_SGD | ET_OPTIM_ADAFACTOR
    )
}

/// One step; the formulas are those of `easytransfer_kernels::optim`. Errors: `INVALID_ARGUMENT` for rates out of
/// range.
pub(crate) fn step(step: &Step<'_>) -> Result<()> {
    let Step { options: step, grad_scale, segments, values, grads, states, copies } = *step;
    let adam = !matches!(step.kind, ET_OPTIM_SGD | ET_OPTIM_ADAFACTOR);
    for (name, beta) in [("beta1", step.beta1), ("beta2", step.beta2)] {
        if adam && !(0.0..1.0).contains(&beta) {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "optim_step: {name} must be at least 0 and below 1, found {beta}"
            );
        }
    }
    if step.step == 0 {
        fail!(ET_ERR_INVALID_ARGUMENT, "optim_step: step must be at least 1, found 0");
    }
    let written = Addresses::of(copies)?;
    if let (ET_OPTIM_ADAFACTOR, [state]) = (step.kind, states) {
        return adafactor::step(step, grad_scale, segments, [values, grads, state], written);
    }
    let active: Vec<&Segment> = segments.iter().filter(|segment| segment.active).collect();
    let (tasks, first) = tasks(active.iter().map(|segment| (segment.offset, segment.len)));
    if tasks.is_empty() {
        return Ok(());
    }
    let rates: Vec<Rates> = active.iter().map(|segment| rates(step, grad_scale, segment)).collect();
    let (list, rates) = (table(&tasks)?, table(&rates)?);
    let launch = |name| Launch::new(Optim, name).grid(tasks.len(), 1).tensor(&list).tensor(&rates);
    match (step.kind, states) {
        (ET_OPTIM_SGD, [momentum]) => {
            let buffer = (step.momentum != 0.0).then_some(momentum);
            let launch = launch("et_sgd_step")
                .f32(step.momentum as f32)
                .f32(1.0)
                .flag(step.nesterov != 0)
                .flag(step.step <= 1)
                .tensor(values)
                .tensor(grads)
                .maybe(buffer)
                .value(written);
            // SAFETY: the tasks lie within the arenas, and every task's parameter has rates.
            unsafe { launch.run() }
        }
        (ET_OPTIM_LAMB, [m, v]) => {
            let norms = empty(DType::F64, 2 * tasks.len())?;
            let moments =
                launch("et_lamb_moments").tensor(values).tensor(grads).tensor(m).tensor(v);
            // SAFETY: as above; there are two norms per task.
            unsafe { moments.tensor(&norms).run() }?;
            let first = table(&first)?;
            let apply = launch("et_lamb_apply").tensor(&first).tensor(&norms);
            // SAFETY: as above; `first` says which tasks belong to each parameter.
            unsafe { apply.tensor(values).tensor(m).tensor(v).value(written).run() }
        }
        (_, [m, v]) => {
            let launch = launch("et_adam_step").tensor(values).tensor(grads).tensor(m).tensor(v);
            // SAFETY: as above.
            unsafe { launch.value(written).run() }
        }
        _ => fail!(ET_ERR_INVALID_ARGUMENT, "{} is no optimizer", step.kind),
    }
}

/// Coefficients of one parameter; the twin of `Adam::coefficients` and its relatives.
fn rates(step: &et_optim_step, grad_scale: f64, segment: &Segment) -> Rates {
    let power = |beta: f64| 1.0 - beta.powf(step.step as f64);
    let lr = step.lr * segment.lr_scale;
    let decay = segment.weight_decay;
    let (keep, l2, step_size) = match step.kind {
        ET_OPTIM_ADAMW => (1.0 - lr * decay, 0.0, lr / power(step.beta1)),
        ET_OPTIM_ADAM => (1.0, decay, lr / power(step.beta1)),
        ET_OPTIM_LAMB => (1.0, 0.0, 1.0 / power(step.beta1)),
        _ => (1.0, decay, lr),
    };
    Rates {
        keep: keep as f32,
        l2: l2 as f32,
        step_size: step_size as f32,
        beta1: step.beta1 as f32,
        rest1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        rest2: (1.0 - step.beta2) as f32,
        root2: (1.0 / power(step.beta2).sqrt()) as f32,
        eps: step.epsilon as f32,
        grad_scale: grad_scale as f32,
        decay: decay as f32,
        rate: lr as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_parts_in_order() {
        let (tasks, first) = tasks([(16, TASK + 1), (70_000, 5)].into_iter());
        let found: Vec<_> = tasks.iter().map(|task| (task.start, task.len, task.param)).collect();
        assert_eq!(found, [(16, TASK as u32, 0), (16 + TASK as u64, 1, 0), (70_000, 5, 1)]);
        assert_eq!(first, [0, 2, 3]);
        assert_eq!((size_of::<Task>(), size_of::<Rates>()), (16, 48));
        assert_eq!(size_of::<Addresses>(), 16);
    }
}
