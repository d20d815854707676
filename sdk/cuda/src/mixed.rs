//! Mixed precision: in which type values between operations are kept, conversions, and kernels by type.
//!
//! With `bf16` and `f16` the outputs of fused operations are narrow tensors ([`Tensor::is_narrow`]): bfloat16 or half
//! precision in memory, f32 to whoever asks. Parameters, their gradients, optimizer states, losses and every sum are
//! f32. Gradients between operations are bfloat16 in both: its range is that of f32, so the small gradients of a mean
//! do not vanish (half precision ends at 2^-24) and no loss is scaled; backward products of `f16` therefore read
//! bfloat16 copies of weights and inputs.

use candle_core::{DType, Tensor as Raw};

use super::device::{Precision, engine};
use super::launch::{Launch, Module::Half};
use super::memory::empty;
use easytransfer_core::error::{Result, fail};
use easytransfer_core::nn::dense;
use easytransfer_core::storage::Value;
use easytransfer_core::tensor::Tensor;

/// The type of gradients between operations that are narrow.
pub(super) const GRADIENTS: DType = DType::BF16;

/// The type in which values between operations are kept.
pub(super) fn kept_type() -> Result<DType> {
    Ok(match engine()?.precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
    })
}

/// True for what is kept in fewer bits than it means.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// The type of gradients of an operation whose values are kept in `dtype`.
pub(super) fn gradient_type(dtype: DType) -> DType {
    if is_half(dtype) { GRADIENTS } else { dtype }
}

/// One of the names of a kernel for values of f32, bf16 and f16.
pub(super) fn named(dtype: DType, names: [&'static str; 3]) -> &'static str {
    match dtype {
        DType::BF16 => names[1],
        DType::F16 => names[2],
        _ => names[0],
    }
}

/// A contiguous tensor on the card in another type of f32, bf16 and f16; itself if it has that type.
pub(super) fn convert(x: &Raw, to: DType) -> Result<Value> {
    if x.dtype() == to {
        return Ok(Value::new(x.clone()));
    }
    let y = empty(to, x.shape())?;
    convert_into(x, &y)?;
    Ok(y)
}

/// [`convert`] into memory that is there: contiguous, of as many elements and of another type.
pub(super) fn convert_into(x: &Raw, y: &Raw) -> Result<()> {
    let name = match (x.dtype(), y.dtype()) {
        (DType::F32, DType::BF16) => "et_convert_f32_bf16",
        (DType::F32, DType::F16) => "et_convert_f32_f16",
        (DType::BF16, DType::F32) => "et_convert_bf16_f32",
        (DType::F16, DType::F32) => "et_convert_f16_f32",
        (DType::BF16, DType::F16) => "et_convert_bf16_f16",
        (DType::F16, DType::BF16) => "et_convert_f16_bf16",
        (from, to) => {
            fail!(ET_ERR_DTYPE, "no conversion of {} to {} on the card", from.as_str(), to.as_str())
        }
    };
    let n = x.elem_count();
    // SAFETY: both have n elements of the kernel's types.
    unsafe { Launch::new(Half, name).elements(n.div_ceil(4)).u64(n).tensor(x).tensor(y).run() }
}

/// The elements of a tensor of f32 in `dtype`, contiguous: as they are kept where that is it.
pub(super) fn elements(x: &Tensor, dtype: DType) -> Result<Value> {
    gradient(x.stored(), dtype)
}

/// A gradient in `dtype`, contiguous.
pub(super) fn gradient(grad: &Raw, dtype: DType) -> Result<Value> {
    let grad = dense(grad)?;
    convert(&grad, dtype)
}

/// The type in which an operation on `x` works that makes no products: that in which `x` is kept.
pub(super) fn type_of(x: &Tensor) -> DType {
    x.stored().dtype()
}
