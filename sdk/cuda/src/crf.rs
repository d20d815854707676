//! The negative log likelihood of a conditional random field; decoding is the host's.

use candle_core::DType;

use super::activation::finish_columns;
use super::launch::{Launch, Module::Crf, Module::Losses};
use super::linear::give_written;
use super::memory::{empty, floats, on_card, upload};
use super::mixed::elements;
use easytransfer_core::error::Result;
use easytransfer_core::storage::{self, Value};
use easytransfer_core::tape::record1;
use easytransfer_core::tensor::Tensor;

/// The mean over runs for `tensors` emissions [T, classes], transitions, first and last; `tags` [T] and `starts` are
/// in host memory and were checked.
pub(crate) fn loss(
    tensors: [&Tensor; 4],
    tags: &Value,
    starts: &Value,
    classes: usize,
) -> Result<Tensor> {
    let rows = tensors[0].dims()[0];
    let values = tensors.iter().map(|x| elements(x, DType::F32)).collect::<Result<Vec<_>>>()?;
    let tags = upload(&storage::read::<i64>(tags)?, rows)?;
    let runs = starts.elem_count() - 1;
    let starts = upload(&storage::read::<i64>(starts)?, runs + 1)?;
    let (alpha, totals) = (empty(DType::F64, (rows, classes))?, empty(DType::F64, runs)?);
    let (nll, loss, inverse) = (floats(runs)?, floats(())?, floats(())?);
    let launch = Launch::new(Crf, "et_crf_forward").grid(runs, 1).block(128, 1).u64(classes);
    let launch = launch.tensor(&starts).tensor(&values[0]).tensor(&tags);
    let launch = launch.tensor(&values[1]).tensor(&values[2]).tensor(&values[3]);
    // SAFETY: the starts cover the rows of emissions, tags and alpha; tags are classes; totals and nll have an
    // element per run.
    unsafe { launch.tensor(&alpha).tensor(&totals).tensor(&nll).run() }?;
    let mean = Launch::new(Losses, "et_binary_mean").u64(runs).maybe(None).tensor(&nll);
    // SAFETY: nll has an element per run, the results one; the grid is one block.
    unsafe { mean.tensor(&loss).tensor(&inverse).run() }?;
    Ok(record1("crf_loss", &tensors, loss, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let dloss = on_card(&grad)?;
        let room = empty(DType::F64, (runs, 2 * classes))?;
        let demissions = floats((rows, classes))?;
        let partial: [Value; 3] = [
            floats((runs, classes * classes))?,
            floats((runs, classes))?,
            floats((runs, classes))?,
        ];
        let launch = Launch::new(Crf, "et_crf_backward").grid(runs, 1).block(128, 1);
        let launch = launch.u64(classes).tensor(&starts).tensor(&values[0]).tensor(&tags);
        let launch = launch.tensor(&values[1]).tensor(&values[3]).tensor(&alpha).tensor(&totals);
        let launch = launch.tensor(&dloss).tensor(&inverse).tensor(&room).tensor(&demissions);
        let launch = launch.tensor(&partial[0]).tensor(&partial[1]).tensor(&partial[2]);
        // SAFETY: as forward; scratch and partial sums have a row per run.
        unsafe { launch.run() }?;
        for (index, partial) in partial.iter().enumerate() {
            let shape = if index == 0 { vec![classes, classes] } else { vec![classes] };
            let cols = shape.iter().product();
            give_written(pass, index + 1, &shape, |out, add| {
                finish_columns(partial, runs, cols, add, out)
            })?;
        }
        pass.give(0, demissions)
    }))
}
