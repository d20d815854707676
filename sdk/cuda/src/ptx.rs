//! Kernels that plugins ship as PTX text: compiled by the driver when first used, and kept.

use std::ffi::{CString, c_void};
use std::sync::Mutex;

use cudarc::driver::sys;

use super::device::{Engine, engine, failed};
use super::launch::{Function, Loaded};
use easytransfer_core::error::{Error, Result, fail};
use easytransfer_core::sync::lock;

/// Bytes of the compiler's message.
const MESSAGE: usize = 4096;
/// More parameters than a kernel can have.
const MOST_PARAMETERS: usize = 4096;
/// Bytes of dynamic shared memory that need no permission.
const SHARED: usize = 48 << 10;

struct Kernel {
    name: Box<str>,
    function: Function,
    parameters: usize,
    /// Bytes of dynamic shared memory that it may use.
    shared: usize,
}

struct Text {
    ptx: Box<str>,
    module: Loaded,
    kernels: Vec<Kernel>,
}

/// Texts that were compiled. There are a few, so they are compared one by one; most differ in length.
#[derive(Default)]
pub(super) struct Texts(Mutex<Vec<Text>>);

/// What a plugin wants to run.
pub(crate) struct Launch<'a> {
    pub ptx: &'a str,
    pub kernel: &'a str,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: usize,
    /// Where each argument lies.
    pub arguments: &'a [*const c_void],
}

fn compile(ptx: &str) -> Result<Loaded> {
    let Ok(text) = CString::new(ptx) else {
        fail!(ET_ERR_INVALID_ARGUMENT, "launch: the PTX text holds a NUL");
    };
    let mut module = std::ptr::null_mut();
    let mut message = vec![0u8; MESSAGE];
    use sys::CUjit_option_enum as Jit;
    let mut options = [Jit::CU_JIT_ERROR_LOG_BUFFER, Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [message.as_mut_ptr().cast::<c_void>(), MESSAGE as *mut c_void];
    // SAFETY: the text ends with NUL; the options are a buffer and, as a number in a pointer's place, its length.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match code.result() {
        Ok(()) => Ok(Loaded(module)),
        Err(error) => {
            let said = message.split(|&byte| byte == 0).next().unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            Err(Error::new(
                easytransfer_abi::ET_ERR_INVALID_ARGUMENT,
                format!("launch: the PTX text does not compile: {error:?}: {}", said.trim()),
            ))
        }
    }
}

fn find(module: &Loaded, name: &str) -> Result<Kernel> {
    let Ok(symbol) = CString::new(name) else {
        fail!(ET_ERR_INVALID_ARGUMENT, "launch: the kernel's name holds a NUL");
    };
    // SAFETY: the module is loaded and never unloaded.
    let function = unsafe { cudarc::driver::result::module::get_function(module.0, symbol) };
    let Ok(function) = function else {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "launch: the PTX text has no kernel {name:?}; expected `.visible .entry {name}`"
        );
    };
    let has_parameter = |index: usize| {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the function is loaded; the outs are local.
        unsafe { sys::cuFuncGetParamInfo(function, index, &mut offset, &mut size) }.result().is_ok()
    };
    let parameters = (0..MOST_PARAMETERS).take_while(|&index| has_parameter(index)).count();
    Ok(Kernel { name: name.into(), function: Function(function), parameters, shared: SHARED })
}

impl Texts {
    /// The kernel, allowed to use that much shared memory, and the number of its parameters.
    fn kernel(&self, launch: &Launch<'_>) -> Result<(Function, usize)> {
        let mut texts = lock(&self.0);
        let at = match texts.iter().position(|text| *text.ptx == *launch.ptx) {
            Some(at) => at,
            None => {
                let module = compile(launch.ptx)?;
                texts.push(Text { ptx: launch.ptx.into(), module, kernels: Vec::new() });
                texts.len() - 1
            }
        };
        let text = &mut texts[at];
        let at = match text.kernels.iter().position(|kernel| *kernel.name == *launch.kernel) {
            Some(at) => at,
            None => {
                text.kernels.push(find(&text.module, launch.kernel)?);
                text.kernels.len() - 1
            }
        };
        let kernel = &mut text.kernels[at];
        if launch.shared > kernel.shared {
            super::launch::allow_shared(kernel.function, launch.shared)
                .map_err(|error| failed(&format!("launch {}", launch.kernel), error))?;
            kernel.shared = launch.shared;
        }
        Ok((kernel.function, kernel.parameters))
    }
}

impl Launch<'_> {
    /// Puts the kernel on the stream. Errors: `INVALID_ARGUMENT`, `DEVICE`.
    ///
    /// # Safety
    /// The arguments point to values of the kernel's types, and the kernel touches only memory that is the caller's
    /// until the stream has passed it.
    pub unsafe fn run(&self) -> Result<()> {
        let engine: &Engine = engine()?;
        let error = |error| failed(&format!("launch {}", self.kernel), error);
        engine.context.bind_to_thread().map_err(error)?;
        let (function, parameters) = engine.texts.kernel(self)?;
        if parameters != self.arguments.len() {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "launch {}: expected {parameters} arguments, found {}",
                self.kernel,
                self.arguments.len()
            );
        }
        if self.arguments.iter().any(|argument| argument.is_null()) {
            fail!(ET_ERR_INVALID_ARGUMENT, "launch {}: an argument is NULL", self.kernel);
        }
        if self.grid.contains(&0) {
            return Ok(());
        }
        let mut arguments: Vec<*mut c_void> =
            self.arguments.iter().map(|argument| argument.cast_mut()).collect();
        let ([x, y, z], [a, b, c]) = (self.grid, self.block);
        // SAFETY: by the contract; the driver copies the arguments before it returns.
        unsafe {
            cudarc::driver::result::launch_kernel(
                function.0,
                (x, y, z),
                (a, b, c),
                self.shared as u32,
                engine.stream.cu_stream(),
                &mut arguments,
            )
        }
        .map_err(error)?;
        engine.count_launch();
        Ok(())
    }
}
