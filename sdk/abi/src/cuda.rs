//! What a plugin with code for a card gets from an engine that computes on one.

use crate::{et_error, et_str};
use core::ffi::c_void;

/// A kernel and how often it runs. Three-part extents are x, y, z.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_cuda_launch {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// PTX text. The engine compiles a text once and keeps it until the process ends.
    pub ptx: et_str,
    /// Name of an `.entry` of the text.
    pub kernel: et_str,
    /// Blocks of the grid; nothing runs when one extent is 0.
    pub grid_x: u32,
    /// As `grid_x`.
    pub grid_y: u32,
    /// As `grid_x`.
    pub grid_z: u32,
    /// Threads of a block.
    pub block_x: u32,
    /// As `block_x`.
    pub block_y: u32,
    /// As `block_x`.
    pub block_z: u32,
    /// Bytes of dynamic shared memory.
    pub shared_size: usize,
    /// Where each argument lies in host memory, in the kernel's order and with its types; they are copied before the
    /// call returns.
    pub args: *const *const c_void,
    /// Number of arguments, which must be the kernel's.
    pub args_len: usize,
}

/// `et.cuda/1`: the card that the engine computes on. Only an engine for CUDA has this table; with every other one
/// `get_interface` answers NULL.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_cuda {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Number of the card, as views of `et.op/1` carry it in `device_id`. [any-thread] since 0.1
    pub device: Option<unsafe extern "C" fn() -> i32>,
    /// The stream (a `CUstream`) that the engine's work runs on, in the order of the calls; work of a plugin goes
    /// there too. The card's context is current on the calling thread afterwards. The stream lives until the process
    /// ends; the caller neither destroys nor captures it. Errors: DEVICE. [any-thread] since 0.1
    pub stream: Option<unsafe extern "C" fn(out: *mut *mut c_void) -> *mut et_error>,
    /// Puts a kernel on the stream; it has not run yet when this returns. Errors: INVALID_ARGUMENT for text that does
    /// not compile (with the compiler's message), a kernel that is not in it, or another number of arguments than it
    /// has; DEVICE for what the card refuses. [any-thread] since 0.1
    pub launch: Option<unsafe extern "C" fn(args: *const et_cuda_launch) -> *mut et_error>,
}
