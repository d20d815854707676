//! Optimizer steps over the arena of a set. The arithmetic is in `kernels::optim::adam`, `kernels::optim::sgd` and
//! `kernels::optim::adafactor`.

use std::ops::Range;

use candle_core::StorageRef;
use candle_core::Tensor as Raw;
use easytransfer_abi::{
    ET_OPTIM_ADAFACTOR, ET_OPTIM_ADAM, ET_OPTIM_ADAMW, ET_OPTIM_LAMB, ET_OPTIM_SGD, et_error,
    et_map, et_optim_step, et_params,
};

use crate::arena::{Arena, ParamRange, Touched, check_room, with_real};
use crate::data::Map;
use crate::device::Step;
use crate::error::{Result, fail};
use crate::handle::{borrow, guard, out};
use crate::kernels::optim::adafactor::{Adafactor, adafactor, adafactor_state_len};
use crate::kernels::optim::adam::{Adam, adam, adamw, lamb};
use crate::kernels::optim::sgd::{Sgd, sgd};
use crate::kernels::optim::{Gradients, Segment, TouchedRows};
use crate::params::{Params, Sealed};
use crate::storage::{self, Real, tensor_from_vec};
use crate::tensor::Tensor;

/// Names of an optimizer's state tensors. All are 1-D, of the set's type and as long as the arena, except Adafactor's.
fn state_names(kind: i32) -> Result<&'static [&'static str]> {
    Ok(match kind {
        ET_OPTIM_ADAMW | ET_OPTIM_ADAM | ET_OPTIM_LAMB => &["exp_avg", "exp_avg_sq"],
        ET_OPTIM_SGD => &["momentum"],
        ET_OPTIM_ADAFACTOR => &["row_col"],
        other => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{other} is no optimizer, expected an ET_OPTIM_ constant"
        ),
    })
}

/// What a step does to a set: its parameters as segments of the part of the arena that the optimizer's state covers.
struct Plan {
    /// All of the arena, or for a part of a set the elements from its first parameter to its last.
    window: Range<usize>,
    /// Numbers of the parameters in the arena.
    indexes: Vec<usize>,
    /// The same parameters within the window; those without a gradient, frozen or out of range are not active. Tensors
    /// of two axes and more are matrices for Adafactor: rows are all axes but the last.
    segments: Vec<Segment>,
}

impl Plan {
    /// For a step that changes the elements of `range`; parameters across its bounds are cut.
    fn new(sealed: &Sealed, weight_decay: f64, range: &Range<usize>) -> Self {
        let spans = &sealed.arena.spans;
        let indexes: Vec<usize> = (0..spans.len()).filter(|&index| sealed.has(index)).collect();
        let window = match (sealed.members(), indexes.first(), indexes.last()) {
            (Some(_), Some(&first), Some(&last)) => {
                spans[first].start..spans[last].start + spans[last].len
            }
            _ => 0..sealed.arena.len(),
        };
        let segment = |&index: &usize| {
            let (span, param) = (spans[index], &sealed.params[index]);
            let (begin, end) = (range.start.max(span.start), range.end.min(span.start + span.len));
            let is_inside = begin < end;
            let is_cut = is_inside && end - begin < span.len;
            let (start, len) = if is_cut { (begin, end - begin) } else { (span.start, span.len) };
            let cols = match param.shape() {
                [.., cols] if param.shape().len() >= 2 && len > 0 && !is_cut => *cols,
                _ => 0,
            };
            Segment {
                offset: start - window.start,
                len,
                rows: len.checked_div(cols).unwrap_or(0),
                cols,
                lr_scale: param.lr_scale(),
                weight_decay: if param.has_decay() { weight_decay } else { 0.0 },
                active: is_inside && param.is_trainable() && sealed.arena.has_grad(index),
            }
        };
        let segments = indexes.iter().map(segment).collect();
        Self { window, indexes, segments }
    }

    /// The part of a buffer as long as the arena.
    fn part(&self, buffer: &Raw) -> Result<Raw> {
        Ok(buffer.narrow(0, self.window.start, self.window.len())?)
    }

    /// Length of a state tensor.
    fn state_len(&self, kind: i32) -> usize {
        match kind {
            ET_OPTIM_ADAFACTOR => self.segments.iter().map(adafactor_state_len).sum(),
            _ => self.window.len(),
        }
    }
}

/// Fresh state of an optimizer kind for a sealed set: "exp_avg" and "exp_avg_sq" for the Adam kinds, "momentum" for
/// SGD, "row_col" for Adafactor (for each parameter its row sums then its column sums, or all squares of a vector).
/// Errors: `FAILED_PRECONDITION`, `INVALID_ARGUMENT`.
pub fn state(params: &Params, kind: i32) -> Result<Map> {
    let names = state_names(kind)?;
    let sealed = params.expect_sealed()?;
    let len = Plan::new(&sealed, 0.0, &(0..sealed.arena.len())).state_len(kind);
    let map = Map::new();
    for name in names {
        let zeros = with_real!(sealed.arena.dtype(), F => {
            check_room::<F>("the optimizer's state", len)?;
            tensor_from_vec(vec![F::default(); len], len)?
        });
        map.put(name, Tensor::new(zeros));
    }
    Ok(map)
}

/// The elements that a step changes. Errors: `INVALID_ARGUMENT` for bounds outside of the arena, or inside a parameter
/// for kinds that look at a parameter as a whole.
fn range_of(sealed: &Sealed, step: &et_optim_step) -> Result<Range<usize>> {
    let len = sealed.arena.len();
    let end = if step.end == 0 { len } else { step.end };
    if step.begin > end || end > len {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "optim_step: expected begin <= end <= {len}, the length of the arena, found {} and {end}",
            step.begin
        );
    }
    if matches!(step.kind, ET_OPTIM_LAMB | ET_OPTIM_ADAFACTOR) {
        for bound in [step.begin, end] {
            let is_inside = |span: &ParamRange| span.start < bound && bound < span.start + span.len;
            let cut = sealed.arena.spans.iter().position(is_inside);
            if let Some(index) = cut.filter(|&index| sealed.has(index)) {
                let span = sealed.arena.spans[index];
                fail!(
                    ET_ERR_INVALID_ARGUMENT,
                    "optim_step: bound {bound} lies inside parameter {:?} ({} to {}); LAMB and Adafactor change \
                     whole parameters",
                    sealed.params[index].name(),
                    span.start,
                    span.start + span.len
                );
            }
        }
    }
    Ok(step.begin..end)
}

/// One step over the arena, or over the elements from `begin` to `end` of it; parameters without a gradient are left
/// alone, and so is their state. Errors: `FAILED_PRECONDITION` when not sealed, `SHAPE` when the state belongs to
/// another set or kind, `INVALID_ARGUMENT` for rates and bounds out of range.
pub fn step(params: &Params, state: &Map, step: &et_optim_step) -> Result<()> {
    let names = state_names(step.kind)?;
    let sealed = params.expect_sealed()?;
    let arena = &sealed.arena;
    let range = range_of(&sealed, step)?;
    if range.len() < arena.len() {
        // Rows are counted from the beginning of a parameter, which a bound may cut off.
        arena.settle_rows()?;
    }
    let plan = Plan::new(&sealed, step.weight_decay, &range);
    let len = Plan::new(&sealed, 0.0, &(0..arena.len())).state_len(step.kind);
    let mut states = Vec::with_capacity(names.len());
    for name in names {
        if !state.has(name) {
            fail!(
                ET_ERR_SHAPE,
                "the optimizer's state has no {name:?}: it belongs to another kind"
            );
        }
        let tensor = state.get(name)?;
        let raw = tensor.value().clone();
        if raw.dims() != [len] || raw.dtype() != arena.dtype() || !raw.is_contiguous() {
            fail!(
                ET_ERR_SHAPE,
                "the optimizer's state {name:?} must have shape [{len}] and type {}, found {:?} and {}: it belongs to another set",
                arena.dtype().as_str(),
                raw.dims(),
                raw.dtype().as_str()
            );
        }
        states.push(raw);
    }
    if let Some(share) = &arena.share {
        let bytes = len * names.len() * arena.dtype().size_in_bytes();
        share.states(plan.window.start, bytes);
    }
    let memory = [&arena.values, arena.unsettled_grads()].into_iter().chain(&states).map(lock_of);
    let mut memory: Vec<usize> = memory.collect();
    memory.sort_unstable();
    if memory.windows(2).any(|pair| pair[0] == pair[1]) {
        fail!(ET_ERR_INVALID_ARGUMENT, "the optimizer's state tensors must not share memory");
    }
    // Copies of the values that are up to date, which a device writes along with them.
    let copies = arena.copies.current();
    let mut on_device = false;
    let done = run_on_device(arena, &plan, &states, step, &copies).and_then(|done| {
        on_device = done;
        if done {
            return Ok(());
        }
        with_real!(arena.dtype(), F => run::<F>(arena, &plan, &states, step))
    });
    for (index, segment) in plan.indexes.iter().zip(&plan.segments) {
        if segment.active {
            sealed.params[*index].written();
        }
    }
    if on_device {
        arena.copies.keep(&copies);
    }
    done
}

/// The step by a kernel of the device on which the arena lies; false where there is none.
fn run_on_device(
    arena: &Arena,
    plan: &Plan,
    states: &[Raw],
    step: &et_optim_step,
    copies: &[Raw],
) -> Result<bool> {
    let Some(device) = arena.device() else { return Ok(false) };
    let copies: Vec<Raw> = copies.iter().map(|copy| plan.part(copy)).collect::<Result<_>>()?;
    device.optim_step(&Step {
        options: step,
        grad_scale: arena.pending_scale(),
        segments: &plan.segments,
        values: &plan.part(&arena.values)?,
        grads: &plan.part(arena.unsettled_grads())?,
        states,
        copies: &copies,
    })
}

/// Which lock guards a tensor's memory.
fn lock_of(tensor: &Raw) -> usize {
    let (guard, _) = tensor.storage_and_layout();
    std::ptr::from_ref(StorageRef::rwlock(&guard)) as usize
}

fn run<F: Real>(arena: &Arena, plan: &Plan, states: &[Raw], step: &et_optim_step) -> Result<()> {
    let segments = &plan.segments;
    // Scaled gradients and rows of gradients are read on the way.
    let touched: Vec<_> = plan.indexes.iter().map(|&index| arena.touched(index)).collect();
    let touched: Vec<Option<TouchedRows<'_>>> = touched
        .iter()
        .map(|touched| {
            let Touched { width, rows } = touched.as_ref()?;
            Some(TouchedRows { width: *width, rows })
        })
        .collect();
    let grad_scale = arena.pending_scale();
    let grads = plan.part(arena.unsettled_grads())?;
    let memory = storage::read::<F>(&grads)?;
    let g = Gradients { values: &memory, touched: &touched };
    let adam_op = Adam {
        lr: step.lr,
        beta1: step.beta1,
        beta2: step.beta2,
        eps: step.epsilon,
        step: step.step,
        grad_scale,
    };
    storage::with_mut::<F, _>(&plan.part(&arena.values)?, |p| match (step.kind, states) {
        (ET_OPTIM_SGD, [momentum]) => {
            let op = Sgd {
                lr: step.lr,
                momentum: step.momentum,
                dampening: 0.0,
                nesterov: step.nesterov != 0,
                step: step.step,
                grad_scale,
            };
            storage::with_mut::<F, _>(momentum, |m| sgd(op, segments, g, p, m))
        }
        (ET_OPTIM_ADAFACTOR, [row_col]) => {
            let op = Adafactor {
                lr: step.lr,
                decay_rate: step.beta2,
                eps: step.epsilon,
                clip_threshold: step.momentum,
                beta1: None,
                step: step.step,
                grad_scale,
            };
            storage::with_mut::<F, _>(row_col, |s| adafactor(op, segments, g, p, s, &mut []))
        }
        (kind, [exp_avg, exp_avg_sq]) => storage::with_mut::<F, _>(exp_avg, |m| {
            storage::with_mut::<F, _>(exp_avg_sq, |v| match kind {
                ET_OPTIM_LAMB => lamb(adam_op, segments, g, p, m, v),
                ET_OPTIM_ADAM => adam(adam_op, segments, g, p, m, v),
                _ => adamw(adam_op, segments, g, p, m, v),
            })
        })
        .and_then(|result| result),
        _ => fail!(ET_ERR_INVALID_ARGUMENT, "{} is no optimizer", step.kind),
    })???;
    Ok(())
}

/// The slot `optim_state` of `et.nn/1`.
///
/// # Safety
/// As the boundary says: a live set and a writable out pointer.
pub unsafe extern "C" fn optim_state(
    params: *const et_params,
    kind: i32,
    result: *mut *mut et_map,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller's contract is the same.
        unsafe { out(result, state(borrow::<Params>(params)?, kind)?) }
    })
}

/// The slot `optim_step` of `et.nn/1`.
///
/// # Safety
/// As the boundary says: a live set, a live map and a step whose `struct_size` covers all fields that it fills.
pub unsafe extern "C" fn optim_step(
    params: *mut et_params,
    state: *mut et_map,
    options: *const et_optim_step,
) -> *mut et_error {
    guard(|| {
        if options.is_null() {
            fail!(ET_ERR_INVALID_ARGUMENT, "optim_step: the step is NULL");
        }
        // SAFETY: not NULL, and every caller-filled struct begins with its size.
        let size = unsafe { options.cast::<usize>().read() };
        if size < size_of::<et_optim_step>() {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "optim_step: struct_size is {size}, expected at least {}",
                size_of::<et_optim_step>()
            );
        }
        // SAFETY: the size covers the whole struct; the handles are live by the caller's contract.
        unsafe { step(borrow::<Params>(params)?, borrow::<Map>(state)?, &*options) }
    })
}
