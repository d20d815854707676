//! The kernels of `kernels/*.cu`: loading them and giving them their arguments.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Mutex;

use candle_core::Tensor as Raw;
use cudarc::driver::{result, sys};

use super::device::{Engine, engine, failed};
use super::memory::address;
use easytransfer_core::error::{Error, Result};
use easytransfer_core::sync::lock;
use easytransfer_kernels::philox;

/// A file of kernels, compiled for every architecture that is supported.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Module {
    Elementwise,
    Half,
    Norm,
    NormHalf,
    Rows,
    Losses,
    Padding,
    Conv,
    Recurrent,
    Crf,
    Optim,
    Adafactor,
    Attention,
    AttentionHalf,
    Clip,
}

/// A fat binary, aligned as its header wants to be read.
#[repr(C, align(64))]
struct Image<T: ?Sized>(T);

macro_rules! image {
    ($name:literal) => {{
        static IMAGE: &Image<[u8]> =
            &Image(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")));
        &IMAGE.0
    }};
}

impl Module {
    fn image(self) -> &'static [u8] {
        match self {
            Module::Elementwise => image!("elementwise"),
            Module::Half => image!("half"),
            Module::Norm => image!("norm"),
            Module::NormHalf => image!("norm_half"),
            Module::Rows => image!("rows"),
            Module::Losses => image!("losses"),
            Module::Padding => image!("padding"),
            Module::Conv => image!("conv"),
            Module::Recurrent => image!("recurrent"),
            Module::Crf => image!("crf"),
            Module::Optim => image!("optim"),
            Module::Adafactor => image!("adafactor"),
            Module::Attention => image!("attention"),
            Module::AttentionHalf => image!("attention_half"),
            Module::Clip => image!("clip"),
        }
    }
}

/// Handles of the driver; they live as long as the device's context, that is, until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Function(pub sys::CUfunction);

// SAFETY: the driver's handles may be used from any thread that has the context bound.
unsafe impl Send for Function {}

/// A module; never unloaded.
pub(super) struct Loaded(pub sys::CUmodule);

// SAFETY: as above.
unsafe impl Send for Loaded {}

/// Lets a kernel use `bytes` of dynamic shared memory, of which every kernel has 48 KiB. Errors: more than the card
/// has.
pub(super) fn allow_shared(
    function: Function,
    bytes: usize,
) -> std::result::Result<(), result::DriverError> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: the function is loaded; the driver refuses sizes that the device does not have.
    unsafe { sys::cuFuncSetAttribute(function.0, attribute, bytes) }.result()
}

/// Kernels that were loaded.
pub(super) struct Kernels {
    modules: Mutex<HashMap<Module, Loaded>>,
    functions: Mutex<HashMap<(Module, &'static str, u32), Function>>,
}

impl Kernels {
    pub fn new() -> Self {
        Self { modules: Mutex::new(HashMap::new()), functions: Mutex::new(HashMap::new()) }
    }

    /// The kernel of that name, allowed to use `shared` bytes of dynamic shared memory.
    fn function(&self, module: Module, name: &'static str, shared: u32) -> Result<Function> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&(module, name, shared)) {
            return Ok(*function);
        }
        let error = |error| failed(&format!("load the kernel {name}"), error);
        let mut modules = lock(&self.modules);
        let loaded = match modules.get(&module) {
            Some(loaded) => loaded.0,
            None => {
                // SAFETY: the image is a complete fat binary made by the build script.
                let loaded = unsafe { result::module::load_data(module.image().as_ptr().cast()) }
                    .map_err(error)?;
                modules.insert(module, Loaded(loaded));
                loaded
            }
        };
        // Names hold no NUL.
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded and never unloaded.
        let function = unsafe { result::module::get_function(loaded, symbol) }.map_err(error)?;
        let function = Function(function);
        if shared > 48 * 1024 {
            allow_shared(function, shared as usize).map_err(error)?;
        }
        functions.insert((module, name, shared), function);
        Ok(function)
    }
}

/// Dropout as kernels take it: `EtDropout`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Dropout {
    seed: u64,
    stream: u64,
    offset: u64,
    threshold: u32,
    scale: f32,
}

impl From<Option<philox::Dropout>> for Dropout {
    fn from(dropout: Option<philox::Dropout>) -> Self {
        dropout.map_or_else(Self::default, |dropout| {
            let (counter, threshold) = dropout.parts();
            Self {
                seed: counter.seed,
                stream: counter.stream,
                offset: counter.offset,
                threshold,
                scale: dropout.scale() as f32,
            }
        })
    }
}

/// A launch that is being put together. Arguments come in the kernel's order, with the kernel's types.
pub(super) struct Launch {
    module: Module,
    name: &'static str,
    grid: [usize; 3],
    block: [u32; 3],
    shared: u32,
    /// The arguments one after the other, each at a multiple of eight bytes, and where each begins.
    words: Vec<u64>,
    starts: Vec<usize>,
    error: Option<Error>,
}

impl Launch {
    pub fn new(module: Module, name: &'static str) -> Self {
        Self {
            module,
            name,
            grid: [1; 3],
            block: [256, 1, 1],
            shared: 0,
            words: Vec::with_capacity(32),
            starts: Vec::with_capacity(24),
            error: None,
        }
    }

    /// As many blocks of 256 threads as `n` elements need, up to a number that fills the device; kernels loop.
    pub fn elements(self, n: usize) -> Self {
        self.grid(n.div_ceil(256).clamp(1, 8192), 1)
    }

    /// Blocks of 256 threads with one row per warp.
    pub fn rows(self, rows: usize) -> Self {
        self.grid(rows.div_ceil(8), 1)
    }

    pub fn grid(mut self, x: usize, y: usize) -> Self {
        self.grid = [x, y, 1];
        self
    }

    pub fn block(mut self, x: u32, y: u32) -> Self {
        self.block = [x, y, 1];
        self
    }

    /// Bytes of dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes as u32;
        self
    }

    fn word(mut self, word: u64) -> Self {
        self.starts.push(self.words.len());
        self.words.push(word);
        self
    }

    pub fn u64(self, value: usize) -> Self {
        self.word(value as u64)
    }

    pub fn i64(self, value: i64) -> Self {
        self.word(value as u64)
    }

    pub fn u32(self, value: u32) -> Self {
        self.word(u64::from(value))
    }

    pub fn i32(self, value: i32) -> Self {
        self.u32(value as u32)
    }

    pub fn flag(self, value: bool) -> Self {
        self.u32(u32::from(value))
    }

    pub fn f32(self, value: f32) -> Self {
        // Little-endian: the low half of the word is the number's bits.
        self.u32(value.to_bits())
    }

    /// A structure by value; `T` is a `repr(C)` twin of the kernel's.
    pub fn value<T: Copy>(mut self, value: T) -> Self {
        let start = self.words.len();
        self.starts.push(start);
        self.words.resize(start + size_of::<T>().div_ceil(8), 0);
        debug_assert!(align_of::<T>() <= 8);
        // SAFETY: the new words have room for `T` and their alignment is at least that of `T`.
        unsafe { self.words[start..].as_mut_ptr().cast::<T>().write(value) };
        self
    }

    /// The address of a tensor on the card.
    pub fn tensor(mut self, x: &Raw) -> Self {
        match address(x) {
            Ok(address) => self.word(address),
            Err(error) => {
                self.error = self.error.or(Some(error));
                self
            }
        }
    }

    /// The address of a tensor, or NULL.
    pub fn maybe(self, x: Option<&Raw>) -> Self {
        match x {
            Some(x) => self.tensor(x),
            None => self.u64(0),
        }
    }

    /// Puts the kernel on the stream.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and every address has as many elements as the kernel touches with this
    /// grid.
    pub unsafe fn run(self) -> Result<()> {
        if let Some(error) = self.error {
            return Err(error.context(self.name.to_owned()));
        }
        if self.grid.contains(&0) {
            return Ok(());
        }
        let engine: &Engine = engine()?;
        let error = |error| failed(&format!("launch {}", self.name), error);
        engine.context.bind_to_thread().map_err(error)?;
        let function = engine.kernels.function(self.module, self.name, self.shared)?;
        let argument = |start: &usize| self.words[*start..].as_ptr().cast_mut().cast::<c_void>();
        let mut pointers: Vec<*mut c_void> = self.starts.iter().map(argument).collect();
        let [x, y, z] = self.grid.map(|extent| extent as u32);
        let [a, b, c] = self.block;
        // SAFETY: by the contract; the driver copies the arguments before it returns.
        unsafe {
            result::launch_kernel(
                function.0,
                (x, y, z),
                (a, b, c),
                self.shared,
                engine.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(error)?;
        engine.count_launch();
        Ok(())
    }
}
