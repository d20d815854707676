//! The device that this process computes on, and what it did.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{CudaDevice, Device};
use cudarc::driver::{CudaContext, CudaStream};

use super::ahead::Ahead;
use super::held;
use super::launch::Kernels;
use super::lt::Products;
use super::ptx::Texts;
use super::reuse;
use super::staging::Staging;
use easytransfer_core::error::{Error, Result, fail};
use easytransfer_core::sync::lock;

/// How matrix products and attention compute, and what lies between operations. Parameters, states and all other
/// arithmetic are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// Products of f32 with 10 bits of mantissa.
    Tf32,
    /// Products of bfloat16, sums in f32; values and gradients between operations are kept in bfloat16.
    Bf16,
    /// Products of half precision, sums in f32; values are kept in half precision, gradients in bfloat16.
    F16,
}

/// What [`open`] is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How products compute.
    pub precision: Precision,
}

impl Options {
    /// From JSON: `{"precision": "f32" | "tf32" | "bf16" | "f16"}`. Errors: `INVALID_ARGUMENT`.
    pub fn from_json(text: &str) -> Result<Self> {
        let text = if text.is_empty() { "{}" } else { text };
        let value: serde_json::Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => fail!(ET_ERR_INVALID_ARGUMENT, "options of the engine: {error}"),
        };
        let precision = match value["precision"].as_str().unwrap_or("f32") {
            "f32" => Precision::F32,
            "tf32" => Precision::Tf32,
            "bf16" => Precision::Bf16,
            "f16" => Precision::F16,
            other => fail!(
                ET_ERR_INVALID_ARGUMENT,
                "options of the engine: precision must be f32, tf32, bf16 or f16, found {other:?}"
            ),
        };
        Ok(Self { precision })
    }
}

/// The opened device.
pub(crate) struct Engine {
    pub device: Device,
    pub cuda: CudaDevice,
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub(super) kernels: Kernels,
    pub(super) products: Mutex<Products>,
    pub(super) texts: Texts,
    /// Copies to the card in the order of the computation.
    pub(super) staging: Mutex<Staging>,
    pub(super) ahead: Ahead,
    pub precision: Precision,
    name: String,
    launches: AtomicU64,
    fallbacks: Mutex<BTreeMap<&'static str, u64>>,
    waits: Mutex<BTreeMap<&'static str, u64>>,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// An error of CUDA as one of ours, `DEVICE`; what is out of memory, `OUT_OF_MEMORY`, says who holds it.
pub(crate) fn failed(doing: &str, error: impl std::fmt::Debug) -> Error {
    let text = format!("{error:?}");
    if text.contains("OUT_OF_MEMORY") {
        return held::out_of_memory(doing);
    }
    // What follows the first line is a backtrace.
    let text = text.lines().next().unwrap_or_default();
    Error::new(easytransfer_abi::ET_ERR_DEVICE, format!("{doing}: {text}"))
}

/// Opens device `number`. Errors: `FAILED_PRECONDITION` when one is open already, `DEVICE` with what CUDA says.
pub fn open(number: usize, options: Options) -> Result<()> {
    if ENGINE.get().is_some() {
        fail!(ET_ERR_FAILED_PRECONDITION, "the engine is open already; a process has one device");
    }
    let cuda = CudaDevice::new_with_stream(number)
        .map_err(|error| failed(&format!("open device {number}"), error))?;
    // SAFETY: all work of this process goes to the one stream of this device, in whose order memory is made, used and
    // freed.
    unsafe { cuda.disable_event_tracking() };
    let stream = cuda.cuda_stream();
    let context = stream.context().clone();
    held::keep_memory(&context).map_err(|error| failed("set up the memory pool", error))?;
    if options.precision == Precision::Tf32 {
        candle_core::cuda::set_gemm_reduced_precision_f32(true);
    }
    let name = context.name().map_err(|error| failed("name of the device", error))?;
    let engine = Engine {
        device: Device::Cuda(cuda.clone()),
        cuda,
        kernels: Kernels::new(),
        products: Mutex::new(Products::new(&stream, options.precision)?),
        texts: Texts::default(),
        staging: Mutex::new(Staging::new(stream.clone())),
        ahead: Ahead::new(&context)?,
        context,
        stream,
        precision: options.precision,
        name,
        launches: AtomicU64::new(0),
        fallbacks: Mutex::new(BTreeMap::new()),
        waits: Mutex::new(BTreeMap::new()),
    };
    if ENGINE.set(engine).is_err() {
        fail!(ET_ERR_FAILED_PRECONDITION, "the engine is open already; a process has one device");
    }
    easytransfer_core::device::install(self::engine()?)
}

/// The engine, once a device is open.
pub(crate) fn active() -> Option<&'static Engine> {
    ENGINE.get()
}

/// The engine. Errors: `FAILED_PRECONDITION` when no device is open, which a CUDA tensor makes impossible.
pub(crate) fn engine() -> Result<&'static Engine> {
    match ENGINE.get() {
        Some(engine) => Ok(engine),
        None => fail!(ET_ERR_FAILED_PRECONDITION, "no CUDA device is open"),
    }
}

/// Number of the device.
pub(crate) fn number() -> i32 {
    ENGINE.get().map_or(0, |engine| engine.context.ordinal() as i32)
}

/// The stream for code of others (a `CUstream`), with the device's context bound to this thread.
pub(crate) fn bound_stream() -> Result<*mut std::ffi::c_void> {
    let engine = engine()?;
    engine.context.bind_to_thread().map_err(|error| failed("bind the device", error))?;
    Ok(engine.stream.cu_stream().cast())
}

impl Engine {
    pub(super) fn count_launch(&self) {
        self.launches.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a copy to the host that an operation without a kernel made.
pub(crate) fn count_fallback(what: &'static str) {
    if let Some(engine) = ENGINE.get() {
        *lock(&engine.fallbacks).entry(what).or_default() += 1;
    }
}

/// Counts a time when the host waits for the card, and what for.
pub(crate) fn waits(what: &'static str) {
    if let Some(engine) = ENGINE.get() {
        *lock(&engine.waits).entry(what).or_default() += 1;
    }
}

/// What the engine did, as JSON; see `report` of `et_engine_record`.
pub(crate) fn report(engine: &Engine) -> String {
    let held = held::held().unwrap_or_default();
    let (in_use, peak) = held.use_and_peak();
    serde_json::json!({
        "device": engine.name,
        "precision": format!("{:?}", engine.precision).to_lowercase(),
        "launches": engine.launches.load(Ordering::Relaxed),
        "allocations": reuse::allocations(),
        "host_fallbacks": *lock(&engine.fallbacks),
        "waits": *lock(&engine.waits),
        "bytes_in_use": in_use,
        "bytes_peak": peak,
        "held": held.json(),
    })
    .to_string()
}
