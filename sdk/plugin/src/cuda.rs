//! Kernels of one's own on the card of the engine, shipped as PTX text: a plugin neither links CUDA nor needs it to
//! be built.
//!
//! ```no_run
//! # use easytransfer_plugin::cuda::{Argument, Cuda, Kernel};
//! # fn cube(x: u64, y: u64, len: usize) -> easytransfer_plugin::Result<()> {
//! # const PTX: &str = "";
//! if let Some(cuda) = Cuda::find() {
//!     let kernel = Kernel::over(PTX, "cube", len, 256);
//!     let n = len as u64;
//!     // SAFETY: x and y have n elements, which is what the kernel touches.
//!     unsafe { cuda.launch(&kernel, &[Argument::Address(x), Argument::Address(y), Argument::U64(n)]) }?;
//! }
//! # Ok(())
//! # }
//! ```

use crate::host::{ask, call, tables, try_host};
use crate::text::borrow;
use crate::{Error, Result};
use easytransfer_abi as abi;
use std::ffi::c_void;
use std::ptr::null_mut;

/// The card that the engine computes on.
#[derive(Clone, Copy)]
pub struct Cuda(&'static abi::et_host_cuda);

/// A kernel of a PTX text and its extents, x, y, z.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The text; it is compiled when it is first seen, and kept.
    pub ptx: &'a str,
    /// Name of an `.entry` of the text.
    pub name: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// An argument, in the type that the kernel declares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A place in the card's memory.
    Address(u64),
    /// 32 bits without a sign.
    U32(u32),
    /// 32 bits with a sign.
    I32(i32),
    /// 64 bits without a sign.
    U64(u64),
    /// 64 bits with a sign.
    I64(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
}

impl Argument {
    /// The bits in the memory of a u64, where a pointer finds the first byte.
    fn word(self) -> u64 {
        let low = |bits: u32| {
            let mut word = [0; 8];
            word[..4].copy_from_slice(&bits.to_ne_bytes());
            u64::from_ne_bytes(word)
        };
        match self {
            Argument::Address(value) | Argument::U64(value) => value,
            Argument::I64(value) => value as u64,
            Argument::F64(value) => value.to_bits(),
            Argument::U32(value) => low(value),
            Argument::I32(value) => low(value as u32),
            Argument::F32(value) => low(value.to_bits()),
        }
    }
}

impl<'a> Kernel<'a> {
    /// One thread for each of `len` elements, in blocks of `threads`. Kernels check that their thread is below `len`;
    /// 2^31 blocks are the most that a card takes.
    pub fn over(ptx: &'a str, name: &'a str, len: usize, threads: u32) -> Self {
        let blocks = u32::try_from(len.div_ceil(threads.max(1) as usize)).unwrap_or(u32::MAX);
        Self { ptx, name, grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0 }
    }
}

impl Cuda {
    /// The card; `None` when the engine computes on something else.
    pub fn find() -> Option<Self> {
        try_host().and_then(|_| tables().cuda()).map(Self)
    }

    /// Number of the card.
    pub fn device(&self) -> i32 {
        ask!(self.0, et_host_cuda.device() or 0)
    }

    /// The stream (a `CUstream`) on which the engine's work runs, with the card's context current on this thread; for
    /// code that calls CUDA itself. It must be neither destroyed nor captured.
    pub fn stream(&self) -> Result<*mut c_void> {
        let mut out = null_mut();
        call!(self.0, et_host_cuda.stream(&mut out))?;
        Ok(out)
    }

    /// Puts a kernel on the stream; it has not run yet when this returns. Errors: text that does not compile, a
    /// kernel that it does not have, another number of arguments than the kernel has, extents that the card refuses.
    ///
    /// # Safety
    /// The arguments have the kernel's types, and the kernel touches no memory but that of this call's inputs
    /// (reading) and outputs.
    pub unsafe fn launch(&self, kernel: &Kernel<'_>, arguments: &[Argument]) -> Result<()> {
        let words: Vec<u64> = arguments.iter().map(|argument| argument.word()).collect();
        let places: Vec<*const c_void> =
            words.iter().map(|word| std::ptr::from_ref(word).cast()).collect();
        let args = abi::et_cuda_launch {
            struct_size: size_of::<abi::et_cuda_launch>(),
            ptx: borrow(kernel.ptx),
            kernel: borrow(kernel.name),
            grid_x: kernel.grid[0],
            grid_y: kernel.grid[1],
            grid_z: kernel.grid[2],
            block_x: kernel.block[0],
            block_y: kernel.block[1],
            block_z: kernel.block[2],
            shared_size: kernel.shared,
            args: places.as_ptr(),
            args_len: places.len(),
        };
        call!(self.0, et_host_cuda.launch(&args))
    }
}

/// Why an operation without code for a card cannot run there.
pub(crate) fn no_code(name: &std::ffi::CStr) -> Error {
    Error::new(
        abi::ET_ERR_UNIMPLEMENTED,
        format!(
            "{}: no code for a card; set Op::CUDA only with forward_cuda",
            name.to_string_lossy()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_at_the_first_byte_of_their_word() {
        for (argument, bytes) in [
            (Argument::U32(7), 7u32.to_ne_bytes().to_vec()),
            (Argument::I32(-2), (-2i32).to_ne_bytes().to_vec()),
            (Argument::F32(1.5), 1.5f32.to_ne_bytes().to_vec()),
            (Argument::F64(-0.5), (-0.5f64).to_ne_bytes().to_vec()),
            (Argument::I64(-3), (-3i64).to_ne_bytes().to_vec()),
            (Argument::Address(1 << 40), (1u64 << 40).to_ne_bytes().to_vec()),
        ] {
            assert_eq!(argument.word().to_ne_bytes()[..bytes.len()], bytes[..], "{argument:?}");
        }
    }

    #[test]
    fn extents_cover_every_element() {
        for (len, blocks) in [(0, 0), (1, 1), (256, 1), (257, 2)] {
            assert_eq!(Kernel::over("", "k", len, 256).grid, [blocks, 1, 1]);
        }
    }
}
