//! The engine's error: one of the boundary's codes and a message, and the conversions into it.

use std::fmt;
use std::ops::Deref;

use easytransfer_abi::{
    ET_ERR_DEVICE, ET_ERR_DTYPE, ET_ERR_INVALID_ARGUMENT, ET_ERR_IO, ET_ERR_NOT_FOUND,
    ET_ERR_SHAPE, ET_ERR_UNIMPLEMENTED, ET_ERR_UNKNOWN,
};

use crate::kernels::KernelError;

/// A failure with one of the `ET_ERR_` codes. It crosses the boundary as `et_error`.
///
/// It is a pointer to the [`Failure`], so that the result of an operation fits in registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Failure>);

/// What an [`Error`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// An `ET_ERR_` constant.
    pub code: i32,
    /// What was being done, to what, what was expected and what was found.
    pub message: String,
    /// The same as data, a JSON object; empty for most errors. The engine only carries it from one plugin or program
    /// to another.
    pub details: String,
}

/// Result of an operation of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with one of the `ET_ERR_` codes.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { code, message: message.into(), details: String::new() }))
    }

    /// The same error with details.
    pub fn with_details(mut self, details: String) -> Self {
        self.0.details = details;
        self
    }

    /// The same error with `context` and a colon before its message.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// An input/output failure on `path`: `NOT_FOUND` when there is no such file, else `IO`.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ET_ERR_NOT_FOUND,
            _ => ET_ERR_IO,
        };
        Self::new(code, format!("cannot {action} {}: {error}", path.display()))
    }
}

impl Deref for Error {
    type Target = Failure;
    fn deref(&self) -> &Failure {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let code = candle_code(&error);
        if code == ET_ERR_DEVICE
            && error.to_string().contains("OUT_OF_MEMORY")
            && let Some(device) = crate::device::active()
        {
            return device.out_of_memory("an operation of tensors");
        }
        Self::new(code, error.to_string())
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        let code = match error {
            KernelError::Length { .. } => ET_ERR_SHAPE,
            _ => ET_ERR_INVALID_ARGUMENT,
        };
        Self::new(code, error.to_string())
    }
}

/// The boundary's code for an error of the storage layer; looks through context and backtraces.
fn candle_code(error: &candle_core::Error) -> i32 {
    use candle_core::Error as E;
    match error {
        E::UnexpectedDType { .. }
        | E::DTypeMismatchBinaryOp { .. }
        | E::UnsupportedDTypeForOp(..) => ET_ERR_DTYPE,
        E::UnexpectedNumberOfDims { .. }
        | E::UnexpectedShape { .. }
        | E::ShapeMismatch { .. }
        | E::ShapeMismatchBinaryOp { .. }
        | E::ShapeMismatchCat { .. }
        | E::ShapeMismatchSplit { .. }
        | E::BroadcastIncompatibleShapes { .. }
        | E::MatMulUnexpectedStriding(..)
        | E::NarrowInvalidArgs { .. }
        | E::Conv1dInvalidArgs { .. } => ET_ERR_SHAPE,
        E::DimOutOfRange { .. }
        | E::DuplicateDimIndex { .. }
        | E::OnlySingleDimension { .. }
        | E::EmptyTensor { .. }
        | E::InvalidIndex { .. }
        | E::OpRequiresAtLeastOneTensor { .. }
        | E::OpRequiresAtLeastTwoTensors { .. } => ET_ERR_INVALID_ARGUMENT,
        E::NotCompiledWithCudaSupport | E::NotCompiledWithMetalSupport => ET_ERR_UNIMPLEMENTED,
        E::Cuda(_) | E::Metal(_) | E::DeviceMismatchBinaryOp { .. } => ET_ERR_DEVICE,
        E::Io(_) => ET_ERR_IO,
        E::Context { inner, .. } | E::WithPath { inner, .. } | E::WithBacktrace { inner, .. } => {
            candle_code(inner)
        }
        _ => ET_ERR_UNKNOWN,
    }
}

/// Returns early with an error: `fail!(ET_ERR_SHAPE, "expected {} found {}", a, b)`. The code is the name of a
/// constant of `easytransfer_abi`, which need not be imported.
#[macro_export]
macro_rules! fail {
    ($code:ident, $($message:tt)+) => {
        return Err($crate::error::Error::new(easytransfer_abi::$code, format!($($message)+)))
    };
}
pub use fail;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candle_errors_get_codes_through_context() {
        use candle_core::{Device, Tensor};
        let a = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let b = Tensor::zeros((4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(Error::from(a.add(&b).unwrap_err()).code, ET_ERR_SHAPE);
        assert_eq!(Error::from(a.matmul(&b).unwrap_err().context("here")).code, ET_ERR_SHAPE);
        let c = a.to_dtype(candle_core::DType::F64).unwrap();
        assert_eq!(Error::from(a.add(&c).unwrap_err()).code, ET_ERR_DTYPE);
    }

    #[test]
    fn fail_formats_and_returns() {
        fn refuse(n: usize) -> Result<()> {
            fail!(ET_ERR_NOT_FOUND, "no entry {n}, expected at most {}", 3)
        }
        let error = refuse(7).unwrap_err();
        assert_eq!(error, Error::new(ET_ERR_NOT_FOUND, "no entry 7, expected at most 3"));
    }
}
