//! Tensors on the card: new ones, copies to and from it, addresses.

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda_backend::CudaDType;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor as Raw};
use cudarc::driver::{DevicePtr, DeviceRepr};

use super::device::{Engine, active, engine, failed};
use crate::error::{Result, fail};
use crate::storage::Element;

/// True if tensors of this type live on the card while one is open.
pub(crate) fn is_home(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16 | DType::U8)
}

/// The tensor where its type belongs.
pub(crate) fn at_home(x: Raw) -> Result<Raw> {
    let Some(engine) = active() else { return Ok(x) };
    match (is_home(x.dtype()), x.device().is_cpu()) {
        // New tensors fill their memory, so there is nothing to leave out.
        (true, true) if x.elem_count() > 0 => Ok(x.contiguous()?.to_device(&engine.device)?),
        (true, true) => empty(x.dtype(), x.shape()),
        (false, false) => to_host(&x),
        _ => Ok(x),
    }
}

/// The tensor on the device of `other`.
pub(crate) fn beside(x: &Raw, other: &Raw) -> Result<Raw> {
    match (x.device().is_cpu(), other.device().is_cpu()) {
        (true, false) => to_card(x, engine()?),
        (false, true) => to_host(x),
        _ => Ok(x.clone()),
    }
}

/// A copy on the card.
pub(crate) fn on_card(x: &Raw) -> Result<Raw> {
    if x.device().is_cpu() { to_card(x, engine()?) } else { Ok(x.clone()) }
}

fn to_card(x: &Raw, engine: &Engine) -> Result<Raw> {
    if x.elem_count() == 0 {
        return empty(x.dtype(), x.shape());
    }
    // Candle copies all memory behind a view.
    Ok(x.force_contiguous()?.to_device(&engine.device)?)
}

/// A copy in host memory; waits for the card.
pub(crate) fn to_host(x: &Raw) -> Result<Raw> {
    if x.elem_count() == 0 {
        return Ok(Raw::zeros(x.shape(), x.dtype(), &Device::Cpu)?);
    }
    Ok(x.force_contiguous()?.to_device(&Device::Cpu)?)
}

fn wrap<T: CudaDType>(
    slice: cudarc::driver::CudaSlice<T>,
    shape: impl Into<Shape>,
    engine: &Engine,
) -> Raw {
    let storage = CudaStorage::wrap_cuda_slice(slice, engine.cuda.clone());
    Raw::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// A tensor with arbitrary values.
pub(crate) fn empty(dtype: DType, shape: impl Into<Shape>) -> Result<Raw> {
    let engine = engine()?;
    let shape = shape.into();
    // An allocation of nothing is an error of the driver.
    let len = shape.elem_count().max(1);
    fn new<T: CudaDType + DeviceRepr>(len: usize, shape: Shape, engine: &Engine) -> Result<Raw> {
        // SAFETY: every user of this function writes the whole tensor before anything reads it.
        let slice = unsafe { engine.stream.alloc::<T>(len) }
            .map_err(|error| failed(&format!("allocate {shape:?}"), error))?;
        Ok(wrap(slice, shape, engine))
    }
    match dtype {
        DType::F32 => new::<f32>(len, shape, engine),
        DType::BF16 => new::<half::bf16>(len, shape, engine),
        DType::F16 => new::<half::f16>(len, shape, engine),
        DType::F64 => new::<f64>(len, shape, engine),
        DType::I64 => new::<i64>(len, shape, engine),
        DType::U32 => new::<u32>(len, shape, engine),
        DType::U8 => new::<u8>(len, shape, engine),
        other => fail!(ET_ERR_DTYPE, "no tensors of type {}", other.as_str()),
    }
}

/// [`empty`] of f32.
pub(crate) fn floats(shape: impl Into<Shape>) -> Result<Raw> {
    empty(DType::F32, shape)
}

/// A tensor of bytes with these contents: tables that kernels read. `T` is plain data.
pub(crate) fn table<T: Copy>(rows: &[T]) -> Result<Raw> {
    let engine = engine()?;
    // SAFETY: `T` is a plain `repr(C)` struct of numbers without padding at every caller; the length is that of `rows`.
    let bytes =
        unsafe { std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), size_of_val(rows)) };
    let bytes = if bytes.is_empty() { &[0u8][..] } else { bytes };
    let slice = engine
        .stream
        .clone_htod(bytes)
        .map_err(|error| failed("copy a table to the card", error))?;
    let len = bytes.len();
    Ok(wrap(slice, len, engine))
}

/// A tensor on the card made of a slice of host memory.
pub(crate) fn upload<T: Element + CudaDType + DeviceRepr>(
    data: &[T],
    shape: impl Into<Shape>,
) -> Result<Raw> {
    let engine = engine()?;
    if data.is_empty() {
        return empty(T::DTYPE, shape);
    }
    let slice =
        engine.stream.clone_htod(data).map_err(|error| failed("copy to the card", error))?;
    Ok(wrap(slice, shape, engine))
}

/// Address of the first element of a tensor on the card. It stays valid for work that is put on the stream while the tensor lives.
pub(crate) fn address(x: &Raw) -> Result<u64> {
    let engine = engine()?;
    let (guard, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*guard else {
        fail!(ET_ERR_INVALID_ARGUMENT, "expected a tensor on the card, found one in host memory");
    };
    let (base, size) = match &storage.slice {
        CudaStorageSlice::U8(slice) => (slice.device_ptr(&engine.stream).0, 1),
        CudaStorageSlice::U32(slice) => (slice.device_ptr(&engine.stream).0, 4),
        CudaStorageSlice::I64(slice) => (slice.device_ptr(&engine.stream).0, 8),
        CudaStorageSlice::BF16(slice) => (slice.device_ptr(&engine.stream).0, 2),
        CudaStorageSlice::F16(slice) => (slice.device_ptr(&engine.stream).0, 2),
        CudaStorageSlice::F32(slice) => (slice.device_ptr(&engine.stream).0, 4),
        CudaStorageSlice::F64(slice) => (slice.device_ptr(&engine.stream).0, 8),
        _ => fail!(ET_ERR_DTYPE, "no kernels for tensors of type {}", x.dtype().as_str()),
    };
    Ok(base + (layout.start_offset() * size) as u64)
}

/// The elements of a contiguous tensor in host memory; waits for the card.
pub(crate) fn download<T: Element>(x: &Raw) -> Result<Vec<T>> {
    let host = to_host(x)?;
    crate::storage::with::<T, _>(&host, <[T]>::to_vec)
}

/// Overwrites a contiguous tensor on the card.
pub(crate) fn overwrite<T: Element + CudaDType + DeviceRepr>(x: &Raw, data: &[T]) -> Result<()> {
    let engine = engine()?;
    if data.is_empty() {
        return Ok(());
    }
    if x.dtype() != T::DTYPE || x.elem_count() != data.len() || !x.is_contiguous() {
        fail!(
            ET_ERR_SHAPE,
            "{} values of type {} do not overwrite {:?} of {}",
            data.len(),
            T::DTYPE.as_str(),
            x.dims(),
            x.dtype().as_str()
        );
    }
    let address = address(x)?;
    engine.context.bind_to_thread().map_err(|error| failed("bind the device", error))?;
    // SAFETY: the address is that of `data.len()` elements of this type, and the copy is in the order of the stream.
    unsafe { cudarc::driver::result::memcpy_htod_async(address, data, engine.stream.cu_stream()) }
        .map_err(|error| failed("copy to the card", error))?;
    // The host's slice may go when this returns.
    engine.stream.synchronize().map_err(|error| failed("copy to the card", error))
}

/// Fills a contiguous tensor with zeros.
pub(crate) fn clear(x: &Raw) -> Result<()> {
    let engine = engine()?;
    let address = address(x)?;
    let bytes = x.elem_count() * x.dtype().size_in_bytes();
    if bytes == 0 {
        return Ok(());
    }
    engine.context.bind_to_thread().map_err(|error| failed("bind the device", error))?;
    // SAFETY: the address is that of `bytes` bytes, and the fill is in the order of the stream.
    unsafe { cudarc::driver::result::memset_d8_async(address, 0, bytes, engine.stream.cu_stream()) }
        .map_err(|error| failed("fill with zeros", error))
}
