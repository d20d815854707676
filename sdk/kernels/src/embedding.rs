//! Sums of table lookups: word, position and segment embeddings in one pass.

use crate::elementwise::Store;
use crate::machine::simd::multiversion;
use crate::{Float, KernelError, Result, blocks, check_len, for_each_task, rows_per_block};

/// One table and the rows that every position takes from it.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a, F> {
    /// [rows, width].
    pub table: &'a [F],
    /// One id per position, each in 0..rows.
    pub ids: &'a [i64],
}

multiversion! {
    fn add_row<F: Float>(row: &[F], out: &mut [F]) {
        for (out, &value) in out.iter_mut().zip(row) {
            *out += value;
        }
    }
}

/// Refuses ids `[n]` that are no row of a table of `rows` rows; `kernel` is named in the error.
///
/// # Errors
/// `Index`, with the position of the first one.
pub fn check_ids(kernel: &'static str, ids: &[i64], rows: usize) -> Result {
    // A negative id is a huge one without its sign.
    match ids.iter().position(|&id| id as u64 >= rows as u64) {
        None => Ok(()),
        Some(position) => Err(KernelError::Index {
            kernel,
            argument: "ids",
            position,
            value: ids[position],
            bound: rows,
        }),
    }
}

/// out`[t]` = sum over the lookups of table[ids`[t]`]; `out` is [positions, width].
///
/// # Errors
/// If a slice does not fit, or an id lies outside its table: the error names position, id and rows.
pub fn embedding_forward<F: Float>(
    width: usize,
    lookups: &[Lookup<'_, F>],
    out: &mut [F],
) -> Result {
    const NAME: &str = "embedding_forward";
    let positions = out.len() / width.max(1);
    check_len(NAME, "out", positions * width, out.len())?;
    for lookup in lookups {
        let rows = lookup.table.len() / width.max(1);
        check_len(NAME, "table", rows * width, lookup.table.len())?;
        check_len(NAME, "ids", positions, lookup.ids.len())?;
        check_ids(NAME, lookup.ids, rows)?;
    }
    if out.is_empty() {
        return Ok(());
    }
    let block_rows = rows_per_block(width);
    let starts = blocks(positions, block_rows);
    let tasks = starts.into_iter().zip(out.chunks_mut(block_rows * width)).collect();
    for_each_task(tasks, |(range, out)| {
        for (position, out) in range.zip(out.chunks_exact_mut(width)) {
            out.fill(F::ZERO);
            for lookup in lookups {
                let id = lookup.ids[position] as usize;
                add_row(&lookup.table[id * width..(id + 1) * width], out);
            }
        }
    });
    Ok(())
}

/// The positions of a list of ids, sorted by id and then by position, so that each row's sum has one order.
#[derive(Debug, Clone)]
pub struct SortedIds {
    /// The id in the upper half, the position in the lower.
    order: Vec<u64>,
    /// Number of ids in the list, the padding id included.
    positions: usize,
}

/// The id and the position of an entry.
fn parts_of(entry: u64) -> (usize, usize) {
    ((entry >> 32) as usize, (entry & u64::from(u32::MAX)) as usize)
}

impl SortedIds {
    /// Sorts the ids of a table of `rows` rows; `padding_id`, if given, is left out.
    ///
    /// # Errors
    /// If an id lies outside the table, or ids or positions do not fit 32 bits.
    pub fn new(ids: &[i64], rows: usize, padding_id: Option<i64>) -> Result<Self> {
        const NAME: &str = "embedding_backward";
        check_ids(NAME, ids, rows.min(1 << 32))?;
        check_len(NAME, "ids", ids.len().min(u32::MAX as usize), ids.len())?;
        let entries = ids.iter().enumerate().filter(|(_, id)| Some(**id) != padding_id);
        let mut order: Vec<u64> =
            entries.map(|(position, &id)| (id as u64) << 32 | position as u64).collect();
        order.sort_unstable();
        Ok(Self { order, positions: ids.len() })
    }

    /// The ids that occur, ascending, each once.
    pub fn unique(&self) -> Vec<u32> {
        let groups = self.order.chunk_by(|a, b| a >> 32 == b >> 32);
        groups.map(|group| (group[0] >> 32) as u32).collect()
    }

    /// dtable`[id]` += the sum of `dout` [positions, width] over the positions with that id, in their order. Other rows
    /// are not touched.
    ///
    /// # Errors
    /// If a slice does not fit.
    ///
    /// # Panics
    /// If the table has fewer rows than [`SortedIds::new`] was told.
    pub fn add_to<F: Float>(&self, width: usize, dout: &[F], dtable: &mut [F]) -> Result {
        check_len("embedding_backward", "dout", self.positions * width, dout.len())?;
        if width == 0 {
            return Ok(());
        }
        // Tasks of about equally many positions, cut between ids; each owns the table rows up to its last id.
        let mut tasks = Vec::new();
        let (mut order, mut rest, mut first_row) = (&self.order[..], dtable, 0);
        while !order.is_empty() {
            let mut end = order.len().min(rows_per_block(width));
            let last = parts_of(order[end - 1]).0;
            end += order[end..].partition_point(|&entry| parts_of(entry).0 == last);
            let (part, later) = order.split_at(end);
            let (table, tail) = rest.split_at_mut((last + 1 - first_row) * width);
            tasks.push((first_row, part, table));
            (order, rest, first_row) = (later, tail, last + 1);
        }
        for_each_task(tasks, |(first_row, part, table)| {
            for &entry in part {
                let (id, position) = parts_of(entry);
                let at = (id - first_row) * width;
                add_row(
                    &dout[position * width..(position + 1) * width],
                    &mut table[at..at + width],
                );
            }
        });
        Ok(())
    }
}

/// Gradient of one table: dtable`[id]` receives the sum of `dout` [positions, width] over the
/// positions with that id, in the order of the positions. `padding_id`, if given, gets no gradient.
/// `Store::Write` clears the table first.
///
/// # Errors
/// If a slice does not fit, or an id lies outside the table.
pub fn embedding_backward<F: Float>(
    width: usize,
    ids: &[i64],
    dout: &[F],
    padding_id: Option<i64>,
    store: Store,
    dtable: &mut [F],
) -> Result {
    const NAME: &str = "embedding_backward";
    let rows = dtable.len() / width.max(1);
    check_len(NAME, "dtable", rows * width, dtable.len())?;
    check_len(NAME, "dout", ids.len() * width, dout.len())?;
    let order = SortedIds::new(ids, rows, padding_id)?;
    if store == Store::Write {
        let block = rows_per_block(width) * width.max(1);
        for_each_task(dtable.chunks_mut(block).collect(), |part| part.fill(F::ZERO));
    }
    order.add_to(width, dout, dtable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_close, assert_same_bits, dot, numeric_gradient, random, with_one_and_three_threads,
    };

    #[test]
    fn forward_sums_the_rows() {
        let (a, b): (Vec<f64>, Vec<f64>) = (random(5 * 3, 1), random(2 * 3, 2));
        let mut out = vec![9.0; 6];
        let lookups = [Lookup { table: &a, ids: &[4, 0] }, Lookup { table: &b, ids: &[1, 1] }];
        embedding_forward(3, &lookups, &mut out).unwrap();
        let expected: Vec<f64> =
            (0..3).map(|i| a[12 + i] + b[3 + i]).chain((0..3).map(|i| a[i] + b[3 + i])).collect();
        assert_close(&out, &expected, 1e-15);
    }

    #[test]
    fn backward_matches_differences_and_skips_padding() {
        let table: Vec<f64> = random(6 * 4, 1);
        let ids = [3, 0, 3, 5, 0, 3];
        let g: Vec<f64> = random(24, 2);
        let expected = numeric_gradient(&table, |table| {
            let mut out = vec![0.0; 24];
            embedding_forward(4, &[Lookup { table, ids: &ids }], &mut out).unwrap();
            dot(&out, &g)
        });
        let mut found = vec![f64::NAN; 24];
        embedding_backward(4, &ids, &g, None, Store::Write, &mut found).unwrap();
        assert_close(&found, &expected, 1e-8);
        let mut without = vec![0.0; 24];
        embedding_backward(4, &ids, &g, Some(0), Store::Add, &mut without).unwrap();
        assert_eq!(without[..4], [0.0; 4]);
        assert_eq!(without[4..], found[4..]);
    }

    #[test]
    fn ids_outside_the_table_are_named() {
        for bad in [-1, 5] {
            let lookup = Lookup { table: &[0f32; 10], ids: &[0, bad] };
            let text = embedding_forward(2, &[lookup], &mut [0.0; 4]).unwrap_err().to_string();
            assert_eq!(
                text,
                format!(
                    "embedding_forward: ids[1] is {bad}, expected 0 to 4 (the table has 5 rows)"
                )
            );
        }
        let mut table = [0f32; 4];
        assert!(embedding_backward(2, &[2], &[1.0, 1.0], None, Store::Add, &mut table).is_err());
        embedding_forward::<f32>(2, &[], &mut []).unwrap();
    }

    #[test]
    fn threads_do_not_change_bits() {
        let (width, positions, rows) = (64, 3000, 50);
        let ids: Vec<i64> = (0..positions as i64).map(|i| i * i * 7 % rows).collect();
        let g: Vec<f32> = random(positions * width, 1);
        let (one, three) = with_one_and_three_threads(|| {
            let mut table = vec![1f32; rows as usize * width];
            embedding_backward(width, &ids, &g, None, Store::Add, &mut table).unwrap();
            let mut out = vec![0f32; positions * width];
            embedding_forward(width, &[Lookup { table: &table, ids: &ids }], &mut out).unwrap();
            [table, out].concat()
        });
        assert_same_bits(&one, &three);
    }
}
