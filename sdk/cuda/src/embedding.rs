//! Sums of table look-ups. Gradients are summed in the order of the positions, without atomics: positions are sorted
//! by id, long lists are cut into pieces, and the sums of the pieces are added in order.

use candle_core::{DType, Tensor as Raw};

use super::launch::{Launch, Module::Rows};
use super::linear::give_written;
use super::memory::{address, clear, empty, floats, table, upload};
use super::mixed::{elements, gradient, gradient_type, kept_type, named};
use easytransfer_core::error::Result;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record_narrow;
use easytransfer_core::tensor::Tensor;

/// Tables of one launch: `ET_TABLES`.
const TABLES: usize = 4;
/// Positions of one piece.
const PIECE: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Tables {
    table: [u64; TABLES],
    ids: [u64; TABLES],
}

/// y [positions, width]; the ids are in host memory and were checked against the tables.
pub(crate) fn embedding_sum(
    tables: &[&Tensor],
    ids: Vec<Value>,
    positions: usize,
    width: usize,
) -> Result<Tensor> {
    let kept = kept_type()?;
    let y = empty(kept, (positions, width))?;
    let values =
        tables.iter().map(|table| elements(table, DType::F32)).collect::<Result<Vec<_>>>()?;
    let places = ids
        .iter()
        .map(|ids| upload(&storage::read::<i64>(ids)?, positions))
        .collect::<Result<Vec<Value>>>()?;
    for (part, (values, places)) in values.chunks(TABLES).zip(places.chunks(TABLES)).enumerate() {
        let mut arguments = Tables::default();
        for (slot, (value, place)) in values.iter().zip(places).enumerate() {
            arguments.table[slot] = address(value)?;
            arguments.ids[slot] = address(place)?;
        }
        let names =
            ["et_embedding_forward", "et_embedding_forward_bf16", "et_embedding_forward_f16"];
        let launch = Launch::new(Rows, named(kept, names)).grid(positions, 1).u64(width);
        let launch = launch.i32(values.len() as i32).flag(part > 0).value(arguments).tensor(&y);
        // SAFETY: ids are rows of their tables, y has one row per position.
        unsafe { launch.run() }?;
    }
    let shapes: Vec<Vec<usize>> = tables.iter().map(|table| table.dims().to_vec()).collect();
    Ok(record_narrow("embedding_sum", tables, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = gradient(&grad, gradient_type(kept))?;
        for (index, (shape, ids)) in shapes.iter().zip(&ids).enumerate() {
            if !pass.wants(index) {
                continue;
            }
            let plan = Plan::new(&storage::read::<i64>(ids)?);
            give_written(pass, index, shape, |out, add| {
                if !add {
                    clear(out)?;
                }
                plan.add(width, &grad, out)
            })?;
        }
        Ok(())
    }))
}

/// Which positions have which id.
struct Plan {
    /// Positions, sorted by id and then by place.
    order: Vec<u32>,
    /// Where each piece begins in `order`, and its end.
    starts: Vec<u32>,
    /// The ids that occur.
    ids: Vec<u32>,
    /// Where the pieces of each id begin, and their end.
    pieces: Vec<u32>,
}

impl Plan {
    fn new(ids: &[i64]) -> Self {
        let mut keys: Vec<u64> =
            ids.iter().enumerate().map(|(at, &id)| (id as u64) << 32 | at as u64).collect();
        keys.sort_unstable();
        let mut plan = Self {
            order: keys.iter().map(|&key| key as u32).collect(),
            starts: Vec::new(),
            ids: Vec::new(),
            pieces: Vec::new(),
        };
        let mut at = 0;
        for group in keys.chunk_by(|a, b| a >> 32 == b >> 32) {
            plan.ids.push((group[0] >> 32) as u32);
            plan.pieces.push(plan.starts.len() as u32);
            plan.starts.extend((at..at + group.len()).step_by(PIECE).map(|start| start as u32));
            at += group.len();
        }
        plan.pieces.push(plan.starts.len() as u32);
        plan.starts.push(at as u32);
        plan
    }

    /// dtable += the sums of the rows of dy, f32 or bf16, by id.
    fn add(&self, width: usize, dy: &Raw, dtable: &Raw) -> Result<()> {
        let pieces = self.starts.len() - 1;
        if pieces == 0 || width == 0 {
            return Ok(());
        }
        let partial = floats((pieces, width))?;
        let (starts, order) = (table(&self.starts)?, table(&self.order)?);
        let names = ["et_embedding_pieces", "et_embedding_pieces_bf16", ""];
        let launch = Launch::new(Rows, named(dy.dtype(), names)).grid(pieces, 1).u64(width);
        let launch = launch.tensor(&starts).tensor(&order).tensor(dy).tensor(&partial);
        // SAFETY: positions are rows of dy, partial has one row per piece.
        unsafe { launch.run() }?;
        let (pieces, ids) = (table(&self.pieces)?, table(&self.ids)?);
        let launch = Launch::new(Rows, "et_embedding_finish").grid(self.ids.len(), 1).u64(width);
        let launch = launch.tensor(&pieces).tensor(&ids).tensor(&partial).tensor(dtable);
        // SAFETY: ids are rows of the table, each occurs once.
        unsafe { launch.run() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_grouped_in_order_and_long_groups_are_cut() {
        let mut ids = vec![7i64; PIECE + 3];
        ids[1] = 2;
        let plan = Plan::new(&ids);
        assert_eq!(plan.ids, [2, 7]);
        assert_eq!(plan.pieces, [0, 1, 3]);
        assert_eq!(plan.starts, [0, 1, 1 + PIECE as u32, ids.len() as u32]);
        assert_eq!(&plan.order[..4], [1, 0, 2, 3]);
        let empty = Plan::new(&[]);
        assert_eq!((empty.starts.len(), empty.pieces.len()), (1, 1));
    }
}
