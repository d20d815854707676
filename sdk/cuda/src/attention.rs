//! Attention over runs: no padding, no mask, and no matrix of scores in memory.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Tensor as Raw};

use super::device::{Precision, engine};
use super::launch::{Dropout, Launch, Module};
use super::memory::{empty, floats, table};
use super::mixed::{elements, gradient, gradient_type, is_half, kept_type, named};
use easytransfer_core::error::{Result, fail};
use easytransfer_core::nn::dense;
use easytransfer_core::storage::Value;
use easytransfer_core::sync::lock;
use easytransfer_core::tape::record_narrow;
use easytransfer_core::tensor::Tensor;
use easytransfer_kernels::attention::AttentionShape;
use easytransfer_kernels::philox;

/// Queries (or keys) of one block: `TILE` of the kernels.
const TILE: usize = 64;
/// Threads of a block of the kernels for half precision: `THREADS`.
const HALF_THREADS: u32 = 128;
/// Elements from one column to the next in shared memory: `PITCH`.
const PITCH: usize = 68;
/// Largest head that the kernels hold.
pub(crate) const LARGEST_HEAD: usize = 128;
/// Plans that are kept: a batch's starts serve every layer, forward and backward.
const PLANS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy)]
struct Run {
    query: u32,
    queries: u32,
    key: u32,
    keys: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tile {
    run: u32,
    first: u32,
}

/// `EtAttention` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    heads: u32,
    head_size: u32,
    query_step: u32,
    key_step: u32,
    value_step: u32,
    row_len: u32,
    causal: i32,
    has_dropout: i32,
    scale: f32,
    mask_words: u32,
    dropout: Dropout,
}

/// Runs and tiles on the card.
struct Plan {
    query_starts: Vec<i64>,
    key_starts: Vec<i64>,
    runs: Value,
    query_tiles: Value,
    query_blocks: usize,
    key_tiles: Value,
    key_blocks: usize,
}

static RECENT: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());

fn tiles(lens: impl Iterator<Item = u32>) -> Vec<Tile> {
    let mut all: Vec<(u32, Tile)> = Vec::new();
    for (run, len) in lens.enumerate() {
        let firsts = (0..len as usize).step_by(TILE);
        all.extend(firsts.map(|first| (len, Tile { run: run as u32, first: first as u32 })));
    }
    // Long runs first: their blocks take longest.
    all.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    all.into_iter().map(|(_, tile)| tile).collect()
}

impl Plan {
    /// The plan for these starts, which were checked.
    fn of(query_starts: &[i64], key_starts: &[i64]) -> Result<Arc<Plan>> {
        let mut recent = lock(&RECENT);
        let known = recent
            .iter()
            .find(|plan| plan.query_starts == query_starts && plan.key_starts == key_starts);
        if let Some(plan) = known {
            return Ok(plan.clone());
        }
        let runs: Vec<Run> = query_starts
            .windows(2)
            .zip(key_starts.windows(2))
            .map(|(q, k)| Run {
                query: q[0] as u32,
                queries: (q[1] - q[0]) as u32,
                key: k[0] as u32,
                keys: (k[1] - k[0]) as u32,
            })
            .collect();
        let query_tiles = tiles(runs.iter().map(|run| run.queries));
        let key_tiles = tiles(runs.iter().map(|run| run.keys));
        let plan = Arc::new(Plan {
            query_starts: query_starts.to_vec(),
            key_starts: key_starts.to_vec(),
            runs: table(&runs)?,
            query_blocks: query_tiles.len(),
            query_tiles: table(&query_tiles)?,
            key_blocks: key_tiles.len(),
            key_tiles: table(&key_tiles)?,
        });
        if recent.len() >= PLANS {
            recent.remove(0);
        }
        recent.push(plan.clone());
        Ok(plan)
    }
}

/// The elements in `kept`, in place if that is how they are kept and if rows are gapless in themselves (a third of a
/// wider matrix is), else a copy; and the elements from one row to the next.
fn rows_of(x: &Tensor, kept: DType) -> Result<(Value, usize)> {
    if x.stored().dtype() != kept {
        return Ok((elements(x, kept)?, x.dims()[1]));
    }
    let x = x.stored();
    let (dims, stride) = (x.dims(), x.stride());
    let apart = dims.len() == 2 && (dims[1] <= 1 || stride[1] == 1) && stride[0] >= dims[1];
    if apart && dims[0] > 1 {
        return Ok((Value::new(x.clone()), stride[0]));
    }
    Ok((dense(x)?, dims[1]))
}

/// Kernel names for heads of up to 32, 64, 96 and 128 columns: forward, gradient of the queries, gradients of keys
/// and values.
type Names = [[&'static str; 3]; 4];

const SINGLE: Names = [
    ["et_attention_forward_32", "et_attention_query_32", "et_attention_key_32"],
    ["et_attention_forward_64", "et_attention_query_64", "et_attention_key_64"],
    ["et_attention_forward_96", "et_attention_query_96", "et_attention_key_96"],
    ["et_attention_forward_128", "et_attention_query_128", "et_attention_key_128"],
];

const BF16: Names = [
    ["et_attention_forward_bf16_32", "et_attention_query_bf16_32", "et_attention_key_bf16_32"],
    ["et_attention_forward_bf16_64", "et_attention_query_bf16_64", "et_attention_key_bf16_64"],
    ["et_attention_forward_bf16_96", "et_attention_query_bf16_96", "et_attention_key_bf16_96"],
    ["et_attention_forward_bf16_128", "et_attention_query_bf16_128", "et_attention_key_bf16_128"],
];

/// Products of the gradients read bfloat16, to which what half precision kept is converted on the way.
const F16: Names = [
    ["et_attention_forward_f16_32", "et_attention_query_f16_32", "et_attention_key_f16_32"],
    ["et_attention_forward_f16_64", "et_attention_query_f16_64", "et_attention_key_f16_64"],
    ["et_attention_forward_f16_96", "et_attention_query_f16_96", "et_attention_key_f16_96"],
    ["et_attention_forward_f16_128", "et_attention_query_f16_128", "et_attention_key_f16_128"],
];

/// Which of the three kernels.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    Forward,
    Queries,
    Keys,
}

/// What one call of attention has beside its tensors.
struct Call {
    shape: Shape,
    plan: Arc<Plan>,
    class: usize,
    precision: Precision,
}

/// Bytes of shared memory that a kernel lays out.
fn shared_bytes(class: usize, precision: Precision, which: Which) -> usize {
    let columns = 32 * (class + 1);
    if matches!(precision, Precision::F32 | Precision::Tf32) {
        let operands = if which == Which::Forward { 3 } else { 4 };
        return (operands * columns + TILE) * PITCH * 4;
    }
    // `STAGES`, `OPERAND` and `Levels` of the kernels: what a block keeps, and what is streamed through.
    let stages = if columns <= 64 { 2 } else { 1 };
    let (operand, levels) = (TILE * (columns + 8) * 2, TILE * 16);
    match which {
        Which::Forward => (1 + 2 * stages) * operand,
        Which::Queries => (2 + 2 * stages) * operand,
        Which::Keys => (2 + 2 * stages) * operand + stages * levels,
    }
}

impl Call {
    /// A launch over the tiles of queries, or of keys.
    fn launch(&self, which: Which) -> Launch {
        let (tiles, blocks) = if which == Which::Keys {
            (&self.plan.key_tiles, self.plan.key_blocks)
        } else {
            (&self.plan.query_tiles, self.plan.query_blocks)
        };
        let (module, names) = match self.precision {
            Precision::F32 | Precision::Tf32 => (Module::Attention, &SINGLE),
            Precision::Bf16 => (Module::AttentionHalf, &BF16),
            Precision::F16 => (Module::AttentionHalf, &F16),
        };
        let threads = if module == Module::Attention { 256 } else { HALF_THREADS };
        Launch::new(module, names[self.class][which as usize])
            .grid(blocks, self.shape.heads as usize)
            .block(threads, 1)
            .shared(shared_bytes(self.class, self.precision, which))
            .value(self.shape)
            .tensor(&self.plan.runs)
            .tensor(tiles)
    }

    /// The argument that only the kernels for half precision have; those of f32 draw dropout's decisions again.
    fn with_mask(&self, launch: Launch, mask: Option<&Raw>) -> Launch {
        match self.precision {
            Precision::F32 | Precision::Tf32 => launch,
            Precision::Bf16 | Precision::F16 => launch.maybe(mask),
        }
    }
}

/// q [Tq, H], k and v [Tk, H], f32; the shape and its starts were checked and heads have at most [`LARGEST_HEAD`]
/// columns.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: AttentionShape<'_>,
    dropout: Option<philox::Dropout>,
) -> Result<Tensor> {
    let (heads, head_size) = (shape.heads, shape.head_size);
    let (queries, keys, width) = (q.dims()[0], k.dims()[0], heads * head_size);
    if queries > u32::MAX as usize / 2 || keys > u32::MAX as usize / 2 {
        fail!(ET_ERR_SHAPE, "attention: {queries} queries and {keys} keys are too many");
    }
    let kept = kept_type()?;
    let back = gradient_type(kept);
    let ((vq, query_step), (vk, key_step), (vv, value_step)) =
        (rows_of(q, kept)?, rows_of(k, kept)?, rows_of(v, kept)?);
    let row_len = shape.dropout_elements().checked_div((queries * heads) as u64).unwrap_or(0);
    // Dropout's decisions, which forward leaves for backward.
    let mask_words = (row_len as usize).div_ceil(TILE);
    let mask = (is_half(kept) && dropout.is_some())
        .then(|| empty(DType::I64, (queries, heads, mask_words)))
        .transpose()?;
    let call = Call {
        shape: Shape {
            heads: heads as u32,
            head_size: head_size as u32,
            query_step: query_step as u32,
            key_step: key_step as u32,
            value_step: value_step as u32,
            row_len: row_len as u32,
            causal: i32::from(shape.causal),
            has_dropout: i32::from(dropout.is_some()),
            scale: shape.scale as f32,
            mask_words: mask_words as u32,
            dropout: Dropout::from(dropout),
        },
        plan: Plan::of(shape.query_starts, shape.key_starts)?,
        class: (head_size - 1) / 32,
        precision: engine()?.precision,
    };
    let o = empty(kept, (queries, width))?;
    let lse = floats((queries, heads))?;
    let launch = call.launch(Which::Forward).tensor(&vq).tensor(&vk).tensor(&vv);
    let launch = call.with_mask(launch.tensor(&o).tensor(&lse), mask.as_deref());
    // SAFETY: the tiles cover the queries of runs that lie within q, k and v; o has a row and lse a number per query
    // and head, and the mask a word for every tile of the keys of the longest run.
    unsafe { launch.run() }?;
    let saved_o = o.clone();
    Ok(record_narrow("attention", &[q, k, v], o, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, back)?;
        let delta = floats((queries, heads))?;
        let module = if is_half(kept) { Module::AttentionHalf } else { Module::Attention };
        let names = ["et_attention_delta", "et_attention_delta_bf16", "et_attention_delta_f16"];
        let launch = Launch::new(module, named(kept, names)).rows(queries * heads);
        let launch = launch.u64(queries * heads).u32(call.shape.head_size);
        // SAFETY: o and its gradient have head_size elements for each of the queries * heads results.
        unsafe { launch.tensor(&saved_o).tensor(&grad).tensor(&delta).run() }?;
        if pass.wants(0) {
            let dq = empty(back, (queries, width))?;
            let launch = call.launch(Which::Queries).tensor(&vq).tensor(&vk).tensor(&vv);
            let launch = launch.tensor(&grad).tensor(&lse).tensor(&delta);
            let launch = call.with_mask(launch, mask.as_deref()).tensor(&dq);
            // SAFETY: as forward; dq has a row per query.
            unsafe { launch.run() }?;
            pass.give(0, dq)?;
        }
        if pass.wants(1) || pass.wants(2) {
            let (dk, dv) = (empty(back, (keys, width))?, empty(back, (keys, width))?);
            let launch = call.launch(Which::Keys).tensor(&vq).tensor(&vk).tensor(&vv);
            let launch = launch.tensor(&grad).tensor(&lse).tensor(&delta);
            let launch = call.with_mask(launch, mask.as_deref());
            // SAFETY: the tiles cover the keys; dk and dv have a row per key.
            unsafe { launch.tensor(&dk).tensor(&dv).run() }?;
            pass.give(1, dk)?;
            pass.give(2, dv)?;
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_runs_and_long_runs_come_first() {
        let tiles = tiles([3u32, 0, 130].into_iter());
        let found: Vec<(u32, u32)> = tiles.iter().map(|tile| (tile.run, tile.first)).collect();
        assert_eq!(found, [(2, 0), (2, 64), (2, 128), (0, 0)]);
    }

    #[test]
    fn shared_memory_fits_every_card() {
        for class in 0..4 {
            for precision in [Precision::F32, Precision::Bf16] {
                for which in [Which::Forward, Which::Queries, Which::Keys] {
                    // What a block may have on compute capability 8.0, and in half precision on 8.6 and 8.9.
                    let room = if precision == Precision::F32 { 163 } else { 99 };
                    assert!(shared_bytes(class, precision, which) <= room * 1024);
                }
            }
        }
    }

    #[test]
    fn the_twins_of_the_kernels_structures_have_their_sizes() {
        assert_eq!((size_of::<Run>(), size_of::<Tile>()), (16, 8));
        assert_eq!((size_of::<Dropout>(), size_of::<Shape>()), (32, 72));
    }
}
