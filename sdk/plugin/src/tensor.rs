//! Tensors: immutable values on the host's tape.

use crate::host::{ask, call, handle, never_lent_mut, tables};
use crate::{Error, Result};
use easytransfer_abi as abi;
use std::ptr::{null, null_mut};

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum DType {
    /// Unsigned 8 bit; comparisons give 0 or 1 in it.
    U8 = abi::ET_DTYPE_U8,
    /// Unsigned 32 bit.
    U32 = abi::ET_DTYPE_U32,
    /// Signed 64 bit: ids, positions, starts, labels.
    I64 = abi::ET_DTYPE_I64,
    /// bfloat16.
    Bf16 = abi::ET_DTYPE_BF16,
    /// Half precision.
    F16 = abi::ET_DTYPE_F16,
    /// Single precision, the default.
    F32 = abi::ET_DTYPE_F32,
    /// Double precision.
    F64 = abi::ET_DTYPE_F64,
}

impl DType {
    fn from_code(code: i32) -> Option<Self> {
        [Self::U8, Self::U32, Self::I64, Self::Bf16, Self::F16, Self::F32, Self::F64]
            .into_iter()
            .find(|dtype| *dtype as i32 == code)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::Bf16 | Self::F16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Rust types that are elements of tensors.
pub trait Element: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// The tensor type with these elements.
    const DTYPE: DType;
}

macro_rules! element {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty { const DTYPE: DType = DType::$dtype; }
    )*};
}
element!(u8 => U8, u32 => U32, i64 => I64, f32 => F32, f64 => F64);

handle! {
    /// An immutable value on the tape. Cloning takes another reference. Operations record themselves when an input is
    /// tracked, unless recording is paused on this thread ([`no_grad`]).
    ///
    /// Axes count from 0, negative ones from the end. Binary operations broadcast as NumPy does.
    Tensor(et_tensor) released by tensor, et_host_tensor.release
}
never_lent_mut! { Tensor(et_tensor) }

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let raw = ask!(tables().tensor, et_host_tensor.retain(self.as_raw()) or null_mut());
        // SAFETY: `retain` answers with an owned reference to a live tensor.
        match unsafe { Self::from_raw(raw) } {
            Ok(tensor) => tensor,
            Err(error) => panic!("a live tensor can be retained: {error}"),
        }
    }
}

macro_rules! produce {
    ($ty:ident . $name:ident ( $($arg:expr),* )) => {{
        let mut out = null_mut();
        call!(produce!(@table $ty), $ty.$name($($arg,)* &mut out))?;
        // SAFETY: on success the out holds an owned reference.
        unsafe { Tensor::from_raw(out) }
    }};
    (@table et_host_tensor) => { tables().tensor };
    (@table et_host_autograd) => { tables().autograd };
    (@table et_host_nn) => { tables().nn };
}
pub(crate) use produce;

macro_rules! unaries {
    ($($(#[$meta:meta])* $name:ident = $code:ident),* $(,)?) => {
        impl Tensor {$(
            $(#[$meta])*
            #[inline]
            pub fn $name(&self) -> Result<Tensor> {
                produce!(et_host_tensor.unary(abi::$code, self.as_raw()))
            }
        )*}
    };
}
unaries! {
    /// `-x`
    neg = ET_UNARY_NEG,
    /// `e^x`
    exp = ET_UNARY_EXP,
    /// Natural logarithm.
    log = ET_UNARY_LOG,
    /// Square root.
    sqrt = ET_UNARY_SQRT,
    /// `x * x`
    sqr = ET_UNARY_SQR,
    /// Absolute value.
    abs = ET_UNARY_ABS,
    /// `1 / x`
    recip = ET_UNARY_RECIP,
    /// Sine.
    sin = ET_UNARY_SIN,
    /// Cosine.
    cos = ET_UNARY_COS,
    /// Hyperbolic tangent.
    tanh = ET_UNARY_TANH,
    /// Logistic function.
    sigmoid = ET_UNARY_SIGMOID,
    /// `max(x, 0)`
    relu = ET_UNARY_RELU,
    /// Exact GELU.
    gelu = ET_UNARY_GELU,
    /// GELU by tanh.
    gelu_tanh = ET_UNARY_GELU_TANH,
    /// `x * sigmoid(x)`
    silu = ET_UNARY_SILU,
    /// Error function.
    erf = ET_UNARY_ERF,
    /// -1, 0 or 1; no gradient.
    sign = ET_UNARY_SIGN,
}

macro_rules! binaries {
    ($slot:ident: $($(#[$meta:meta])* $name:ident = $code:ident),* $(,)?) => {
        impl Tensor {$(
            $(#[$meta])*
            #[inline]
            pub fn $name(&self, other: &Tensor) -> Result<Tensor> {
                produce!(et_host_tensor.$slot(abi::$code, self.as_raw(), other.as_raw()))
            }
        )*}
    };
}
binaries! { binary:
    /// `a + b`
    add = ET_BINARY_ADD,
    /// `a - b`
    sub = ET_BINARY_SUB,
    /// `a * b`
    mul = ET_BINARY_MUL,
    /// `a / b`
    div = ET_BINARY_DIV,
    /// Elementwise larger one.
    maximum = ET_BINARY_MAXIMUM,
    /// Elementwise smaller one.
    minimum = ET_BINARY_MINIMUM,
}
binaries! { compare:
    /// `a == b` as U8.
    eq = ET_COMPARE_EQ,
    /// `a != b` as U8.
    ne = ET_COMPARE_NE,
    /// `a < b` as U8.
    lt = ET_COMPARE_LT,
    /// `a <= b` as U8.
    le = ET_COMPARE_LE,
    /// `a > b` as U8.
    gt = ET_COMPARE_GT,
    /// `a >= b` as U8.
    ge = ET_COMPARE_GE,
}

macro_rules! reductions {
    ($($(#[$meta:meta])* $name:ident = $code:ident),* $(,)?) => {
        impl Tensor {$(
            $(#[$meta])*
            #[inline]
            pub fn $name(&self, axes: &[i64], keep_axes: bool) -> Result<Tensor> {
                produce!(et_host_tensor.reduce(
                    abi::$code, self.as_raw(), axes.as_ptr(), axes.len(), i32::from(keep_axes)
                ))
            }
        )*}
    };
}
reductions! {
    /// Sum over `axes`, all axes when empty.
    sum = ET_REDUCE_SUM,
    /// Mean over `axes`, all axes when empty.
    mean = ET_REDUCE_MEAN,
    /// Maximum over `axes`, all axes when empty.
    max = ET_REDUCE_MAX,
    /// Minimum over `axes`, all axes when empty.
    min = ET_REDUCE_MIN,
}

impl Tensor {
    /// Copies `data`, row-major. Errors when its length is not the product of `shape`.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize]) -> Result<Tensor> {
        produce!(et_host_tensor.from_data(
            T::DTYPE as i32,
            shape.as_ptr(),
            shape.len(),
            data.as_ptr().cast(),
            size_of_val(data)
        ))
    }

    /// A tensor filled with one value.
    pub fn full(value: f64, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        produce!(et_host_tensor.full(dtype as i32, shape.as_ptr(), shape.len(), value))
    }

    /// Zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        Self::full(0.0, dtype, shape)
    }

    /// A single precision scalar.
    pub fn scalar(value: f32) -> Result<Tensor> {
        Self::from_slice(&[value], &[])
    }

    /// `0, 1, ..., len - 1`.
    pub fn arange(len: usize, dtype: DType) -> Result<Tensor> {
        produce!(et_host_tensor.arange(dtype as i32, 0.0, 1.0, len))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        let code = ask!(tables().tensor, et_host_tensor.dtype(self.as_raw()) or 0);
        DType::from_code(code).unwrap_or(DType::F32)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        ask!(tables().tensor, et_host_tensor.rank(self.as_raw()) or 0)
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        let shape = ask!(tables().tensor, et_host_tensor.shape(self.as_raw()) or null());
        let rank = self.rank();
        if shape.is_null() || rank == 0 {
            return &[];
        }
        // SAFETY: the host keeps `rank` extents alive as long as the tensor.
        unsafe { std::slice::from_raw_parts(shape, rank) }
    }

    /// Extent of one axis; negative axes count from the end.
    pub fn extent(&self, axis: i64) -> Result<usize> {
        let rank = self.rank() as i64;
        let index = if axis < 0 { axis + rank } else { axis };
        usize::try_from(index).ok().and_then(|i| self.shape().get(i).copied()).ok_or_else(|| {
            Error::new(
                abi::ET_ERR_SHAPE,
                format!("extent: axis {axis} of shape {:?}", self.shape()),
            )
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        ask!(tables().tensor, et_host_tensor.len(self.as_raw()) or 0)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a gradient can flow into this tensor.
    pub fn is_tracked(&self) -> bool {
        ask!(tables().tensor, et_host_tensor.is_tracked(self.as_raw()) or 0) != 0
    }

    /// Copies all elements, row-major. Errors when `T` is not the element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype() != T::DTYPE {
            return Err(Error::new(
                abi::ET_ERR_DTYPE,
                format!("to_vec: tensor holds {:?}, {:?} was asked for", self.dtype(), T::DTYPE),
            ));
        }
        let mut data = vec![T::default(); self.len()];
        let size = size_of_val(data.as_slice());
        call!(tables().tensor, et_host_tensor.read(self.as_raw(), data.as_mut_ptr().cast(), size))?;
        Ok(data)
    }

    /// The only element as a double, whatever its type.
    pub fn to_scalar(&self) -> Result<f64> {
        let one = self.cast(DType::F64)?.to_vec::<f64>()?;
        match one.as_slice() {
            [value] => Ok(*value),
            _ => Err(Error::new(
                abi::ET_ERR_SHAPE,
                format!("to_scalar: expected one element, found shape {:?}", self.shape()),
            )),
        }
    }

    /// `x * scale + shift`
    pub fn affine(&self, scale: f64, shift: f64) -> Result<Tensor> {
        produce!(et_host_tensor.affine(self.as_raw(), scale, shift))
    }

    /// `x ^ exponent`
    pub fn power(&self, exponent: f64) -> Result<Tensor> {
        produce!(et_host_tensor.power(self.as_raw(), exponent))
    }

    /// Values limited to `[low, high]`.
    pub fn clamp(&self, low: f64, high: f64) -> Result<Tensor> {
        produce!(et_host_tensor.clamp(self.as_raw(), low, high))
    }

    /// Index of the first maximum on one axis (I64).
    pub fn argmax(&self, axis: i64) -> Result<Tensor> {
        produce!(et_host_tensor.reduce(abi::ET_REDUCE_ARGMAX, self.as_raw(), &axis, 1, 0))
    }

    /// Matrix product over the last two axes.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        produce!(et_host_tensor.matmul(self.as_raw(), other.as_raw()))
    }

    /// `a` where this tensor (U8) is not 0, else `b`.
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        produce!(et_host_tensor.select(self.as_raw(), a.as_raw(), b.as_raw()))
    }

    /// The same elements in another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        produce!(et_host_tensor.reshape(self.as_raw(), shape.as_ptr(), shape.len()))
    }

    /// Axes in another order.
    pub fn permute(&self, axes: &[i64]) -> Result<Tensor> {
        produce!(et_host_tensor.permute(self.as_raw(), axes.as_ptr(), axes.len()))
    }

    /// The last two axes exchanged.
    pub fn transpose(&self) -> Result<Tensor> {
        let rank = self.rank() as i64;
        if rank < 2 {
            return Err(Error::new(
                abi::ET_ERR_SHAPE,
                format!("transpose: expected two axes or more, found {:?}", self.shape()),
            ));
        }
        let mut axes: Vec<i64> = (0..rank).collect();
        axes.swap(rank as usize - 1, rank as usize - 2);
        self.permute(&axes)
    }

    /// `len` entries from `start` on one axis.
    pub fn narrow(&self, axis: i64, start: usize, len: usize) -> Result<Tensor> {
        produce!(et_host_tensor.narrow(self.as_raw(), axis, start, len))
    }

    /// Axes of extent 1 stretched to `shape`.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        produce!(et_host_tensor.broadcast_to(self.as_raw(), shape.as_ptr(), shape.len()))
    }

    /// The same values without gaps.
    pub fn contiguous(&self) -> Result<Tensor> {
        produce!(et_host_tensor.contiguous(self.as_raw()))
    }

    /// Tensors joined on one axis.
    pub fn concat(tensors: &[&Tensor], axis: i64) -> Result<Tensor> {
        let raw: Vec<*const abi::et_tensor> =
            tensors.iter().map(|t| t.as_raw().cast_const()).collect();
        produce!(et_host_tensor.concat(raw.as_ptr(), raw.len(), axis))
    }

    /// Entries `index` (I64, rank 1) of one axis.
    pub fn index_select(&self, axis: i64, index: &Tensor) -> Result<Tensor> {
        produce!(et_host_tensor.index_select(self.as_raw(), axis, index.as_raw()))
    }

    /// `out[i][j] = x[i][index[i][j]]` on one axis; `index` has the rank of `x`.
    pub fn gather(&self, axis: i64, index: &Tensor) -> Result<Tensor> {
        produce!(et_host_tensor.gather(self.as_raw(), axis, index.as_raw()))
    }

    /// This tensor with entry `i` of `source` added at `index[i]` of one axis.
    pub fn index_add(&self, axis: i64, index: &Tensor, source: &Tensor) -> Result<Tensor> {
        produce!(et_host_tensor.index_add(self.as_raw(), axis, index.as_raw(), source.as_raw()))
    }

    /// The values in another element type.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        produce!(et_host_tensor.cast(self.as_raw(), dtype as i32))
    }

    /// The same value with no history.
    pub fn detach(&self) -> Result<Tensor> {
        produce!(et_host_autograd.detach(self.as_raw()))
    }

    /// The same value, exactly, whose gradient goes on times `factor`: gradient reversal for a negative one (Ganin and
    /// Lempitsky 2015). Elements must be finite.
    pub fn scale_grad(&self, factor: f64) -> Result<Tensor> {
        let value = self.detach()?;
        value.add(&self.sub(&value)?.affine(factor, 0.0)?)
    }

    /// The same value as a new leaf, whose gradient [`Tensor::leaf_grad`] returns after [`Tensor::backward`].
    pub fn leaf(&self) -> Result<Tensor> {
        produce!(et_host_autograd.leaf(self.as_raw()))
    }

    /// Gradient that reached this leaf so far.
    pub fn leaf_grad(&self) -> Result<Option<Tensor>> {
        let mut out = null_mut();
        call!(tables().autograd, et_host_autograd.leaf_grad(self.as_raw(), &mut out))?;
        // SAFETY: on success the out holds NULL or an owned reference.
        if out.is_null() { Ok(None) } else { unsafe { Tensor::from_raw(out) }.map(Some) }
    }

    /// Runs the tape backwards from this scalar; gradients are added to the parameters' arenas and to leaves.
    pub fn backward(&self) -> Result<()> {
        call!(tables().autograd, et_host_autograd.backward(self.as_raw(), null()))
    }

    /// As [`Tensor::backward`], from a tensor of any shape with its gradient given.
    pub fn backward_from(&self, gradient: &Tensor) -> Result<()> {
        call!(tables().autograd, et_host_autograd.backward(self.as_raw(), gradient.as_raw()))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?} {:?})", self.dtype(), self.shape())
    }
}

/// Whether operations on this thread record themselves.
pub fn is_recording() -> bool {
    ask!(tables().autograd, et_host_autograd.is_recording() or 0) != 0
}

/// Runs `f` with recording paused on this thread.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Resume;
    impl Drop for Resume {
        fn drop(&mut self) {
            ask!(tables().autograd, et_host_autograd.resume() or ());
        }
    }
    ask!(tables().autograd, et_host_autograd.pause() or ());
    let _resume = Resume;
    f()
}
