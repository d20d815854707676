//! `et.cuda/1`: the card, for plugins with code of their own for it. There is no such table before a card is open.

use std::ffi::c_void;

use easytransfer_abi::{et_cuda_launch, et_error, et_host_cuda};

use super::{device, ptx};
use easytransfer_core::error::fail;
use easytransfer_core::handle::{guard, guard_value, put, slice_from, str_from};

/// The table.
pub static TABLE: et_host_cuda = et_host_cuda {
    struct_size: size_of::<et_host_cuda>(),
    device: Some(number),
    stream: Some(stream),
    launch: Some(launch),
};

unsafe extern "C" fn number() -> i32 {
    guard_value(0, || Ok(device::number()))
}

unsafe extern "C" fn stream(result: *mut *mut c_void) -> *mut et_error {
    // SAFETY: the boundary's contract: a writable out pointer.
    guard(|| unsafe { put(result, device::bound_stream()?) })
}

unsafe extern "C" fn launch(args: *const et_cuda_launch) -> *mut et_error {
    guard(|| {
        if args.is_null() {
            fail!(ET_ERR_INVALID_ARGUMENT, "launch: the arguments are NULL");
        }
        // SAFETY: not NULL, and every caller-filled struct begins with its size.
        let size = unsafe { args.cast::<usize>().read() };
        if size < size_of::<et_cuda_launch>() {
            fail!(
                ET_ERR_INVALID_ARGUMENT,
                "launch: struct_size is {size}, expected at least {}",
                size_of::<et_cuda_launch>()
            );
        }
        // SAFETY: the size covers the whole struct; texts and arguments are readable by the boundary's contract.
        unsafe {
            let args = &*args;
            let launch = ptx::Launch {
                ptx: str_from(args.ptx)?,
                kernel: str_from(args.kernel)?,
                grid: [args.grid_x, args.grid_y, args.grid_z],
                block: [args.block_x, args.block_y, args.block_z],
                shared: args.shared_size,
                arguments: slice_from(args.args, args.args_len)?,
            };
            launch.run()
        }
    })
}
