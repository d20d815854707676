//! Engines: which device was asked for, what stands in the way of it, and opening the library that computes on it.
//!
//! The CPU engine is linked into the program. The CUDA engine is a library of its own, opened when a CUDA device is
//! asked for, so that one set of binaries runs with and without a card. Three things can be missing, and a refusal
//! says which: the driver, a card, the engine's library (or a library of the CUDA toolkit that it needs).

mod driver;
mod library;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use driver::{Card, Driver};
pub use library::{Engine, engine_places};

/// File name of the library of the CUDA engine.
pub const CUDA_ENGINE: &str = if cfg!(windows) {
    "easytransfer_engine_cuda.dll"
} else if cfg!(target_os = "macos") {
    "libeasytransfer_engine_cuda.dylib"
} else {
    "libeasytransfer_engine_cuda.so"
};

/// What should compute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The engine that is linked into the program.
    #[default]
    Cpu,
    /// A CUDA device by its number.
    Cuda(u32),
    /// The first CUDA device if everything that it needs is there, else the CPU.
    Auto,
    /// An engine library by its path, on its first device.
    Library(PathBuf),
}

impl FromStr for Device {
    type Err = String;

    /// `cpu`, `cuda`, `cuda:N` or `auto`.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected `cpu`, `cuda`, `cuda:N` or `auto`, found `{text}`");
        match text {
            "cpu" => Ok(Device::Cpu),
            "auto" => Ok(Device::Auto),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match text.strip_prefix("cuda:") {
                Some(number) => number.parse().map(Device::Cuda).map_err(|_| unknown()),
                None => Err(unknown()),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Auto => f.write_str("auto"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Library(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a device cannot be used. The text names what is missing, where it was looked for, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// The driver of the cards is not installed, or does not answer.
    Driver(String),
    /// There is a driver but no such card.
    Card(String),
    /// The engine's library is not there, or is no engine of this version.
    Library(String),
    /// The engine refused the device or the options.
    Open(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Driver(text) => write!(f, "no usable NVIDIA driver: {text}"),
            EngineError::Card(text) => write!(f, "no usable card: {text}"),
            EngineError::Library(text) => write!(f, "no usable CUDA engine: {text}"),
            EngineError::Open(text) => write!(f, "the engine does not start: {text}"),
        }
    }
}

impl std::error::Error for EngineError {}

/// How numbers are computed. Parameters and optimizer states are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnginePrecision {
    /// IEEE single precision everywhere.
    #[default]
    F32,
    /// Matrix products of f32 with 10 bits of mantissa.
    Tf32,
    /// Matrix products of bfloat16, sums in f32; on CUDA also attention and what lies between operations.
    Bf16,
    /// As `Bf16` in half precision; gradients between operations are bfloat16, whose range needs no scaled loss.
    F16,
}

impl EnginePrecision {
    /// Its name on the command line and in options.
    pub fn name(self) -> &'static str {
        match self {
            EnginePrecision::F32 => "f32",
            EnginePrecision::Tf32 => "tf32",
            EnginePrecision::Bf16 => "bf16",
            EnginePrecision::F16 => "f16",
        }
    }
}

/// Opens the CUDA engine on a device, with so many threads for what the processor does, if they are said. Errors name
/// the one thing that is missing first: driver, card, library.
pub fn open_cuda(
    device: u32,
    precision: EnginePrecision,
    threads: Option<usize>,
) -> Result<Engine, EngineError> {
    let driver = Driver::open()?;
    driver.card(device)?;
    let engine = Engine::find()?;
    engine.open(device, precision, threads)?;
    Ok(engine)
}

/// Opens an engine library by its path, without asking for a card. Errors as for [`open_cuda`], except about driver
/// and card.
pub fn open_library(
    path: &std::path::Path,
    precision: EnginePrecision,
    threads: Option<usize>,
) -> Result<Engine, EngineError> {
    let engine = Engine::at(path)?;
    engine.open(0, precision, threads)?;
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
        assert_eq!("auto".parse(), Ok(Device::Auto));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = bad.parse::<Device>().unwrap_err();
            assert!(error.contains("`cuda:N`") && error.contains(bad), "{error}");
        }
        assert_eq!(Device::Cuda(2).to_string(), "cuda:2");
    }
}
