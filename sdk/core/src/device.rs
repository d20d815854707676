//! A device beside the processor: where tensors may live, and which operations it has kernels for.
//!
//! A process has one device at most, installed before the first tensor is made; without one everything is in host
//! memory, and all that this module costs is one read of a static. [`Device`] is all that the engine knows of it. Its
//! methods are operations and not kernels, because a device saves other things for its backward pass than the CPU
//! does: it records its own node on the tape ([`crate::tape`]) with what it saved.
//!
//! An operation that a device has no kernel for answers `Ok(None)`. Then the CPU's way is taken between two copies:
//! [`storage::read`] downloads what lies on the device, [`storage::tensor_from_vec`] uploads what belongs there, and
//! the device is told ([`Device::fell_back`]). Fine-grained operations, such as sums and casts, are candle's wherever
//! a tensor is.
//!
//! [`storage::read`]: crate::storage::read
//! [`storage::tensor_from_vec`]: crate::storage::tensor_from_vec

use std::any::Any;
use std::ffi::c_void;
use std::sync::OnceLock;

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::et_optim_step;

use crate::data::Map;
use crate::error::{Error, Result, fail};
use crate::kernels::activation::Activation;
use crate::kernels::attention::AttentionShape;
use crate::kernels::cross_entropy::CrossEntropy;
use crate::kernels::optim::Segment;
use crate::kernels::padding::Pool;
use crate::kernels::philox::Dropout;
use crate::storage::Value;
use crate::tensor::Tensor;

/// A place in the order of a device's work, for the profiler.
pub type Mark = Box<dyn Any + Send>;

/// A layer or RMS norm: `gamma (s - mean) rstd + beta` with s = residual + dropout(x). Without `beta` it is RMS norm,
/// which has no mean.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// What is normalised over its last axis.
    pub x: &'a Tensor,
    /// Factors `[cols]`.
    pub gamma: &'a Tensor,
    /// Summands `[cols]`.
    pub beta: Option<&'a Tensor>,
    /// Of the shape of `x`.
    pub residual: Option<&'a Tensor>,
    /// Added to the variance.
    pub epsilon: f64,
    /// Of `x`, before the residual is added.
    pub dropout: Option<Dropout>,
}

/// Extents of a recurrent layer over runs.
#[derive(Clone, Copy, Debug)]
pub struct Recurrent {
    /// 4 for an LSTM, 3 for a GRU.
    pub gates: usize,
    /// Tokens of all runs.
    pub rows: usize,
    /// Columns of the input.
    pub inputs: usize,
    /// Columns of the output.
    pub hidden: usize,
    /// Each run is read from its end.
    pub reverse: bool,
}

/// Runs of `rows` tokens of `cols` columns beside padded batches [runs, len, cols].
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    /// Tokens of all runs.
    pub rows: usize,
    /// Tokens of a padded run.
    pub len: usize,
    /// Columns.
    pub cols: usize,
    /// To the padded batch, or from it.
    pub pad: bool,
}

/// One optimizer step over an arena in the device's memory.
pub struct Step<'a> {
    /// The optimizer and its rates.
    pub options: &'a et_optim_step,
    /// Factor on the gradients.
    pub grad_scale: f64,
    /// The parameters, or what is to be changed of them.
    pub segments: &'a [Segment],
    /// All values that the segments lie in, which the step changes.
    pub values: &'a Raw,
    /// As many gradients.
    pub grads: &'a Raw,
    /// The optimizer's states, which the step changes.
    pub states: &'a [Raw],
    /// Copies of the values in bf16 or f16, which the step writes along with them.
    pub copies: &'a [Raw],
}

/// Start and length of the parts of an arena whose parameters have gradients, in ascending order.
pub type Ranges<'a> = &'a [(usize, usize)];

/// What a device does. Tensors given to it may lie in host memory, except where it says otherwise; shapes and types
/// were checked. `starts`, `ids`, `tags` and `labels` are contiguous I64 wherever that type is at home; `starts`,
/// `ids` and `tags` are in range.
pub trait Device: Send + Sync {
    /// An `ET_DEVICE_` constant: for which kind a plugin's operation must have code of its own.
    fn kind(&self) -> i32;

    /// Its number among those of its kind.
    fn number(&self) -> i32 {
        0
    }

    /// What it did, as JSON; see `report` of `et_engine_record`.
    fn report(&self) -> String;

    /// A C table that only this device has; it begins with its size and lives until the process ends.
    fn interface(&self, _id: &str) -> Option<*const c_void> {
        None
    }

    /// True if the memory of `x` is the device's.
    fn holds(&self, x: &Raw) -> bool;

    /// True if tensors of this type live on the device.
    fn is_home(&self, dtype: DType) -> bool;

    /// A tensor on the device with arbitrary values. Errors: `OUT_OF_MEMORY`, `DTYPE` for types that it cannot hold.
    fn empty(&self, dtype: DType, shape: &[usize]) -> Result<Raw>;

    /// A copy of a tensor in host memory on the device; nobody waits for it.
    fn upload(&self, x: &Raw) -> Result<Raw>;

    /// A contiguous copy in host memory of a tensor on the device, which nobody else holds; waits for the device.
    fn download(&self, x: &Raw) -> Result<Raw>;

    /// Overwrites a contiguous tensor on the device with the elements of one in host memory, of the same type and
    /// shape.
    fn overwrite(&self, x: &Raw, host: &Raw) -> Result<()>;

    /// Takes a tensor on the device that its owner is done with; others may still hold its memory.
    fn recycle(&self, x: Raw) {
        drop(x);
    }

    /// A step of training ended.
    fn end_step(&self) {}

    /// Begins to copy the arrays of a batch that will be wanted soon.
    fn prefetch(&self, _batch: &Map) -> Result<()> {
        Ok(())
    }

    /// The error of too little memory while `doing` something: who holds the memory, and what to do.
    fn out_of_memory(&self, doing: &str) -> Error {
        Error::new(
            easytransfer_abi::ET_ERR_OUT_OF_MEMORY,
            format!("{doing}: the device is out of memory; use smaller batches"),
        )
    }

    /// Hears that an operation went the CPU's way between two copies; `place` is the source file of that way.
    fn fell_back(&self, _place: &'static str) {}

    /// The stream for a plugin's own operation, bound to this thread.
    fn stream(&self) -> Result<*mut c_void> {
        fail!(ET_ERR_UNIMPLEMENTED, "this device runs no code of plugins")
    }

    /// Where the first element of a tensor on the device lies, for work that is put on the stream while the tensor
    /// lives.
    fn address(&self, _x: &Raw) -> Result<u64> {
        fail!(ET_ERR_UNIMPLEMENTED, "this device runs no code of plugins")
    }

    /// A mark behind all work so far; `None` when the device has no times to tell.
    fn mark(&self) -> Option<Mark> {
        None
    }

    /// Milliseconds of the device from one mark to the other.
    fn between(&self, _begin: &Mark, _end: &Mark) -> f64 {
        0.0
    }

    /// A new recording of the profiler begins.
    fn restart_marks(&self) {}

    /// `activation(x W^T + b)` for x [.., i], W [o, i], b `[o]`.
    fn linear(
        &self,
        _x: &Tensor,
        _weight: &Tensor,
        _bias: Option<&Tensor>,
        _activation: Activation,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// An activation as the operation `name`.
    fn activate(
        &self,
        _name: &'static str,
        _activation: Activation,
        _x: &Tensor,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// x times the dropout factors.
    fn dropout(&self, _x: &Tensor, _dropout: Dropout) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Layer norm or RMS norm.
    fn norm(&self, _norm: Norm<'_>) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Softmax over the last axis, or its logarithm.
    fn softmax(&self, _x: &Tensor, _log: bool) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Attention of q [Tq, heads * d] over k and v [Tk, heads * d], each token within its run; the starts of the
    /// shape are in host memory.
    fn attention(
        &self,
        _q: &Tensor,
        _k: &Tensor,
        _v: &Tensor,
        _shape: AttentionShape<'_>,
        _dropout: Option<Dropout>,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The sum over k of tables_k [rows_k, width] at ids_k `[positions]`.
    fn embedding_sum(
        &self,
        _tables: &[&Tensor],
        _ids: &[Value],
        _positions: usize,
        _width: usize,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Weighted mean cross entropy of logits [N, C]. The device checks that labels are classes or ignored. Errors:
    /// `INVALID_ARGUMENT`.
    fn cross_entropy(
        &self,
        _logits: &Tensor,
        _labels: &Value,
        _weights: Option<&Tensor>,
        _options: CrossEntropy,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Weighted mean binary cross entropy of logits and targets [rows, cols], or `[rows]` with `cols` 1.
    fn binary_cross_entropy(
        &self,
        _logits: &Tensor,
        _targets: &Tensor,
        _weights: Option<&Tensor>,
        _rows: usize,
        _cols: usize,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// One vector per run, x [T, h] -> [B, h].
    fn pool(&self, _x: &Tensor, _starts: &Value, _kind: Pool) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Runs to a padded batch, or back.
    fn padding(&self, _x: &Tensor, _starts: &Value, _padding: Padding) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// 1-D convolution within each run that keeps lengths: x [T, i], weight [o, i, k], bias `[o]` -> [T, o].
    fn conv1d(
        &self,
        _x: &Tensor,
        _weight: &Tensor,
        _bias: Option<&Tensor>,
        _starts: &Value,
        _dilation: usize,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// LSTM or GRU for x, w_ih, w_hh, b_ih, b_hh.
    fn recurrent(
        &self,
        _tensors: [&Tensor; 5],
        _starts: &Value,
        _layer: Recurrent,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The mean over runs of a field's negative log likelihood for emissions [T, C], transitions [C, C], first `[C]`
    /// and last `[C]`.
    fn crf_loss(
        &self,
        _tensors: [&Tensor; 4],
        _tags: &Value,
        _starts: &Value,
        _classes: usize,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// y (+)= x, contiguous, of one type and shape; y is on the device, in an arena or like one.
    fn store(&self, x: &Raw, add: bool, y: &Raw) -> Result<()> {
        let host = |x: &Raw| if self.holds(x) { self.download(x) } else { Ok(x.clone()) };
        let x = host(x)?;
        self.overwrite(y, &if add { (x + self.download(y)?)? } else { x })
    }

    /// Multiplies parts of an arena's gradients, or of a tensor like them. False without a kernel.
    fn scale(&self, _grads: &Raw, _factor: f64, _parts: Ranges<'_>) -> Result<bool> {
        Ok(false)
    }

    /// The sum of the squares of parts of an arena's gradients, in their order; waits for the device.
    fn square_sum(&self, _grads: &Raw, _parts: Ranges<'_>) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Clips the norm of parts of an arena's gradients, which are still to be multiplied by `scale`, to `limit`;
    /// gives the norm before that, a scalar F64 for which nobody waits.
    fn clip(
        &self,
        _grads: &Raw,
        _scale: f64,
        _limit: f64,
        _parts: Ranges<'_>,
    ) -> Result<Option<Raw>> {
        Ok(None)
    }

    /// One step of an optimizer. False without a kernel.
    fn optim_step(&self, _step: &Step<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Writes contiguous f32 on the device into `copy` of bf16 or f16. Only the device's own operations ask for copies
    /// ([`crate::inference::Packs::narrow`]).
    fn narrow(&self, _values: &Raw, _copy: &Raw) -> Result<()> {
        fail!(ET_ERR_UNIMPLEMENTED, "this device keeps no copies of parameters in fewer bits")
    }
}

static DEVICE: OnceLock<&'static dyn Device> = OnceLock::new();

/// Makes `device` that of this process. Errors: `FAILED_PRECONDITION` when there is one already.
pub fn install(device: &'static dyn Device) -> Result<()> {
    match DEVICE.set(device) {
        Ok(()) => Ok(()),
        Err(_) => fail!(
            ET_ERR_FAILED_PRECONDITION,
            "the engine is open already; a process has one device"
        ),
    }
}

/// The device of this process, once it is installed.
#[inline]
pub fn active() -> Option<&'static dyn Device> {
    DEVICE.get().copied()
}

/// The device that holds the memory of `x`; `None` for host memory.
#[inline]
pub fn of(x: &Raw) -> Option<&'static dyn Device> {
    active().filter(|device| device.holds(x))
}

/// True if the memory of `x` is the host's.
#[inline]
pub fn is_host(x: &Raw) -> bool {
    of(x).is_none()
}

/// Offers an operation to the device if its first input lies there and is of f32, however it is kept. `Ok(None)` says
/// that the CPU's way is to be taken; no input has to be widened for it any more.
#[inline]
pub(crate) fn offer(
    inputs: &[&Tensor],
    run: impl FnOnce(&dyn Device) -> Result<Option<Tensor>>,
) -> Result<Option<Tensor>> {
    let Some(device) = active() else { return Ok(None) };
    let takes = |x: &&Tensor| x.dtype() == DType::F32 && device.holds(x.stored());
    if !inputs.first().is_some_and(takes) {
        return Ok(None);
    }
    let y = run(device)?;
    if y.is_none() {
        inputs.iter().try_for_each(|x| x.widen())?;
    }
    Ok(y)
}

/// The tensor where its type belongs: the same one, unless a device is installed.
pub(crate) fn at_home(x: Raw) -> Result<Raw> {
    let Some(device) = active() else { return Ok(x) };
    match (device.is_home(x.dtype()), device.holds(&x)) {
        (true, false) => device.upload(&x),
        (false, true) => device.download(&x),
        _ => Ok(x),
    }
}

/// The tensor where `other` is.
pub(crate) fn beside(x: &Raw, other: &Raw) -> Result<Raw> {
    match (of(x), of(other)) {
        (None, Some(device)) => device.upload(x),
        (Some(device), None) => device.download(x),
        _ => Ok(x.clone()),
    }
}

/// The tensor in host memory; waits for the device.
pub(crate) fn to_host(x: Raw) -> Result<Raw> {
    match of(&x) {
        Some(device) => device.download(&x),
        None => Ok(x),
    }
}
