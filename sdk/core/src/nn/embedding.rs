//! Sums of table look-ups.

use super::{Direct, by_dtype, dense, give_written, given, integers};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::Float;
use crate::kernels::elementwise::Store;
use crate::kernels::embedding::{Lookup, SortedIds, check_ids, embedding_forward};
use crate::storage::{self, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Sum over k of tables_k [rows_k, h] at ids_k `[T]` I64. Errors: `INVALID_ARGUMENT` naming position, id and rows;
/// `SHAPE`, `DTYPE`.
pub fn embedding_sum(tables: &[&Tensor], ids: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "embedding_sum";
    let (Some(table), Some(first)) = (tables.first(), ids.first()) else {
        fail!(ET_ERR_INVALID_ARGUMENT, "embedding_sum: expected at least one table, found none");
    };
    let &[_, width] = table.dims() else {
        fail!(ET_ERR_SHAPE, "embedding_sum: a table must have two axes, found {:?}", table.dims());
    };
    let positions = first.elem_count();
    let mut values = Vec::with_capacity(ids.len());
    for (index, (table, ids)) in tables.iter().zip(ids).enumerate() {
        if table.dims().len() != 2 || table.dims()[1] != width {
            fail!(
                ET_ERR_SHAPE,
                "embedding_sum: table {index} must have the shape [rows, {width}], found {:?}",
                table.dims()
            );
        }
        let value = integers(OP, "ids", ids)?;
        if value.elem_count() != positions {
            fail!(
                ET_ERR_SHAPE,
                "embedding_sum: all ids must have one length, expected {positions}, found {} for table {index}",
                value.elem_count()
            );
        }
        values.push(value);
    }
    let inputs: Vec<Option<&Tensor>> = tables.iter().map(|table| Some(*table)).collect();
    by_dtype(OP, &inputs, |tables, double| {
        if double {
            typed::<f64>(tables, values, positions, width)
        } else {
            typed::<f32>(tables, values, positions, width)
        }
    })
}

fn typed<F: Direct>(
    tables: &[Option<Tensor>],
    ids: Vec<Value>,
    positions: usize,
    width: usize,
) -> Result<Tensor> {
    let tables: Vec<&Tensor> =
        (0..tables.len()).map(|index| given(tables, index)).collect::<Result<_>>()?;
    let on_device = device::offer(&tables, |device| {
        for (table, ids) in tables.iter().zip(&ids) {
            check_ids("embedding_forward", &storage::read::<i64>(ids)?, table.dims()[0])?;
        }
        device.embedding_sum(&tables, &ids, positions, width)
    })?;
    if let Some(y) = on_device {
        return Ok(y);
    }
    let mut y = storage::take::<F>(positions * width);
    {
        let dense = tables.iter().map(|t| dense(t.value())).collect::<Result<Vec<_>>>()?;
        let rows = dense.iter().map(|t| storage::read::<F>(t)).collect::<Result<Vec<_>>>()?;
        let ids = ids.iter().map(|ids| storage::read::<i64>(ids)).collect::<Result<Vec<_>>>()?;
        let lookups: Vec<Lookup<'_, F>> =
            rows.iter().zip(&ids).map(|(table, ids)| Lookup { table, ids }).collect();
        embedding_forward(width, &lookups, &mut y)?;
    }
    let y = storage::tensor_from_vec(y, (positions, width))?;
    let shapes: Vec<Vec<usize>> = tables.iter().map(|table| table.dims().to_vec()).collect();
    Ok(record1("embedding_sum", &tables, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let grad = storage::read::<F>(&grad)?;
        for (index, (shape, ids)) in shapes.iter().zip(&ids).enumerate() {
            if !pass.wants(index) {
                continue;
            }
            let ids = storage::read::<i64>(ids)?;
            // A leaf that knows which rows were touched spares everybody the others.
            let order = SortedIds::new(&ids, shape[0], None)?;
            let mut result = Ok(());
            let written = F::leaf_rows(pass, index, width, &order.unique(), &mut |dtable| {
                result = order.add_to(width, &grad, dtable);
            })?;
            result?;
            if written {
                continue;
            }
            give_written::<F>(pass, index, shape, |store, dtable| {
                if store == Store::Write {
                    dtable.fill(<F as Float>::ZERO);
                }
                Ok(order.add_to(width, &grad, dtable)?)
            })?;
        }
        Ok(())
    }))
}
