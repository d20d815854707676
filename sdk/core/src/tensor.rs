//! Tensors: immutable values with a place on the tape.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor as Raw};
use easytransfer_abi as abi;

use crate::error::{Result, fail};
use crate::handle::{Handle, tag};
use crate::inference::Packs;
use crate::recompute::Recipe;
use crate::storage::Value;
use crate::tape::{Edge, Leaf};

/// An immutable value, cheap to clone. Its memory goes back to the pool with the last user.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    value: Value,
    edge: Option<Edge>,
    /// Set for leaves made by [`Tensor::leaf`].
    grad: Option<Arc<GradLeaf>>,
    /// How to compute the value again.
    recipe: Option<Recipe>,
    /// Set for the values of parameters.
    packs: Option<Arc<Packs>>,
}

impl Tensor {
    /// A constant.
    pub fn new(value: Raw) -> Self {
        Self(Arc::new(Inner {
            value: Value::new(value),
            edge: None,
            grad: None,
            recipe: None,
            packs: None,
        }))
    }

    /// A value whose gradient goes to `leaf`.
    pub fn from_leaf(value: Raw, leaf: Arc<dyn Leaf>) -> Self {
        Self::from_edge(value, Edge::Leaf(leaf))
    }

    pub(crate) fn from_edge(value: Raw, edge: Edge) -> Self {
        Self(Arc::new(Inner {
            value: Value::new(value),
            edge: Some(edge),
            grad: None,
            recipe: None,
            packs: None,
        }))
    }

    /// The same value, whose gradient goes to `edge`.
    pub(crate) fn with_edge(&self, edge: Edge) -> Self {
        Self(Arc::new(Inner {
            value: self.0.value.clone(),
            edge: Some(edge),
            grad: None,
            recipe: None,
            packs: None,
        }))
    }

    /// The same value as a new leaf that keeps its gradient; see [`Tensor::leaf_grad`].
    pub fn leaf(&self) -> Self {
        let leaf = Arc::new(GradLeaf { grad: Mutex::new(None) });
        Self(Arc::new(Inner {
            value: self.0.value.clone(),
            edge: Some(Edge::Leaf(leaf.clone())),
            grad: Some(leaf),
            recipe: None,
            packs: None,
        }))
    }

    /// The gradient of a leaf made by [`Tensor::leaf`]; `Ok(None)` when none has arrived. Errors: `INVALID_ARGUMENT` for any other
    /// tensor.
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
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.packs = Some(packs);
        }
        self
    }

    /// Where packed copies of this value are kept, if it is that of a parameter.
    pub(crate) fn packs(&self) -> Option<&Packs> {
        self.0.packs.as_deref()
    }

    /// The same value with no history.
    pub fn detach(&self) -> Self {
        Self::new(Raw::clone(&self.0.value))
    }

    /// The value.
    pub fn value(&self) -> &Raw {
        &self.0.value
    }

    /// The value, to be saved for a backward pass.
    pub fn save(&self) -> Value {
        self.0.value.clone()
    }

    /// The same tensor, which nobody else holds yet, with a way to compute its value again.
    pub(crate) fn with_recipe(mut self, recipe: Recipe) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
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
        self.0.value.dims()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.value.dtype()
    }
}

impl Handle for Tensor {
    type Abi = abi::et_tensor;
    const TAG: u32 = tag(b"ETtn");
    const NAME: &'static str = "tensor";
}

/// Keeps the sum of the gradients of a leaf.
struct GradLeaf {
    grad: Mutex<Option<Value>>,
}

impl Leaf for GradLeaf {
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
