//! One named parameter: its value, wherever that lies, its gradient and its settings.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi::{
    ET_DTYPE_BF16, ET_DTYPE_F16, ET_DTYPE_F32, ET_DTYPE_F64, et_init, et_param,
};

use crate::arena::{Arena, check_room, with_real};
use crate::data::Buffer;
use crate::device;
use crate::error::{Result, fail};
use crate::handle::{Handle, tag};
use crate::inference::Packs;
use crate::init;
use crate::ops;
use crate::storage::{self, MappedTensor, Real, tensor_from_vec};
use crate::sync::lock;
use crate::tape::{self, Leaf, Paused};
use crate::tensor::Tensor;
use crate::versions;

/// A named parameter; clones are the same one.
#[derive(Clone)]
pub struct Param(pub(crate) Arc<Inner>);

impl Handle for Param {
    type Abi = et_param;
    const TAG: u32 = tag(b"ETpa");
    const NAME: &'static str = "parameter";
}

pub(crate) struct Inner {
    pub name: String,
    pub shape: Vec<usize>,
    dtype: DType,
    seed: u64,
    init: et_init,
    trainable: AtomicBool,
    decay: AtomicBool,
    /// The bits of an f64.
    lr_scale: AtomicU64,
    state: Mutex<State>,
    /// Packed copies of the value, for prediction.
    packs: Arc<Packs>,
}

struct State {
    value: Value,
    sealed: bool,
    low_rank: Option<LowRank>,
}

/// Where a value lies.
enum Value {
    /// Nowhere yet: it is made when it is first wanted, since most are replaced by a checkpoint before.
    Init,
    /// A tensor of its own.
    Own(Raw),
    /// Somebody's read-only memory; never written to.
    Mapped(MappedTensor),
    /// Part `index` of the arena, and the view of it.
    Arena { arena: Arc<Arena>, index: usize, view: Raw },
}

/// W + scale * B A (Hu et al. 2021).
#[derive(Clone)]
struct LowRank {
    a: Param,
    b: Param,
    scale: f64,
}

impl State {
    fn slot(&self) -> Option<(&Arc<Arena>, usize)> {
        match &self.value {
            Value::Arena { arena, index, .. } => Some((arena, *index)),
            _ => None,
        }
    }
}

impl Inner {
    /// The value, made if it was not there yet.
    fn value(&self, state: &mut State) -> Result<Raw> {
        if let Value::Init = state.value {
            let fresh = with_real!(self.dtype, F => self.fresh::<F>()?);
            state.value = Value::Own(fresh);
        }
        if let Value::Mapped(mapped) = &state.value
            && device::active().is_some()
        {
            state.value = Value::Own(device::at_home(mapped.tensor().clone())?);
        }
        Ok(match &state.value {
            Value::Own(raw) | Value::Arena { view: raw, .. } => raw.clone(),
            Value::Mapped(mapped) => mapped.tensor().clone(),
            Value::Init => unreachable!("the value was made above"),
        })
    }

    fn fresh<F: Real>(&self) -> Result<Raw> {
        check_room::<F>(&self.name, self.len())?;
        let mut values = vec![F::ZERO; self.len()];
        init::fill(&self.init, self.seed, &self.name, &self.shape, &mut values);
        tensor_from_vec(values, self.shape.clone())
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Puts new values where the parameter's value lies. Memory that is only mapped is left alone and left behind.
    fn store<F: Real>(&self, state: &mut State, values: Vec<F>) -> Result<()> {
        let stored = self.store_values(state, values);
        self.packs.invalidate();
        stored
    }

    fn store_values<F: Real>(&self, state: &mut State, values: Vec<F>) -> Result<()> {
        match &state.value {
            Value::Own(raw) | Value::Arena { view: raw, .. } => {
                storage::with_mut::<F, _>(raw, |slot| slot.copy_from_slice(&values))
            }
            Value::Init | Value::Mapped(_) => {
                state.value = Value::Own(tensor_from_vec(values, self.shape.clone())?);
                Ok(())
            }
        }
    }

    fn check_fits(&self, what: &str, tensor: &Raw) -> Result<()> {
        if tensor.dims() != self.shape {
            fail!(
                ET_ERR_SHAPE,
                "{what} of parameter {:?} must have shape {:?}, found {:?}",
                self.name,
                self.shape,
                tensor.dims()
            );
        }
        if tensor.dtype() != self.dtype {
            fail!(
                ET_ERR_DTYPE,
                "{what} of parameter {:?} must have type {}, found {}; cast it first",
                self.name,
                self.dtype.as_str(),
                tensor.dtype().as_str()
            );
        }
        Ok(())
    }
}

impl Leaf for Inner {
    fn dtype(&self) -> Option<DType> {
        Some(self.dtype)
    }

    fn accumulate(&self, grad: &Raw) -> Result<()> {
        self.check_fits("the gradient", grad)?;
        let state = lock(&self.state);
        if !self.trainable.load(Ordering::Acquire) {
            return Ok(()); // It was frozen after the pass forward.
        }
        match state.slot() {
            Some((arena, index)) => arena.accumulate(index, grad),
            None => fail!(
                ET_ERR_FAILED_PRECONDITION,
                "a gradient reached parameter {:?} before its set was sealed: call params_seal first",
                self.name
            ),
        }
    }

    fn accumulate_f32(&self, f: &mut dyn FnMut(&mut [f32], bool)) -> Result<bool> {
        let state = lock(&self.state);
        match state.slot() {
            Some((arena, index))
                if self.dtype == DType::F32 && self.trainable.load(Ordering::Acquire) =>
            {
                arena.write_grad::<f32, _>(index, f)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn accumulate_view(&self, f: &mut dyn FnMut(&Raw, bool) -> Result<()>) -> Result<bool> {
        let state = lock(&self.state);
        match state.slot() {
            Some((arena, index))
                if arena.device().is_some() && self.trainable.load(Ordering::Acquire) =>
            {
                arena.write_view(index, &self.shape, f)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn accumulate_rows_f32(
        &self,
        width: usize,
        rows: &[u32],
        f: &mut dyn FnMut(&mut [f32]),
    ) -> Result<bool> {
        let state = lock(&self.state);
        match state.slot() {
            Some((arena, index))
                // Kernels of a device know whole gradients only.
                if self.dtype == DType::F32
                    && arena.device().is_none()
                    && self.trainable.load(Ordering::Acquire) =>
            {
                arena.add_to_rows::<f32, _>(index, width, rows, f)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl Param {
    pub(crate) fn declare(
        name: String,
        shape: Vec<usize>,
        dtype: DType,
        seed: u64,
        init: et_init,
    ) -> Self {
        let decay = AtomicBool::new(shape.len() >= 2);
        let packs = Arc::new(Packs::new(name.clone()));
        Self(Arc::new(Inner {
            name,
            shape,
            dtype,
            seed,
            init,
            trainable: AtomicBool::new(true),
            decay,
            lr_scale: AtomicU64::new(1f64.to_bits()),
            state: Mutex::new(State { value: Value::Init, sealed: false, low_rank: None }),
            packs,
        }))
    }

    /// Full dotted name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Element type: F32 or F64.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.0.len()
    }

    /// The present value, low-rank update included; tracked when trainable. A view: an optimizer step changes it.
    pub fn tensor(&self) -> Result<Tensor> {
        let mut state = lock(&self.0.state);
        let value = self.0.value(&mut state)?;
        let low_rank = state.low_rank.clone();
        drop(state);
        if tape::is_dropping() {
            versions::note(&self.0.packs);
        }
        let tensor = if self.is_trainable() {
            Tensor::from_leaf(value, self.0.clone())
        } else {
            Tensor::new(value)
        };
        let Some(LowRank { a, b, scale }) = low_rank else {
            return Ok(tensor.with_packs(self.0.packs.clone()));
        };
        let update = ops::matmul::matmul(&b.tensor()?, &a.tensor()?)?;
        let update = ops::unary::affine(&update, scale, 0.0)?;
        ops::binary::binary(easytransfer_abi::ET_BINARY_ADD, &tensor, &update)
    }

    /// The value that a saved model should carry, low-rank update included, with no history.
    pub fn merged(&self) -> Result<Tensor> {
        let _paused = Paused::new();
        Ok(self.tensor()?.detach())
    }

    /// The value itself, without low-rank update and history.
    pub(crate) fn raw(&self) -> Result<Raw> {
        self.0.value(&mut lock(&self.0.state))
    }

    /// The value in memory that may be written to; call [`Param::written`] afterwards. Mapped memory is left behind.
    pub(crate) fn writable(&self) -> Result<Raw> {
        let mut state = lock(&self.0.state);
        let value = self.0.value(&mut state)?;
        let Value::Mapped(_) = state.value else { return Ok(value) };
        let copy = with_real!(self.0.dtype, F => {
            tensor_from_vec(storage::with::<F, _>(&value, <[F]>::to_vec)?, self.shape())?
        });
        state.value = Value::Own(copy.clone());
        Ok(copy)
    }

    /// True if both are the same parameter.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Says that somebody wrote to the value where it lies.
    pub(crate) fn written(&self) {
        self.0.packs.invalidate();
    }

    /// True if nobody has written to the value since it was declared.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.packs.version() == 0
    }

    /// Bytes of the packed copies that prediction made of the value.
    pub fn packed_size(&self) -> usize {
        self.0.packs.size()
    }

    /// A copy of the gradient, if one has reached the parameter.
    pub fn grad(&self) -> Result<Option<Tensor>> {
        let state = lock(&self.0.state);
        match state.slot() {
            Some((arena, index)) if arena.has_grad(index) => {
                let grads = arena.settled_grads()?;
                let copy = arena.view(grads, index, &self.0.shape)?.copy()?;
                Ok(Some(Tensor::new(copy)))
            }
            _ => Ok(None),
        }
    }

    /// True if a gradient has reached the parameter.
    pub fn has_grad(&self) -> bool {
        lock(&self.0.state).slot().is_some_and(|(arena, index)| arena.has_grad(index))
    }

    /// Replaces the gradient. Errors: `SHAPE`, `DTYPE`, `FAILED_PRECONDITION` when frozen or not sealed.
    pub fn set_grad(&self, grad: &Tensor) -> Result<()> {
        grad.widen()?;
        self.0.check_fits("the gradient", grad.value())?;
        let state = lock(&self.0.state);
        let (Some((arena, index)), true) = (state.slot(), self.is_trainable()) else {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "parameter {:?} has no place for a gradient: it is frozen or its set is not sealed",
                self.0.name
            );
        };
        // A copy first: the new gradient may be computed from views of the old one.
        let grad = grad.value().copy()?;
        arena.forget(index);
        arena.accumulate(index, &grad)
    }

    /// Copies a tensor's values into the parameter. Errors: `SHAPE`, `DTYPE`.
    pub fn assign(&self, value: &Tensor) -> Result<()> {
        value.widen()?;
        self.0.check_fits("the new value", value.value())?;
        let flat = value.value().flatten_all()?;
        let mut state = lock(&self.0.state);
        // `to_vec1` copies before anything is locked for writing, so a parameter can be assigned to itself.
        with_real!(self.0.dtype, F => self.0.store::<F>(&mut state, flat.to_vec1::<F>()?))
    }

    /// Takes the value from a buffer at a byte offset; see `assign_buffer` of the boundary. Errors: `SHAPE` when the
    /// buffer is too short, `DTYPE` for other element types.
    pub fn assign_buffer(&self, dtype: i32, buffer: &Buffer, offset: usize) -> Result<()> {
        let size = match dtype {
            ET_DTYPE_F32 => 4,
            ET_DTYPE_F64 => 8,
            ET_DTYPE_F16 | ET_DTYPE_BF16 => 2,
            other => fail!(
                ET_ERR_DTYPE,
                "parameter {:?} takes values of type F32, F64, F16 or BF16, found {other}",
                self.0.name
            ),
        };
        let len = self.0.len();
        let all = buffer.bytes();
        let end = len.checked_mul(size).and_then(|bytes| offset.checked_add(bytes));
        let Some(bytes) = end.and_then(|end| all.get(offset..end)) else {
            fail!(
                ET_ERR_SHAPE,
                "parameter {:?} of shape {:?} needs {len} * {size} bytes from byte {offset}, but the buffer has {}",
                self.0.name,
                self.0.shape,
                all.len()
            );
        };
        let mut state = lock(&self.0.state);
        let ptr = bytes.as_ptr().cast::<f32>();
        let native = cfg!(target_endian = "little") && dtype == ET_DTYPE_F32;
        if native
            && self.0.dtype == DType::F32
            && ptr.is_aligned()
            && len > 0
            && state.slot().is_none()
        {
            // SAFETY: `bytes` are `len` aligned f32 of a buffer that never changes and that the owner keeps in place;
            // mapped values are never written through (`store` replaces them, `seal` copies them).
            let mapped = unsafe { storage::map_f32(ptr, len, &self.0.shape, buffer.owner()) }?;
            state.value = Value::Mapped(mapped);
            self.0.packs.invalidate();
            return Ok(());
        }
        with_real!(self.0.dtype, F => {
            let values = convert::<F>(dtype, bytes);
            self.0.store::<F>(&mut state, values)
        })
    }

    /// True if optimizers change the parameter.
    pub fn is_trainable(&self) -> bool {
        self.0.trainable.load(Ordering::Acquire)
    }

    /// Freezes or unfreezes. Errors: `FAILED_PRECONDITION` when it was frozen at `seal` or has a low-rank update.
    pub fn set_trainable(&self, trainable: bool) -> Result<()> {
        let state = lock(&self.0.state);
        if trainable && state.low_rank.is_some() {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "parameter {:?} has a low-rank update, its own value stays frozen",
                self.0.name
            );
        }
        if trainable && state.sealed && state.slot().is_none() {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "parameter {:?} was frozen when its set was sealed; unfreeze before params_seal",
                self.0.name
            );
        }
        if !trainable && let Some((arena, index)) = state.slot() {
            arena.forget(index);
        }
        self.0.trainable.store(trainable, Ordering::Release);
        Ok(())
    }

    /// Factor on the learning rate.
    pub fn lr_scale(&self) -> f64 {
        f64::from_bits(self.0.lr_scale.load(Ordering::Acquire))
    }

    /// Sets the factor on the learning rate. Errors: `INVALID_ARGUMENT` unless it is finite and not negative.
    pub fn set_lr_scale(&self, scale: f64) -> Result<()> {
        if !(scale >= 0.0 && scale.is_finite()) {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "the learning rate factor of parameter {:?} must be finite and not negative, found {scale}",
                self.0.name
            );
        }
        self.0.lr_scale.store(scale.to_bits(), Ordering::Release);
        Ok(())
    }

    /// True if weight decay applies.
    pub fn has_decay(&self) -> bool {
        self.0.decay.load(Ordering::Acquire)
    }

    /// Switches weight decay.
    pub fn set_decay(&self, decay: bool) {
        self.0.decay.store(decay, Ordering::Release);
    }

    /// Adds a low-rank update W + scale * B A for W [o, i], A [r, i], B [o, r], and freezes W. Errors: `SHAPE`,
    /// `INVALID_ARGUMENT`, `FAILED_PRECONDITION` after `seal`.
    pub fn set_low_rank(&self, a: &Param, b: &Param, scale: f64) -> Result<()> {
        let fits = match (self.shape(), a.shape(), b.shape()) {
            ([o, i], [r, a_in], [b_out, b_in]) => i == a_in && o == b_out && r == b_in,
            _ => false,
        };
        if !fits {
            fail!(
                ET_ERR_SHAPE,
                "a low-rank update of parameter {:?} {:?} needs A [r, i] and B [o, r], found {:?} and {:?}",
                self.0.name,
                self.shape(),
                a.shape(),
                b.shape()
            );
        }
        if a.dtype() != self.dtype() || b.dtype() != self.dtype() {
            fail!(ET_ERR_DTYPE, "the factors of parameter {:?} must have its type", self.0.name);
        }
        let has_update = |p: &Param| lock(&p.0.state).low_rank.is_some();
        // Factors without updates of their own cannot form a circle.
        if self.is_same(a)
            || self.is_same(b)
            || has_update(a)
            || has_update(b)
            || !scale.is_finite()
        {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "the factors of parameter {:?} must be other parameters without updates, and the scale finite",
                self.0.name
            );
        }
        let mut state = lock(&self.0.state);
        if state.sealed {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "parameter {:?}: add low-rank updates before params_seal",
                self.0.name
            );
        }
        state.low_rank = Some(LowRank { a: a.clone(), b: b.clone(), scale });
        self.0.trainable.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes the value into `slot`, its future place in the arena.
    pub(crate) fn copy_into<F: Real>(&self, slot: &mut [F]) -> Result<()> {
        let state = lock(&self.0.state);
        match &state.value {
            Value::Init => {
                init::fill(&self.0.init, self.0.seed, &self.0.name, &self.0.shape, slot);
                Ok(())
            }
            Value::Own(raw) | Value::Arena { view: raw, .. } => {
                storage::with::<F, _>(raw, |values| slot.copy_from_slice(values))
            }
            Value::Mapped(mapped) => {
                storage::with::<F, _>(mapped.tensor(), |values| slot.copy_from_slice(values))
            }
        }
    }

    /// Marks the parameter as sealed; its value now lies in `slot` if there is one.
    pub(crate) fn seal(&self, slot: Option<(Arc<Arena>, usize)>) -> Result<()> {
        let mut state = lock(&self.0.state);
        state.sealed = true;
        if let Some((arena, index)) = slot {
            let view = arena.view(&arena.values, index, &self.0.shape)?;
            self.0.packs.moved(arena.clone(), index);
            state.value = Value::Arena { arena, index, view };
        }
        Ok(())
    }

    /// Sets the value from `F`s in little-endian order. A mapped value that is equal stays mapped.
    pub(crate) fn restore<F: Real>(&self, bytes: &[u8]) -> Result<()> {
        let dtype = if self.0.dtype == DType::F64 { ET_DTYPE_F64 } else { ET_DTYPE_F32 };
        let values = convert::<F>(dtype, bytes);
        let mut state = lock(&self.0.state);
        if let Value::Mapped(mapped) = &state.value {
            let bits = |x: &F| x.to_f64().to_bits();
            let same = storage::with::<F, _>(mapped.tensor(), |old| {
                old.iter().zip(&values).all(|(old, new)| bits(old) == bits(new))
            })?;
            if same {
                return Ok(());
            }
        }
        self.0.store(&mut state, values)
    }
}

/// Little-endian elements of `dtype` as `F`; `bytes` holds a whole number of them.
fn convert<F: Real>(dtype: i32, bytes: &[u8]) -> Vec<F> {
    /// The chunks have exactly `N` bytes.
    fn each<const N: usize, F>(bytes: &[u8], read: impl Fn([u8; N]) -> F) -> Vec<F> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    match dtype {
        ET_DTYPE_F64 => each(bytes, |b| F::from_f64(f64::from_le_bytes(b))),
        ET_DTYPE_F16 => each(bytes, |b| F::from_f32(half::f16::from_le_bytes(b).to_f32())),
        ET_DTYPE_BF16 => each(bytes, |b| F::from_f32(half::bf16::from_le_bytes(b).to_f32())),
        _ => each(bytes, |b| F::from_f32(f32::from_le_bytes(b))),
    }
}
