//! The linear layer of prediction: weights packed once, in f32, bf16 or int8.
//!
//! A packed weight is a row of panels, each 48 outputs wide. Within a panel lie groups of 4 bytes: one f32, two bf16
//! or four int8 of successive inputs of one output. The three precisions differ only in the instruction that
//! multiplies a group, which is why bf16 has twice and int8 four times the rate of f32 on a processor that has the
//! instructions (AVX512_BF16, AVX512_VNNI).
//!
//! | precision | weights | activations | sums |
//! |---|---|---|---|
//! | f32 | f32 | f32 | f32, inputs in order |
//! | bf16 | bf16, rounded to nearest even | bf16, rounded to nearest even | f32 |
//! | int8 | int8, symmetric, one scale per output | 8 bits, one scale and one zero point per row, found anew for each row | i32, exact |
//!
//! A row of the result depends on that row of x only, so a text gets the same answer alone and in any batch, with any
//! number of threads. int8 gives the same bits on all processors; the sums of f32 and bf16 are rounded as the
//! processor's instructions do.

mod lines;
mod pack;
mod quantize;
mod tile;
mod tile_int8_avx2;
mod tile_plain;

pub use pack::PackedWeight;
pub use quantize::{bf16_bits, bf16_value};

use crate::activation::Activation;
use crate::machine::scratch::with_scratch;
use crate::machine::{team, workers};
use crate::runs::SharedRows;
use crate::{Result, check_len, for_each_task};
use tile::{Block, Output, Rows8};

/// Outputs of a panel.
pub(crate) const PANEL: usize = 48;

/// What a linear layer computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerPrecision {
    /// Single precision.
    #[default]
    F32,
    /// Weights and activations rounded to bfloat16, sums in f32.
    Bf16,
    /// Weights in 8 bits with a scale per output, activations in 8 bits with a scale and a zero point per row, exact
    /// sums.
    Int8,
}

impl LayerPrecision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// "f32", "bf16" or "int8".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The precision of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

    /// Inputs in a group of 4 bytes.
    pub(crate) fn group(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

/// Bytes of x that a task takes at a time, so that they stay in the second-level cache beside a panel.
const BLOCK_BYTES: usize = 192 << 10;
/// Elements of y that a task finishes before it applies the activation.
const BLOCK_OUTPUTS: usize = 96 << 10;
/// Groups times outputs times rows below which the calling thread does it all, because handing over costs more than
/// it saves.
const SERIAL_WORK: usize = 3 << 20;
/// The same when the team's members are awake.
const SERIAL_WORK_OF_TEAM: usize = 1 << 19;

/// y = activation(x W^T + bias) for x [rows, inputs], a packed W [outputs, inputs], bias [outputs], y [rows, outputs].
///
/// # Errors
/// If a slice does not fit.
pub fn linear_packed(
    x: &[f32],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) -> Result {
    linear_packed_with(Instructions::best(weight.precision()), x, weight, bias, activation, y)
}

/// Which of the micro-kernels computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// AVX-512, with VNNI for int8 and BF16 for bf16.
    Avx512,
    /// AVX2.
    Avx2,
    /// Loops for which the compiler finds the instructions.
    Plain,
}

impl Instructions {
    /// The best that this processor has for a precision.
    pub(crate) fn best(precision: LayerPrecision) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use crate::machine::simd::{Level, level};
            let wide = level() == Level::Avx512;
            let has = match precision {
                LayerPrecision::F32 => wide,
                LayerPrecision::Bf16 => wide && std::is_x86_feature_detected!("avx512bf16"),
                LayerPrecision::Int8 => wide && std::is_x86_feature_detected!("avx512vnni"),
            };
            if has {
                return Self::Avx512;
            }
            if level() >= Level::Avx2 && precision == LayerPrecision::Int8 {
                return Self::Avx2;
            }
        }
        let _ = precision;
        Self::Plain
    }
}

pub(crate) fn linear_packed_with(
    instructions: Instructions,
    x: &[f32],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) -> Result {
    const NAME: &str = "linear_packed";
    let (inputs, outputs) = (weight.inputs(), weight.outputs());
    let rows = y.len().checked_div(outputs).unwrap_or(0);
    check_len(NAME, "y", rows * outputs, y.len())?;
    check_len(NAME, "x", rows * inputs, x.len())?;
    if let Some(bias) = bias {
        check_len(NAME, "bias", outputs, bias.len())?;
    }
    if rows == 0 {
        return Ok(());
    }
    let groups = weight.groups();
    let panels = outputs.div_ceil(PANEL);
    let work = rows * groups * outputs;
    let serial = if team::is_active() { SERIAL_WORK_OF_TEAM } else { SERIAL_WORK };
    let threads = if work < serial { 1 } else { workers::count() };
    let y = SharedRows::new(y, outputs);
    let finish =
        |rows: std::ops::Range<usize>, panels: std::ops::Range<usize>, block: Block<'_>| {
            let columns = panels.start * PANEL..(panels.end * PANEL).min(outputs);
            for panel in panels {
                let mut row = 0;
                while row < rows.len() {
                    let height = Rows8::height(rows.len() - row);
                    let output = Output { weight, bias, panel, y: &y, row: rows.start + row };
                    // SAFETY: `block` has `rows.len()` rows of as many groups as the weight; `Instructions::best`
                    // found the processor's features or a test asked for ones that it checked; this task alone writes
                    // these rows and columns.
                    unsafe { tile::run(instructions, &block, row, height, &output) };
                    row += height;
                }
            }
            if activation != Activation::None {
                for row in rows {
                    // SAFETY: this task alone writes these rows and columns.
                    activation.apply_serial(unsafe { y.segment(row, columns.clone()) });
                }
            }
        };
    let fit = (BLOCK_BYTES / (4 * groups)).min(BLOCK_OUTPUTS / outputs);
    let most = (fit / 8 * 8).max(16);
    // A thread that has all panels to itself reads the whole weight: for few rows that costs more than anything else,
    // the more so with f32, whose weights do not fit the cache.
    let enough = if weight.precision() == LayerPrecision::F32 { 64 } else { 16 };
    if threads == 1 || rows >= enough * threads || panels < threads {
        // By rows: each task quantises its own.
        let even = rows.div_ceil(rows.div_ceil(most).next_multiple_of(threads));
        let step = even.next_multiple_of(8);
        let tasks = (0..rows).step_by(step).map(|start| start..rows.min(start + step));
        let task = |part: std::ops::Range<usize>| {
            let x = &x[part.start * inputs..part.end * inputs];
            with_block(weight, x, part.len(), |block| finish(part.clone(), 0..panels, block));
        };
        if threads == 1 {
            tasks.for_each(task);
        } else {
            for_each_task(tasks.collect(), task);
        }
    } else {
        // Few rows: by panels, so that each thread reads only its part of the weight.
        with_block(weight, x, rows, |block| {
            let step = panels.div_ceil(threads);
            let tasks = (0..panels).step_by(step).map(|start| start..panels.min(start + step));
            for_each_task(tasks.collect(), |part| finish(0..rows, part, block));
        });
    }
    Ok(())
}

/// Calls `f` with `x` in the form that the weight's precision wants.
fn with_block(weight: &PackedWeight, x: &[f32], rows: usize, f: impl FnOnce(Block<'_>)) {
    let (inputs, groups) = (weight.inputs(), weight.groups());
    if weight.precision() == LayerPrecision::F32 {
        return f(Block { groups: as_bits(x), stride: groups, scales: &[], zeros: &[] });
    }
    with_scratch::<f32, _>(rows * (groups + 2), |scratch| {
        let (quantized, rest) = scratch.split_at_mut(rows * groups);
        let (scales, zeros) = rest.split_at_mut(rows);
        let (quantized, zeros) = (as_bits_mut(quantized), as_bits_mut(zeros));
        for row in 0..rows {
            let (x, q) = (&x[row * inputs..][..inputs], &mut quantized[row * groups..][..groups]);
            match weight.precision() {
                LayerPrecision::Int8 => (scales[row], zeros[row]) = quantize::row_int8(x, q),
                _ => quantize::row_bf16(x, q),
            }
        }
        f(Block { groups: quantized, stride: groups, scales, zeros });
    });
}

fn as_bits(x: &[f32]) -> &[u32] {
    // SAFETY: f32 and u32 have one size and alignment, and every pattern of bits is a u32.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

fn as_bits_mut(x: &mut [f32]) -> &mut [u32] {
    // SAFETY: as above, and every pattern of bits is an f32.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
}

#[cfg(test)]
mod tests;
