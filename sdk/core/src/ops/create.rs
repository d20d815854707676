//! New tensors, and copies back to plain memory.

use candle_core::{DType, Device, Tensor as Raw};
use half::{bf16, f16};

use crate::device;
use crate::error::{Result, fail};
use crate::storage::{self, Element};
use crate::tensor::{Tensor, shape_len};

/// Types whose every bit pattern is a value, so that bytes may be copied in and out.
trait Plain: Element {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for i64 {}
impl Plain for bf16 {}
impl Plain for f16 {}
impl Plain for f32 {}
impl Plain for f64 {}

fn bytes_of<T: Plain>(data: &[T]) -> &[u8] {
    // SAFETY: `T` is a number without padding, so all its bytes are initialised; the length is that of `data`.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

fn from_bytes<T: Plain>(bytes: &[u8], shape: &[usize], len: usize) -> Result<Raw> {
    let mut data = storage::take::<T>(len);
    // SAFETY: `T` is a number, so any bytes make a value; the length is that of `data`, which is borrowed mutably.
    let target =
        unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), len * size_of::<T>()) };
    target.copy_from_slice(bytes);
    storage::tensor_from_vec(data, shape.to_vec())
}

/// A tensor made of row-major bytes in this machine's order. Errors: `SHAPE` when there are more or fewer than
/// `shape` needs.
pub fn from_data(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
    let len = shape_len("from_data", shape)?;
    let expected = len * dtype.size_in_bytes();
    if bytes.len() != expected {
        fail!(
            ET_ERR_SHAPE,
            "from_data: the shape {shape:?} of {} needs {expected} bytes, found {}",
            dtype.as_str(),
            bytes.len()
        );
    }
    Ok(Tensor::new(match dtype {
        DType::U8 => from_bytes::<u8>(bytes, shape, len)?,
        DType::U32 => from_bytes::<u32>(bytes, shape, len)?,
        DType::I64 => from_bytes::<i64>(bytes, shape, len)?,
        DType::BF16 => from_bytes::<bf16>(bytes, shape, len)?,
        DType::F16 => from_bytes::<f16>(bytes, shape, len)?,
        DType::F32 => from_bytes::<f32>(bytes, shape, len)?,
        DType::F64 => from_bytes::<f64>(bytes, shape, len)?,
        other => fail!(ET_ERR_DTYPE, "from_data: no tensors of type {}", other.as_str()),
    }))
}

/// Copies all elements, row-major, to `bytes`. Errors: `SHAPE` when it has another size.
pub fn read(x: &Tensor, bytes: &mut [u8]) -> Result<()> {
    let value = x.value();
    let expected = value.elem_count() * value.dtype().size_in_bytes();
    if bytes.len() != expected {
        fail!(
            ET_ERR_SHAPE,
            "read: a tensor of shape {:?} of {} has {expected} bytes, found room for {}",
            x.dims(),
            value.dtype().as_str(),
            bytes.len()
        );
    }
    let value = device::to_host(value.contiguous()?)?;
    match value.dtype() {
        DType::U8 => bytes.copy_from_slice(bytes_of::<u8>(&storage::read(&value)?)),
        DType::U32 => bytes.copy_from_slice(bytes_of::<u32>(&storage::read(&value)?)),
        DType::I64 => bytes.copy_from_slice(bytes_of::<i64>(&storage::read(&value)?)),
        DType::BF16 => bytes.copy_from_slice(bytes_of::<bf16>(&storage::read(&value)?)),
        DType::F16 => bytes.copy_from_slice(bytes_of::<f16>(&storage::read(&value)?)),
        DType::F32 => bytes.copy_from_slice(bytes_of::<f32>(&storage::read(&value)?)),
        DType::F64 => bytes.copy_from_slice(bytes_of::<f64>(&storage::read(&value)?)),
        other => fail!(ET_ERR_DTYPE, "read: no tensors of type {}", other.as_str()),
    }
    Ok(())
}

/// A tensor with `value(i)` at place `i`, row-major.
fn generate(
    dtype: DType,
    shape: &[usize],
    len: usize,
    value: impl Fn(usize) -> f64,
) -> Result<Raw> {
    let places = 0..len;
    let shape = shape.to_vec();
    match dtype {
        DType::U8 => storage::tensor_from_vec(places.map(|i| value(i) as u8).collect(), shape),
        DType::U32 => storage::tensor_from_vec(places.map(|i| value(i) as u32).collect(), shape),
        DType::I64 => storage::tensor_from_vec(places.map(|i| value(i) as i64).collect(), shape),
        DType::F64 => storage::tensor_from_vec(places.map(value).collect(), shape),
        DType::F32 => {
            let mut data = storage::take::<f32>(len);
            data.iter_mut().zip(places).for_each(|(x, i)| *x = value(i) as f32);
            storage::tensor_from_vec(data, shape)
        }
        _ => {
            let wide: Vec<f64> = places.map(value).collect();
            device::at_home(Raw::from_vec(wide, shape, &Device::Cpu)?.to_dtype(dtype)?)
        }
    }
}

fn check_range(op: &str, dtype: DType, value: f64) -> Result<()> {
    let fits = match dtype {
        DType::U8 => (0.0..=255.0).contains(&value),
        DType::U32 => (0.0..=u32::MAX as f64).contains(&value),
        DType::I64 => value.abs() < 9.3e18,
        _ => true,
    };
    if !fits {
        fail!(ET_ERR_INVALID_ARGUMENT, "{op}: {value} is no value of type {}", dtype.as_str());
    }
    Ok(())
}

/// A tensor filled with `value`. Errors: `INVALID_ARGUMENT` when an integer type does not have that value.
pub fn full(dtype: DType, shape: &[usize], value: f64) -> Result<Tensor> {
    let len = shape_len("full", shape)?;
    check_range("full", dtype, value)?;
    Ok(Tensor::new(generate(dtype, shape, len, |_| value)?))
}

/// `start, start + step, ...`, `len` values. Errors as for [`full`].
pub fn arange(dtype: DType, start: f64, step: f64, len: usize) -> Result<Tensor> {
    shape_len("arange", &[len])?;
    if len > 0 {
        check_range("arange", dtype, start)?;
        check_range("arange", dtype, start + step * (len - 1) as f64)?;
    }
    Ok(Tensor::new(generate(dtype, &[len], len, |i| start + step * i as f64)?))
}
