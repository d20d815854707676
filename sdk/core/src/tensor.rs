//! Tensors: immutable values with a place on the tape.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use crate::error::{Result, fail};
use crate::handle::{Handle, Shared, Tagged, tag};
use crate::inference::Packs;
use crate::recompute::Recipe;
use crate::storage::{self, Value};
use crate::tape::{Edge, Leaf};

/// An immutable value, cheap to clone. Its memory goes back to the pool with the last user.
///
/// A tensor of f32 may be kept in bfloat16 or half precision ([`Tensor::is_narrow`]): fused operations on a device
/// that compute in mixed precision make such tensors and read them as they are ([`Tensor::stored`]); everybody else,
/// plugins and the host included, sees f32, made on first use ([`Tensor::value`]) and kept.
#[derive(Clone)]
#[repr(transparent)]
pub struct Tensor(Shared<Inner>);

/// Where the elements of a value are.
#[derive(Clone)]
enum Memory {
    /// In the tensor's own type.
    Plain(Value),
    /// Elements of f32 kept in fewer bits, and their f32 once somebody wanted it.
    Narrow { half: Value, wide: OnceLock<Value> },
}

impl Memory {
    fn stored(&self) -> &Value {
        match self {
            Self::Plain(value) | Self::Narrow { half: value, .. } => value,
        }
    }

    /// The f32 of elements that are kept in fewer bits. Errors: no memory.
    fn widened(half: &Value, wide: &OnceLock<Value>) -> Result<()> {
        if wide.get().is_none() {
            // Another thread may have been faster; both have the same elements.
            let _ = wide.set(Value::new(storage::widen(half)?));
        }
        Ok(())
    }
}

struct Inner {
    memory: Memory,
    edge: Option<Edge>,
    /// Set for leaves made by [`Tensor::leaf`].
    grad: Option<Arc<GradLeaf>>,
    /// How to compute the value again.
    recipe: Option<Recipe>,
    /// Set where the memory is that of a parameter.
    packs: Option<Arc<Packs>>,
    /// The value is not the parameter's itself but made of it without copying: in another layout, without a history.
    is_view: bool,
}

impl Tensor {
    /// A constant.
    pub fn new(value: Raw) -> Self {
        Self::made(Memory::Plain(Value::new(value)), None)
    }

    fn made(memory: Memory, edge: Option<Edge>) -> Self {
        Self(Shared::new::<Self>(Inner {
            memory,
            edge,
            grad: None,
            recipe: None,
            packs: None,
            is_view: false,
        }))
    }

    /// A tensor of f32 whose elements are kept as they are in `half`, of type bf16 or f16; in any other type,
    /// [`Tensor::new`] of it.
    pub fn narrow(half: Raw) -> Self {
        Self::kept(half, None)
    }

    pub(crate) fn kept(value: Raw, edge: Option<Edge>) -> Self {
        let memory = match value.dtype() {
            DType::BF16 | DType::F16 => {
                Memory::Narrow { half: Value::new(value), wide: OnceLock::new() }
            }
            _ => Memory::Plain(Value::new(value)),
        };
        Self::made(memory, edge)
    }

    /// A value whose gradient goes to `leaf`.
    pub fn from_leaf(value: Raw, leaf: Arc<dyn Leaf>) -> Self {
        Self::from_edge(value, Edge::Leaf(leaf))
    }

    pub(crate) fn from_edge(value: Raw, edge: Edge) -> Self {
        Self::made(Memory::Plain(Value::new(value)), Some(edge))
    }

    /// The same value, whose gradient goes to `edge`.
    pub(crate) fn with_edge(&self, edge: Edge) -> Self {
        Self(Shared::new::<Self>(Inner {
            memory: self.0.memory.clone(),
            edge: Some(edge),
            grad: None,
            recipe: None,
            packs: self.0.packs.clone(),
            is_view: true,
        }))
    }

    /// The same value as a new leaf that keeps its gradient; see [`Tensor::leaf_grad`].
    pub fn leaf(&self) -> Self {
        let leaf = Arc::new(GradLeaf { dtype: self.dtype(), grad: Mutex::new(None) });
        Self(Shared::new::<Self>(Inner {
            memory: self.0.memory.clone(),
            edge: Some(Edge::Leaf(leaf.clone())),
            grad: Some(leaf),
            recipe: None,
            packs: self.0.packs.clone(),
            is_view: true,
        }))
    }

    /// The gradient of a leaf made by [`Tensor::leaf`]; `Ok(None)` when none has arrived. Errors: `INVALID_ARGUMENT`
    /// for any other tensor.
    pub fn leaf_grad(&self) -> Result<Option<Self>> {
        match &self.0.grad {
            Some(leaf) => {
                let grad = leaf.grad.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(grad.as_ref().map(|grad| Self::new(Raw::clone(grad))))
            }
            None => fail!(
                ET_ERR_INVALID_ARGUMENT,
                "leaf_grad: expected a tensor made by `leaf`, found another one"
            ),
        }
    }

    /// Says where packed copies of this value are kept. Nobody else has a reference to the tensor yet.
    pub(crate) fn with_packs(mut self, packs: Arc<Packs>) -> Self {
        if let Some(inner) = self.0.get_mut() {
            inner.packs = Some(packs);
        }
        self
    }

    /// Where packed copies of this value are kept, if it is that of a parameter.
    pub fn packs(&self) -> Option<&Arc<Packs>> {
        self.0.packs.as_ref().filter(|_| !self.0.is_view)
    }

    /// The parameter in whose memory the elements lie.
    pub(crate) fn source(&self) -> Option<&Arc<Packs>> {
        self.0.packs.as_ref()
    }

    /// Says that the elements lie in the memory of those of `x`. Nobody else has a reference to the tensor yet.
    pub(crate) fn view_of(mut self, x: &Tensor) -> Self {
        if let Some(packs) = x.source()
            && let Some(inner) = self.0.get_mut()
        {
            inner.packs = Some(packs.clone());
            inner.is_view = true;
        }
        self
    }

    /// The same value with no history.
    pub fn detach(&self) -> Self {
        Self::made(self.0.memory.clone(), None).view_of(self)
    }

    /// The value in the tensor's type.
    ///
    /// # Panics
    /// When the tensor is narrow, [`Tensor::widen`] was not called and there is no memory for its f32.
    pub fn value(&self) -> &Raw {
        self.wide_value()
    }

    fn wide_value(&self) -> &Value {
        match &self.0.memory {
            Memory::Plain(value) => value,
            Memory::Narrow { half, wide } => {
                if let Err(error) = Memory::widened(half, wide) {
                    panic!("{}", error.message);
                }
                // It was just made.
                wide.get().unwrap_or(half)
            }
        }
    }

    /// Sees to it that [`Tensor::value`] has nothing left to do. Errors: no memory.
    pub fn widen(&self) -> Result<()> {
        match &self.0.memory {
            Memory::Plain(_) => Ok(()),
            Memory::Narrow { half, wide } => Memory::widened(half, wide),
        }
    }

    /// The elements as they are kept: of the tensor's type, or of bf16 or f16 when the tensor is narrow.
    pub fn stored(&self) -> &Raw {
        self.0.memory.stored()
    }

    /// True if the elements of this tensor of f32 are kept in bf16 or f16.
    pub fn is_narrow(&self) -> bool {
        matches!(self.0.memory, Memory::Narrow { .. })
    }

    /// The value, to be saved for a backward pass.
    pub fn save(&self) -> Value {
        self.wide_value().clone()
    }

    /// The same tensor, which nobody else holds yet, with a way to compute its value again.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        if let Some(inner) = self.0.get_mut() {
            inner.recipe = Some(recipe);
        }
        self
    }

    /// How to compute the value again, if that is cheap and wanted.
    pub(crate) fn recipe(&self) -> Option<&Recipe> {
        self.0.recipe.as_ref()
    }

    /// True if a gradient can flow into this tensor.
    pub fn is_tracked(&self) -> bool {
        self.0.edge.is_some()
    }

    /// Where the gradient goes.
    pub fn edge(&self) -> Option<&Edge> {
        self.0.edge.as_ref()
    }

    /// Extents.
    pub fn dims(&self) -> &[usize] {
        self.stored().dims()
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.stored().elem_count()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        if self.is_narrow() { DType::F32 } else { self.stored().dtype() }
    }
}

impl Handle for Tensor {
    type Abi = abi::et_tensor;
    const TAG: u32 = tag(b"ETtn");
    const NAME: &'static str = "tensor";

    #[inline(always)]
    fn into_block(self) -> *mut Tagged<Self> {
        self.0.into_block()
    }

    #[inline(always)]
    unsafe fn release_block(tagged: *mut Tagged<Self>) {
        // SAFETY: the caller's contract, and `into_block` above.
        drop(Self(unsafe { Shared::from_block(tagged) }));
    }
}

/// Keeps the sum of the gradients of a leaf.
struct GradLeaf {
    dtype: DType,
    grad: Mutex<Option<Value>>,
}

impl Leaf for GradLeaf {
    fn dtype(&self) -> Option<DType> {
        Some(self.dtype)
    }

    fn accumulate(&self, grad: &Raw) -> Result<()> {
        let mut slot = self.grad.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(match slot.take() {
            None => Value::new(grad.clone()),
            Some(sum) => crate::tape::add(sum, Value::new(grad.clone()))?,
        });
        Ok(())
    }

    fn accumulate_f32(&self, _f: &mut dyn FnMut(&mut [f32], bool)) -> Result<bool> {
        Ok(false)
    }
}

/// The boundary's constant for an element type.
pub fn dtype_code(dtype: DType) -> Result<i32> {
    Ok(match dtype {
        DType::U8 => abi::ET_DTYPE_U8,
        DType::U32 => abi::ET_DTYPE_U32,
        DType::I64 => abi::ET_DTYPE_I64,
        DType::BF16 => abi::ET_DTYPE_BF16,
        DType::F16 => abi::ET_DTYPE_F16,
        DType::F32 => abi::ET_DTYPE_F32,
        DType::F64 => abi::ET_DTYPE_F64,
        other => {
            fail!(ET_ERR_DTYPE, "elements of type {} do not cross the boundary", other.as_str())
        }
    })
}

/// The element type of a boundary's constant. Errors: `DTYPE`.
pub fn dtype_from_code(code: i32) -> Result<DType> {
    Ok(match code {
        abi::ET_DTYPE_U8 => DType::U8,
        abi::ET_DTYPE_U32 => DType::U32,
        abi::ET_DTYPE_I64 => DType::I64,
        abi::ET_DTYPE_BF16 => DType::BF16,
        abi::ET_DTYPE_F16 => DType::F16,
        abi::ET_DTYPE_F32 => DType::F32,
        abi::ET_DTYPE_F64 => DType::F64,
        other => fail!(ET_ERR_DTYPE, "{other} is no element type, expected an ET_DTYPE_ constant"),
    })
}

/// Axis `axis`, counted from the end when negative. Errors: `INVALID_ARGUMENT`.
pub fn axis_of(op: &str, axis: i64, rank: usize) -> Result<usize> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    if index < 0 || index >= rank as i64 {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{op}: axis {axis} does not exist in a tensor of {rank} axes"
        );
    }
    Ok(index as usize)
}

/// Number of elements of a shape. Errors: `INVALID_ARGUMENT` when it does not fit the address space.
pub fn shape_len(op: &str, shape: &[usize]) -> Result<usize> {
    let len = if shape.contains(&0) {
        Some(0)
    } else {
        shape.iter().try_fold(1usize, |len, &extent| len.checked_mul(extent))
    };
    match len {
        Some(len) if len <= isize::MAX as usize / 8 => Ok(len),
        _ => fail!(ET_ERR_INVALID_ARGUMENT, "{op}: the shape {shape:?} is too large"),
    }
}
