//! Memory of tensors: reading and writing it as slices, using it again, and mapping it from files.
//!
//! Candle keeps the elements of a tensor in a `Vec` behind a lock that all views of the tensor share. Fresh pages for
//! every temporary cost more than the arithmetic of a training step, so [`Value`] gives the `Vec` of a tensor that
//! nobody else holds to a bounded pool, and [`take`] serves the outputs of fused operations from there.

use std::any::Any;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Shape, Storage, StorageRef};

use crate::device::{self, Device};
use crate::error::{Error, Result, fail};
use crate::kernels::Float;

pub use crate::pool::{keep_pages, limit_pool, pool_bytes, take_f32, trim_pool};

/// An element type that tensors can have.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// Its name in candle.
    const DTYPE: DType;
    /// The elements of a storage of this type.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// The vector of a storage of this type.
    fn vec_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>>;
    /// A storage made of a vector.
    fn wrap(data: Vec<Self>) -> CpuStorage;
    /// A vector of `len` elements with arbitrary values, from the pool where there is one for this type.
    fn take(len: usize) -> Vec<Self> {
        vec![Self::default(); len]
    }
}

macro_rules! element {
    ($type:ty, $variant:ident $(, $take:item)?) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                match storage {
                    CpuStorage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn vec_mut(storage: &mut CpuStorage) -> Option<&mut Vec<Self>> {
                match storage {
                    CpuStorage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn wrap(data: Vec<Self>) -> CpuStorage {
                CpuStorage::$variant(data)
            }
            $($take)?
        }
    };
}
element!(u8, U8);
element!(u32, U32);
element!(i64, I64);
element!(half::bf16, BF16);
element!(half::f16, F16);
element!(
    f32,
    F32,
    fn take(len: usize) -> Vec<Self> {
        take_f32(len)
    }
);
element!(f64, F64);

/// An element type for which the kernels exist: `f32` or `f64`.
pub trait Real: Element + Float {
    /// Appends the values in little-endian order.
    fn extend_bytes(values: &[Self], bytes: &mut Vec<u8>);
}

macro_rules! real {
    ($type:ty) => {
        impl Real for $type {
            fn extend_bytes(values: &[Self], bytes: &mut Vec<u8>) {
                // Whole blocks, because bytes that are appended one by one cost more than the disk.
                let mut block = [[0u8; size_of::<$type>()]; 1024];
                for values in values.chunks(block.len()) {
                    block.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
                    bytes.extend_from_slice(block[..values.len()].as_flattened());
                }
            }
        }
    };
}
real!(f32);
real!(f64);

/// A vector of `len` elements with arbitrary values, for an output that will be written as a whole.
pub fn take<T: Element>(len: usize) -> Vec<T> {
    T::take(len)
}

/// A tensor made of a vector, where its type belongs. Errors: `SHAPE` when `data` does not fill `shape`.
pub fn tensor_from_vec<T: Element>(
    data: Vec<T>,
    shape: impl Into<Shape>,
) -> Result<candle_core::Tensor> {
    let shape = shape.into();
    if data.len() != shape.elem_count() {
        fail!(ET_ERR_SHAPE, "{} values do not fill the shape {:?}", data.len(), shape.dims());
    }
    let storage = Storage::Cpu(T::wrap(data));
    device::at_home(candle_core::Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}

/// The f32 of elements that are kept in fewer bits.
pub(crate) fn widen(half: &candle_core::Tensor) -> Result<candle_core::Tensor> {
    Ok(half.to_dtype(DType::F32)?)
}

/// The elements of a contiguous CPU tensor, locked for reading as long as this lives.
pub struct Slice<'a, T> {
    guard: StorageRef<'a>,
    range: Range<usize>,
    /// The elements, copied from a device.
    copy: Option<Vec<T>>,
}

impl<'a, T: Element> Slice<'a, T> {
    /// Some elements of a storage in host memory. Errors: as for [`read`].
    fn of(guard: StorageRef<'a>, range: Range<usize>) -> Result<Self> {
        match &*guard {
            Storage::Cpu(storage) => match T::slice(storage) {
                // A storage that was emptied by `Value` is never reachable, but a slice of it must fail and not panic.
                Some(data) if range.end <= data.len() => {}
                Some(_) => fail!(ET_ERR_FAILED_PRECONDITION, "the memory of this tensor is gone"),
                None => return Err(wrong_dtype::<T>(storage_dtype(storage))),
            },
            _ => return Err(not_cpu()),
        }
        Ok(Self { guard, range, copy: None })
    }
}

impl<T: Element> Deref for Slice<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        if let Some(copy) = &self.copy {
            return copy;
        }
        match &*self.guard {
            // `read` has checked type and range, and the lock keeps both.
            Storage::Cpu(storage) => {
                T::slice(storage).map_or(&[], |data| &data[self.range.clone()])
            }
            _ => &[],
        }
    }
}

fn range_of(layout: &Layout) -> Result<Range<usize>> {
    if layout.shape().elem_count() == 0 {
        // A part of nothing may begin behind the end of the memory that it shares.
        return Ok(0..0);
    }
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => fail!(
            ET_ERR_INVALID_ARGUMENT,
            "a tensor of shape {:?} and strides {:?} is not contiguous",
            layout.dims(),
            layout.stride()
        ),
    }
}

fn wrong_dtype<T: Element>(found: DType) -> Error {
    Error::new(
        easytransfer_abi::ET_ERR_DTYPE,
        format!("expected elements of type {}, found {}", T::DTYPE.as_str(), found.as_str()),
    )
}

fn not_cpu() -> Error {
    Error::new(easytransfer_abi::ET_ERR_UNIMPLEMENTED, "this operation works on CPU tensors only")
}

/// Reads a contiguous tensor: without copying in host memory, as a copy from a device. Errors: `DTYPE`,
/// `INVALID_ARGUMENT` when not contiguous.
#[track_caller]
pub fn read<T: Element>(tensor: &candle_core::Tensor) -> Result<Slice<'_, T>> {
    if let Some(device) = device::of(tensor) {
        return read_device(device, tensor);
    }
    let (guard, layout) = tensor.storage_and_layout();
    let range = range_of(layout)?;
    Slice::of(guard, range)
}

/// A copy of a device's tensor, for operations that have no kernel there.
#[cold]
#[track_caller]
fn read_device<'a, T: Element>(
    device: &dyn Device,
    tensor: &'a candle_core::Tensor,
) -> Result<Slice<'a, T>> {
    device.fell_back(std::panic::Location::caller().file());
    if tensor.dtype() != T::DTYPE {
        return Err(wrong_dtype::<T>(tensor.dtype()));
    }
    range_of(tensor.layout())?;
    let copy = with::<T, _>(&device.download(tensor)?, <[T]>::to_vec)?;
    let (guard, _) = tensor.storage_and_layout();
    Ok(Slice { guard, range: 0..0, copy: Some(copy) })
}

/// As [`read`], for a matrix whose rows lie without gaps but may begin further apart than they are long, such as a
/// third of the columns of a wider matrix. Also gives the number of elements from one row to the next. `Ok(None)` for
/// other layouts.
pub fn read_rows<T: Element>(
    tensor: &candle_core::Tensor,
) -> Result<Option<(Slice<'_, T>, usize)>> {
    let (dims, stride) = (tensor.dims(), tensor.stride());
    let &[rows, cols] = dims else { return Ok(None) };
    // A copy from a device has no gaps; the caller makes the tensor contiguous first.
    if !device::is_host(tensor) {
        return Ok(None);
    }
    if rows == 0 || cols == 0 || (cols > 1 && stride[1] != 1) || (rows > 1 && stride[0] < cols) {
        return Ok(None);
    }
    let (guard, layout) = tensor.storage_and_layout();
    let step = if rows > 1 { stride[0] } else { cols };
    let start = layout.start_offset();
    let range = start..start + (rows - 1) * step + cols;
    Ok(Some((Slice::of(guard, range)?, step)))
}

/// As [`read`], for any strides: the elements from the first of the tensor to the last in memory, its gaps included.
pub fn read_span<T: Element>(tensor: &candle_core::Tensor) -> Result<Slice<'_, T>> {
    let (guard, layout) = tensor.storage_and_layout();
    let start = layout.start_offset();
    let last: usize = layout
        .dims()
        .iter()
        .zip(layout.stride())
        .map(|(&len, &step)| len.saturating_sub(1) * step)
        .sum();
    let len = if layout.shape().elem_count() == 0 { 0 } else { last + 1 };
    let range = start..start + len;
    Slice::of(guard, range)
}

fn storage_dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// Calls `f` with the elements of a contiguous CPU tensor. Errors as for [`read`].
#[track_caller]
pub fn with<T: Element, R>(tensor: &candle_core::Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    Ok(f(&read::<T>(tensor)?))
}

/// [`with`] for `f32`.
pub fn with_f32<R>(tensor: &candle_core::Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    with(tensor, f)
}

/// [`with`] for `f64`.
pub fn with_f64<R>(tensor: &candle_core::Tensor, f: impl FnOnce(&[f64]) -> R) -> Result<R> {
    with(tensor, f)
}

/// [`with`] for `i64`.
pub fn with_i64<R>(tensor: &candle_core::Tensor, f: impl FnOnce(&[i64]) -> R) -> Result<R> {
    with(tensor, f)
}

struct Visit<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut CpuStorage, &Layout)> InplaceOp1 for Visit<F> {
    fn name(&self) -> &'static str {
        "visit"
    }
    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        if let Some(visit) = self.0.borrow_mut().take() {
            visit(storage, layout);
        }
        Ok(())
    }
}

fn visit<R>(
    tensor: &candle_core::Tensor,
    f: impl FnOnce(&mut CpuStorage, &Layout) -> Result<R>,
) -> Result<R> {
    if !device::is_host(tensor) {
        return Err(not_cpu());
    }
    let mut result = None;
    tensor.inplace_op1(&Visit(RefCell::new(Some(
        |storage: &mut CpuStorage, layout: &Layout| result = Some(f(storage, layout)),
    ))))?;
    result.unwrap_or_else(|| Err(not_cpu()))
}

/// Calls `f` with the elements of a contiguous tensor for writing: in host memory, or between two copies. All tensors
/// that share the memory see the change; `f` must not touch any of them (their lock is held). Errors as for [`read`].
#[track_caller]
pub fn with_mut<T: Element, R>(
    tensor: &candle_core::Tensor,
    f: impl FnOnce(&mut [T]) -> R,
) -> Result<R> {
    let range = range_of(tensor.layout())?;
    if range.is_empty() {
        // Candle refuses to write to a layout that covers nothing.
        return if tensor.dtype() == T::DTYPE {
            Ok(f(&mut []))
        } else {
            Err(wrong_dtype::<T>(tensor.dtype()))
        };
    }
    if let Some(device) = device::of(tensor) {
        // An operation without a kernel there: changed in host memory between two copies.
        device.fell_back(std::panic::Location::caller().file());
        if tensor.dtype() != T::DTYPE {
            return Err(wrong_dtype::<T>(tensor.dtype()));
        }
        let host = device.download(tensor)?;
        let result = with_mut(&host, f)?;
        device.overwrite(tensor, &host)?;
        return Ok(result);
    }
    visit(tensor, |storage, _| {
        let dtype = storage_dtype(storage);
        match T::vec_mut(storage) {
            Some(data) if range.end <= data.len() => Ok(f(&mut data[range])),
            Some(_) => fail!(ET_ERR_FAILED_PRECONDITION, "the memory of this tensor is gone"),
            None => Err(wrong_dtype::<T>(dtype)),
        }
    })
}

/// [`with_mut`] for `f32`.
pub fn with_f32_mut<R>(tensor: &candle_core::Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    with_mut(tensor, f)
}

/// Strong count of the `Arc` whose content `content` is.
///
/// # Safety
/// `content` must be the content of a live `Arc<T>`.
unsafe fn strong_count<T>(content: &T) -> usize {
    // SAFETY: by the contract the pointer is what `Arc::as_ptr` would give; `ManuallyDrop` leaves the count as it was.
    let arc = ManuallyDrop::new(unsafe { Arc::from_raw(std::ptr::from_ref(content)) });
    Arc::strong_count(&arc)
}

/// True if no other tensor, view or clone shares the memory of `tensor`, so that it may be changed or taken.
pub fn is_unique(tensor: &candle_core::Tensor) -> bool {
    let inner: &<candle_core::Tensor as Deref>::Target = tensor;
    // SAFETY: candle 0.11.1, which the workspace pins, defines `Tensor(Arc<Tensor_>)` and derefs to that `Tensor_`. A
    // test below fails if that changes.
    if unsafe { strong_count(inner) } != 1 {
        return false;
    }
    let (guard, _) = tensor.storage_and_layout();
    let lock = StorageRef::rwlock(&guard);
    // SAFETY: in the same version `Tensor_` holds `Arc<RwLock<Storage>>`, and the guard was made by that very lock.
    unsafe { strong_count(lock) == 1 }
}

/// A candle tensor that gives its memory to the pool when it was the last to use it.
pub struct Value(ManuallyDrop<candle_core::Tensor>);

impl Value {
    /// Takes responsibility for `tensor`.
    pub fn new(tensor: candle_core::Tensor) -> Self {
        Self(ManuallyDrop::new(tensor))
    }

    /// The tensor, which is then dropped in the ordinary way.
    pub fn into_inner(self) -> candle_core::Tensor {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped and not used again, so the tensor is taken once.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Deref for Value {
    type Target = candle_core::Tensor;
    fn deref(&self) -> &candle_core::Tensor {
        &self.0
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        Self::new(candle_core::Tensor::clone(&self.0))
    }
}

impl From<candle_core::Tensor> for Value {
    fn from(tensor: candle_core::Tensor) -> Self {
        Self::new(tensor)
    }
}

impl From<Value> for candle_core::Tensor {
    fn from(value: Value) -> Self {
        value.into_inner()
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: `self.0` is not used after this.
        recycle(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}

/// Drops a tensor and gives its memory to the pool if nobody else uses it.
pub fn recycle(tensor: candle_core::Tensor) {
    if let Some(device) = device::of(&tensor) {
        return device.recycle(tensor);
    }
    if tensor.dtype() != DType::F32
        || tensor.elem_count() < crate::pool::SMALLEST
        || tensor.layout().has_internal_overlap()
        || !is_unique(&tensor)
    {
        return;
    }
    let taken = visit(&tensor, |storage, _| match storage {
        CpuStorage::F32(data) => Ok(std::mem::take(data)),
        _ => Err(not_cpu()),
    });
    if let Ok(data) = taken {
        crate::pool::give_f32(data);
    }
}

/// An f32 tensor over memory that somebody else owns, for instance a mapped file.
///
/// While this lives, `tensor` and all its views read that memory directly. When it goes while tensors still share the
/// memory, they get a copy first, so the owner is never outlived.
pub struct MappedTensor {
    tensor: candle_core::Tensor,
    // Dropped after `drop` has taken the memory out of the tensor.
    _owner: Arc<dyn Any + Send + Sync>,
}

impl MappedTensor {
    /// The tensor. Clones and views of it are allowed and need not be tracked.
    pub fn tensor(&self) -> &candle_core::Tensor {
        &self.tensor
    }
}

impl Drop for MappedTensor {
    fn drop(&mut self) {
        let shared = !is_unique(&self.tensor);
        let taken = visit(&self.tensor, |storage, _| {
            if let CpuStorage::F32(data) = storage {
                let copy = if shared { data.clone() } else { Vec::new() };
                // The vector's memory does not belong to the allocator, so it must never be freed by it.
                std::mem::forget(std::mem::replace(data, copy));
            }
            Ok(())
        });
        // `visit` fails only for overlapping layouts and other devices, and `map_f32` makes neither.
        debug_assert!(taken.is_ok());
    }
}

/// Makes a tensor of memory at `ptr`, `len` f32 long, which `owner` keeps alive. Errors: `INVALID_ARGUMENT` when
/// `ptr` is NULL or misaligned or there are no elements, `SHAPE` when `shape` does not have `len` elements.
///
/// # Safety
/// - `ptr..ptr + len` is initialised, readable, and stays so and at that place as long as `owner` lives.
/// - Nobody writes to it meanwhile, except through this tensor; and it is written through this tensor only if it is
///   writable
///   (a private mapping, for instance).
pub unsafe fn map_f32(
    ptr: *const f32,
    len: usize,
    shape: &[usize],
    owner: Arc<dyn Any + Send + Sync>,
) -> Result<MappedTensor> {
    if ptr.is_null() || !ptr.is_aligned() || len == 0 {
        fail!(ET_ERR_INVALID_ARGUMENT, "mapped memory must be aligned to 4 bytes and not empty");
    }
    if shape.iter().product::<usize>() != len {
        fail!(ET_ERR_SHAPE, "{len} mapped values do not fill the shape {shape:?}");
    }
    // SAFETY: the memory is initialised for `len` elements by the contract. The vector is never grown (candle does
    // not grow storages), and never freed: `MappedTensor` holds one reference to the storage and takes the vector out
    // with `mem::forget` before it gives that reference up; `Value` recycles only storages with a single reference.
    let data = unsafe { Vec::from_raw_parts(ptr.cast_mut(), len, len) };
    let storage = Storage::Cpu(f32::wrap(data));
    let tensor =
        candle_core::Tensor::from_storage(storage, shape.to_vec(), BackpropOp::none(), false);
    Ok(MappedTensor { tensor, _owner: owner })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(len: usize) -> candle_core::Tensor {
        tensor_from_vec(vec![1f32; len], len).unwrap()
    }

    #[test]
    fn clones_and_views_end_uniqueness() {
        let a = tensor(8);
        assert!(is_unique(&a));
        let clone = a.clone();
        assert!(!is_unique(&a));
        drop(clone);
        assert!(is_unique(&a));
        let view = a.narrow(0, 2, 3).unwrap();
        assert!(!is_unique(&a) && !is_unique(&view));
        drop(a);
        assert!(is_unique(&view));
    }

    #[test]
    fn slices_see_offsets_and_refuse_strides_and_types() {
        let a = tensor_from_vec((0..6).map(|i| i as f32).collect(), (2, 3)).unwrap();
        assert_eq!(with_f32(&a.narrow(0, 1, 1).unwrap(), <[f32]>::to_vec).unwrap(), [3., 4., 5.]);
        assert!(with_f32(&a.t().unwrap(), |_| ()).is_err());
        assert_eq!(with_f64(&a, |_| ()).unwrap_err().code, easytransfer_abi::ET_ERR_DTYPE);
        with_f32_mut(&a.narrow(0, 1, 1).unwrap(), |s| s[0] = 9.0).unwrap();
        assert_eq!(a.to_vec2::<f32>().unwrap()[1][0], 9.0);
        assert_eq!(with_f32_mut(&a.narrow(0, 1, 0).unwrap(), |s| s.len()).unwrap(), 0);
    }

    #[test]
    fn shared_memory_is_not_recycled() {
        let a = tensor(5000);
        let view = Value::new(a.narrow(0, 0, 2000).unwrap());
        drop(view);
        assert_eq!(a.sum_all().unwrap().to_scalar::<f32>().unwrap(), 5000.0);
    }

    #[test]
    fn mapped_memory_is_copied_for_survivors() {
        let owner: Arc<Vec<f32>> = Arc::new(vec![2.0; 3000]);
        // SAFETY: the owner keeps the vector alive and nobody writes to it.
        let mapped = unsafe { map_f32(owner.as_ptr(), 3000, &[3, 1000], owner.clone()) }.unwrap();
        let view = Value::new(mapped.tensor().narrow(0, 1, 2).unwrap());
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(mapped);
        assert_eq!(Arc::strong_count(&owner), 1);
        drop(owner);
        assert_eq!(view.sum_all().unwrap().to_scalar::<f32>().unwrap(), 4000.0);
        let zeros = candle_core::Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        assert!(is_unique(&zeros));
    }
}
