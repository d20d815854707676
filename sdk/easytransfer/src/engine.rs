//! Which engine a process uses: chosen before the first plugin is loaded, since plugins keep its tables.

use std::sync::{Mutex, PoisonError};

use easytransfer_abi::et_host;
use easytransfer_core::workers;
use easytransfer_loader::engine::{self, Device, Engine, EngineError, EnginePrecision};
use easytransfer_plugin::RegistryTable;
use easytransfer_train::{Error, Result};

use crate::registry;

/// An engine that was started.
#[derive(Clone)]
struct Started {
    device: Device,
    precision: EnginePrecision,
    /// As the first runtime said.
    threads: Option<usize>,
    /// `None` for the engine that is linked in.
    engine: Option<Engine>,
    /// Why `Auto` took the CPU.
    passed_over: Option<EngineError>,
}

static STARTED: Mutex<Option<Started>> = Mutex::new(None);

fn started() -> std::sync::MutexGuard<'static, Option<Started>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(device: &Device, error: &EngineError) -> Error {
    Error::user(format!("`device={device}`: {error}"))
}

impl Started {
    fn threads(&self) -> usize {
        match (&self.engine, self.threads) {
            (Some(_), Some(threads)) => threads,
            (Some(_), None) => workers::usual(),
            (None, _) => workers::count(),
        }
    }
}

/// Refuses a number of threads that is none, and another one than an earlier runtime has.
fn check_threads(running: Option<&Started>, wanted: Option<usize>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if !(1..=workers::MOST_THREADS).contains(&wanted) {
        let most = workers::MOST_THREADS;
        return Err(Error::user(format!("threads: expected 1 to {most}, found {wanted}")));
    }
    match running.map(Started::threads) {
        Some(threads) if threads != wanted => Err(Error::user(format!(
            "threads: expected {threads}, which the first runtime of this process began with, found {wanted}; one process has one engine, start another process"
        ))),
        _ => Ok(()),
    }
}

/// Starts the engine for a device, attaches this library to it, and returns its host table. A second call for another
/// device or another number of threads fails; `Auto` and `None` agree with whatever runs.
pub(crate) fn start(
    device: &Device,
    precision: EnginePrecision,
    threads: Option<usize>,
) -> Result<*const et_host> {
    let mut slot = started();
    check_threads(slot.as_ref(), threads)?;
    let mut passed_over = None;
    let engine = match (&*slot, device) {
        (Some(running), Device::Auto) => running.engine,
        (Some(running), wanted) if running.device == *wanted && running.precision == precision => {
            running.engine
        }
        (Some(running), wanted) => {
            return Err(Error::user(format!(
                "`device={wanted}`: this process already computes on {} in {}; one process has one engine, start another process",
                running.device,
                running.precision.name()
            )));
        }
        (None, Device::Cpu) => None,
        (None, Device::Cuda(number)) => Some(
            engine::open_cuda(*number, precision, threads)
                .map_err(|error| refused(device, &error))?,
        ),
        (None, Device::Library(path)) => Some(
            engine::open_library(path, precision, threads)
                .map_err(|error| refused(device, &error))?,
        ),
        (None, Device::Auto) => match engine::open_cuda(0, precision, threads) {
            Ok(engine) => Some(engine),
            // A card that is there but refuses is a fault that `auto` must not hide.
            Err(error @ EngineError::Open(_)) => return Err(refused(device, &error)),
            Err(error) => {
                passed_over = Some(error);
                None
            }
        },
    };
    if engine.is_none() && slot.is_none() {
        if let Some(threads) = threads {
            workers::choose(threads)
                .map_err(|error| Error::user(format!("threads: {}", error.message)))?;
        }
        let name = precision.name();
        easytransfer_core::options::EnginePrecision::from_name(name)
            .and_then(easytransfer_core::precision::choose)
            .map_err(|error| Error::user(format!("`precision={name}`: {error}")))?;
    }
    let host = engine.map_or_else(easytransfer_core::host::host, |engine| engine.host());
    // SAFETY: the engine's table lives until the process ends.
    unsafe { easytransfer_plugin::attach(host)? };
    for (id, table) in [
        ("et.session/1", easytransfer_plugin::host_table()),
        ("et.context/1", easytransfer_plugin::context_host_table()),
        ("et.net/1", easytransfer_plugin::net_host_table()),
        ("et.registry/1", std::ptr::from_ref(RegistryTable::<registry::All>::TABLE).cast()),
    ] {
        match engine {
            // SAFETY: each table is a static of its interface.
            Some(engine) => unsafe { engine.provide(id, table) },
            // SAFETY: as above.
            None => unsafe { easytransfer_core::host::provide(id, table) },
        }
    }
    if let Some(engine) = engine {
        // Messages of an engine that was loaded go where those of this program go.
        let log = std::ptr::from_ref(&easytransfer_core::tables::log::TABLE).cast();
        // SAFETY: a static of its interface.
        unsafe { engine.provide("et.log/1", log) };
    }
    if slot.is_none() {
        let device = match (device, engine) {
            (Device::Auto, Some(_)) => Device::Cuda(0),
            (Device::Auto, None) => Device::Cpu,
            (device, _) => device.clone(),
        };
        *slot = Some(Started { device, precision, threads, engine, passed_over });
    }
    Ok(host)
}

/// The device that computes and, when `Device::Auto` passed over CUDA, why; `None` before the first runtime.
pub fn engine_use() -> Option<(Device, Option<EngineError>)> {
    started().as_ref().map(|running| (running.device.clone(), running.passed_over.clone()))
}

/// Whether the engine that is linked in computes.
pub(crate) fn is_linked() -> bool {
    started().as_ref().is_none_or(|running| running.engine.is_none())
}

/// What the engine computes in.
pub(crate) fn precision() -> &'static str {
    started().as_ref().map_or(EnginePrecision::F32, |running| running.precision).name()
}

/// What a loaded engine did so far, as JSON; `None` for the engine that is linked in.
pub fn engine_report() -> Option<String> {
    started().as_ref()?.engine?.report().ok()
}

/// The table of the engine in use; before the first runtime that of the engine that is linked in.
pub fn engine_host() -> *const et_host {
    started()
        .as_ref()
        .and_then(|running| running.engine)
        .map_or_else(easytransfer_core::host::host, |engine| engine.host())
}
