//! Tensors on the card: new ones, copies to and from it, addresses. Copies to it go through [`super::staging`] and
//! wait for nothing.

use candle_core::cuda::CudaStorageSlice;
use candle_core::cuda_backend::CudaDType;
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor as Raw};
use cudarc::driver::{DevicePtr, DeviceRepr};

use super::device::{Engine, engine, failed, waits};
use super::{ahead, held, reuse};
use easytransfer_core::error::{Result, fail};
use easytransfer_core::storage::{self, Element, Value};
use easytransfer_core::sync::lock;

/// A copy on the card.
pub(crate) fn on_card(x: &Raw) -> Result<Raw> {
    if x.device().is_cpu() { to_card(x, engine()?) } else { Ok(x.clone()) }
}

/// [`on_card`] for a tensor in host memory.
pub(crate) fn to_card(x: &Raw, engine: &Engine) -> Result<Raw> {
    if x.elem_count() == 0 {
        return Ok(empty(x.dtype(), x.shape())?.into_inner());
    }
    fn staged<T: Element + CudaDType + DeviceRepr>(x: &Raw) -> Result<Raw> {
        Ok(upload(&storage::read::<T>(&x.contiguous()?)?, x.shape())?.into_inner())
    }
    match x.dtype() {
        DType::F32 => staged::<f32>(x),
        DType::BF16 => staged::<half::bf16>(x),
        DType::F16 => staged::<half::f16>(x),
        DType::F64 => staged::<f64>(x),
        DType::I64 => staged::<i64>(x),
        DType::U32 => staged::<u32>(x),
        DType::U8 => staged::<u8>(x),
        // Candle copies all memory behind a view.
        _ => Ok(x.force_contiguous()?.to_device(&engine.device)?),
    }
}

/// A copy in host memory; waits for the card.
pub(crate) fn to_host(x: &Raw) -> Result<Raw> {
    if x.elem_count() == 0 {
        return Ok(Raw::zeros(x.shape(), x.dtype(), &Device::Cpu)?);
    }
    waits("copies to the host");
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
pub(crate) fn empty(dtype: DType, shape: impl Into<Shape>) -> Result<Value> {
    let engine = engine()?;
    let shape = shape.into();
    let len = shape.elem_count();
    fn new<T: CudaDType + DeviceRepr>(len: usize, shape: Shape, engine: &Engine) -> Result<Value> {
        // Every user of this function writes the whole tensor before anything reads it.
        let slice = match reuse::take::<T>(engine, len) {
            Err(error) if held::is_out_of_memory(&error) => {
                held::trim()?;
                reuse::take::<T>(engine, len)
            }
            result => result,
        };
        let slice = slice.map_err(|error| {
            let bytes = len.saturating_mul(size_of::<T>());
            failed(&format!("allocate {} MiB for {shape:?}", bytes.div_ceil(1 << 20)), error)
        })?;
        Ok(Value::new(wrap(slice, shape, engine)))
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
pub(crate) fn floats(shape: impl Into<Shape>) -> Result<Value> {
    empty(DType::F32, shape)
}

/// A tensor of bytes with these contents: tables that kernels read. `T` is plain data.
pub(crate) fn table<T: Copy>(rows: &[T]) -> Result<Value> {
    let table = empty(DType::U8, size_of_val(rows))?;
    // SAFETY: `T` is a plain `repr(C)` struct of numbers without padding at every caller; the table has as many bytes.
    unsafe { fill(&table, rows) }?;
    Ok(table)
}

/// Copies values to the first element of a tensor and on, in the order of the stream; the values may go when this
/// returns.
///
/// # Safety
/// `T` is plain data without padding, and the tensor is contiguous with at least that many bytes.
unsafe fn fill<T: Copy>(x: &Raw, values: &[T]) -> Result<()> {
    let engine = engine()?;
    // SAFETY: plain data by the contract; the length is that of the values.
    let bytes =
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
    // SAFETY: the tensor's memory is freed in the order of the same stream.
    unsafe { lock(&engine.staging).copy(bytes, address(x)?) }
}

/// A tensor on the card made of a slice of host memory.
pub(crate) fn upload<T: Element + CudaDType + DeviceRepr>(
    data: &[T],
    shape: impl Into<Shape>,
) -> Result<Value> {
    let shape = shape.into();
    if let Some(copy) = ahead::find(engine()?, data)? {
        return Ok(Value::new(copy.reshape(shape)?));
    }
    if data.len() != shape.elem_count() {
        fail!(ET_ERR_SHAPE, "{} values do not fill the shape {:?}", data.len(), shape.dims());
    }
    let x = empty(T::DTYPE, shape)?;
    // SAFETY: elements are numbers, and x has as many.
    unsafe { fill(&x, data) }?;
    Ok(x)
}

/// Address of the first element of a tensor on the card. It stays valid for work that is put on the stream while the
/// tensor lives.
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
    easytransfer_core::storage::with::<T, _>(&host, <[T]>::to_vec)
}

/// Overwrites a contiguous tensor on the card with the elements of one in host memory.
pub(crate) fn overwrite(x: &Raw, host: &Raw) -> Result<()> {
    if host.elem_count() == 0 {
        return Ok(());
    }
    if x.dtype() != host.dtype() || x.elem_count() != host.elem_count() || !x.is_contiguous() {
        fail!(
            ET_ERR_SHAPE,
            "{} values of type {} do not overwrite {:?} of {}",
            host.elem_count(),
            host.dtype().as_str(),
            x.dims(),
            x.dtype().as_str()
        );
    }
    fn filled<T: Element>(x: &Raw, host: &Raw) -> Result<()> {
        let data = storage::read::<T>(host)?;
        // SAFETY: elements are numbers; that x has as many and is contiguous was checked.
        unsafe { fill(x, &data) }
    }
    match x.dtype() {
        DType::F32 => filled::<f32>(x, host),
        DType::BF16 => filled::<half::bf16>(x, host),
        DType::F16 => filled::<half::f16>(x, host),
        DType::F64 => filled::<f64>(x, host),
        DType::I64 => filled::<i64>(x, host),
        DType::U32 => filled::<u32>(x, host),
        DType::U8 => filled::<u8>(x, host),
        other => fail!(ET_ERR_DTYPE, "no tensors of type {}", other.as_str()),
    }
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
