//! Recomputation (gradient checkpointing): layers that run again in the backward pass instead of keeping what they
//! computed.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;

use crate::component::{guard, log_panic};
use crate::host::{call, slot, tables};
use crate::{Error, Lent, Result, Rng, Tensor};
use easytransfer_abi as abi;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `segment` on `inputs` (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). When the user
/// asked for `recompute = "layer"`, only the inputs are kept, and the backward pass runs the segment again with the
/// same random numbers, to the same bits; else it is as if the caller had run it. Models mark each of their layers by
/// it.
///
/// The segment depends on its inputs, on parameters, and on the generator that it is given alone. Gradients also
/// reach the parameters and other tracked tensors that it owns. Segments may lie in segments.
///
/// # Errors
/// The segment's. From the backward pass: a panic or an error of the second run, or one that gives other outputs or
/// takes other random numbers than the first.
pub fn recomputed<const N: usize, F>(
    inputs: &[&Tensor],
    rng: Option<&Rng>,
    segment: F,
) -> Result<[Tensor; N]>
where
    F: Fn(&[&Tensor], Option<&Rng>) -> Result<[Tensor; N]> + Send + 'static,
{
    // Nothing is kept anyhow, or by an older host: the shortest way.
    if !crate::is_recording() || slot!(tables().autograd, et_host_autograd.checkpoint).is_none() {
        return segment(inputs, rng);
    }
    let raw_segment = abi::et_segment {
        struct_size: size_of::<abi::et_segment>(),
        state: Box::into_raw(Box::new(segment)).cast(),
        run: Some(run::<N, F>),
        release: Some(release::<F>),
    };
    let raw: Vec<_> = inputs.iter().map(|t| t.as_raw().cast_const()).collect();
    let mut outputs = [null_mut(); N];
    call!(
        tables().autograd,
        et_host_autograd.checkpoint(
            &raw_segment,
            raw.as_ptr(),
            raw.len(),
            rng.map_or(null_mut(), Rng::as_raw),
            outputs.as_mut_ptr(),
            N
        )
    )?;
    // SAFETY: on success every out holds an owned reference.
    let made: Result<Vec<_>> =
        outputs.into_iter().map(|x| unsafe { Tensor::from_raw(x) }).collect();
    made?.try_into().map_err(|_| Error::invalid("recomputed: another number of outputs"))
}

unsafe extern "C" fn run<const N: usize, F>(
    state: *mut c_void,
    inputs: *const *const abi::et_tensor,
    inputs_len: usize,
    rng: *mut abi::et_rng,
    outputs: *mut *mut abi::et_tensor,
    outputs_len: usize,
) -> *mut abi::et_error
where
    F: Fn(&[&Tensor], Option<&Rng>) -> Result<[Tensor; N]>,
{
    guard(|| {
        if outputs_len != N {
            return Err(Error::invalid(format!("expected {N} outputs, found {outputs_len}")));
        }
        // SAFETY: the host passes the segment's state, live inputs for the call, and a generator or NULL.
        let (segment, inputs, rng) = unsafe {
            let inputs = (0..inputs_len)
                .map(|i| Tensor::lend((*inputs.add(i)).cast_mut()))
                .collect::<Result<Vec<Lent<'_, Tensor>>>>()?;
            let rng = if rng.is_null() { None } else { Some(Rng::lend(rng)?) };
            (&*state.cast::<F>(), inputs, rng)
        };
        let inputs: Vec<&Tensor> = inputs.iter().map(|input| &**input).collect();
        for (index, output) in segment(&inputs, rng.as_deref())?.into_iter().enumerate() {
            // SAFETY: the host gives room for `N` outputs.
            unsafe { *outputs.add(index) = output.into_raw() };
        }
        Ok(())
    })
}

unsafe extern "C" fn release<F>(state: *mut c_void) {
    // SAFETY: the host gives the state back once.
    let dropped =
        catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(state.cast::<F>()) })));
    if let Err(payload) = dropped {
        log_panic::<F>("release of a recomputed segment", easytransfer_text::panic_text(&*payload));
    }
}

/// How much of a training step the engine computes again in the backward pass instead of keeping it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Recompute {
    /// Nothing.
    #[default]
    None = abi::ET_RECOMPUTE_NONE,
    /// Outputs of activations and layer norms.
    Cheap = abi::ET_RECOMPUTE_CHEAP,
    /// Whatever models run through [`recomputed`].
    Layer = abi::ET_RECOMPUTE_LAYER,
}

thread_local! {
    /// The level of the innermost scope of this thread.
    static LEVEL: Cell<Recompute> = const { Cell::new(Recompute::None) };
}

/// While it lives, operations that its thread records keep what a level says. Scopes nest; the inner one counts. Other
/// threads, and so other runs, are not concerned.
pub struct RecomputeScope {
    before: Recompute,
    // The scope must end on the thread that it changed.
    _not_send: PhantomData<*const ()>,
}

impl RecomputeScope {
    /// Begins the scope. Errors: an engine without the choice, for all but `None`.
    pub fn new(level: Recompute) -> Result<Self> {
        set(level)?;
        Ok(Self { before: LEVEL.replace(level), _not_send: PhantomData })
    }
}

impl Drop for RecomputeScope {
    fn drop(&mut self) {
        LEVEL.set(self.before);
        // It was set before, so the engine knows it.
        let _ = set(self.before);
    }
}

fn set(level: Recompute) -> Result<()> {
    if level == Recompute::None
        && slot!(tables().autograd, et_host_autograd.set_recompute).is_none()
    {
        return Ok(());
    }
    call!(tables().autograd, et_host_autograd.set_recompute(level as i32))
}
