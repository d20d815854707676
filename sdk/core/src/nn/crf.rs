//! Linear-chain conditional random fields.

use super::{Direct, by_dtype, check_shape, dense, give_vec, given, integers, run_starts, wanted};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::Float;
use crate::kernels::crf::{
    CrfGradients, CrfShape, CrfWeights, check_tags, crf_backward, crf_decode, crf_forward,
};
use crate::kernels::elementwise::Store;
use crate::storage::{self, Value};
use crate::tape::record1;
use crate::tensor::Tensor;

/// Scores of a field: transitions [C, C] (from, to), first `[C]`, last `[C]`.
#[derive(Clone, Copy)]
pub struct Scores<'a> {
    /// From tag (row) to the next tag (column).
    pub transitions: &'a Tensor,
    /// Of the first tag of a run.
    pub first: &'a Tensor,
    /// Of the last tag of a run.
    pub last: &'a Tensor,
}

fn check(op: &'static str, emissions: &Tensor, scores: Scores<'_>) -> Result<(usize, usize)> {
    let &[rows, classes] = emissions.dims() else {
        fail!(
            ET_ERR_SHAPE,
            "{op}: emissions must have the shape [T, C], found {:?}",
            emissions.dims()
        );
    };
    if classes == 0 {
        fail!(ET_ERR_SHAPE, "{op}: there must be at least one class, found none");
    }
    check_shape(op, "transitions", scores.transitions, &[classes, classes])?;
    check_shape(op, "first", scores.first, &[classes])?;
    check_shape(op, "last", scores.last, &[classes])?;
    Ok((rows, classes))
}

/// Mean over runs of the negative log likelihood (Lafferty et al. 2001) of tags `[T]` I64; 0 without runs. Errors:
/// `SHAPE`, `DTYPE`, `INVALID_ARGUMENT` for a tag that is no class or bad starts.
pub fn loss(
    emissions: &Tensor,
    tags: &Tensor,
    starts: &Tensor,
    scores: Scores<'_>,
) -> Result<Tensor> {
    const OP: &str = "crf_loss";
    let (rows, classes) = check(OP, emissions, scores)?;
    check_shape(OP, "tags", tags, &[rows])?;
    let tags = integers(OP, "tags", tags)?;
    let starts = run_starts(OP, "starts", starts, rows)?;
    let inputs = [Some(emissions), Some(scores.transitions), Some(scores.first), Some(scores.last)];
    by_dtype(OP, &inputs, |inputs, double| {
        if double {
            typed_loss::<f64>(inputs, tags, starts, classes)
        } else {
            typed_loss::<f32>(inputs, tags, starts, classes)
        }
    })
}

fn typed_loss<F: Direct>(
    inputs: &[Option<Tensor>],
    tags: Value,
    starts: Value,
    classes: usize,
) -> Result<Tensor> {
    let at = |index| given(inputs, index);
    let tracked = [at(0)?, at(1)?, at(2)?, at(3)?];
    let [emissions, transitions, first, last] = tracked;
    let on_device = device::offer(&tracked, |device| {
        check_tags("crf_forward", &storage::read::<i64>(&tags)?, emissions.dims()[0], classes)?;
        device.crf_loss([emissions, transitions, first, last], &tags, &starts, classes)
    })?;
    if let Some(loss) = on_device {
        return Ok(loss);
    }
    let values = tracked.iter().map(|x| dense(x.value())).collect::<Result<Vec<_>>>()?;
    let rows = tracked[0].dims()[0];
    let batch = starts.elem_count() - 1;
    let mut nll = storage::take::<F>(batch);
    {
        let starts = storage::read::<i64>(&starts)?;
        let slices = values.iter().map(|v| storage::read::<F>(v)).collect::<Result<Vec<_>>>()?;
        let weights = CrfWeights { transitions: &slices[1], first: &slices[2], last: &slices[3] };
        let shape = CrfShape { starts: &starts, classes };
        crf_forward(shape, &slices[0], &storage::read::<i64>(&tags)?, weights, &mut nll)?;
    }
    let mean = nll.iter().map(|l| l.to_f64()).sum::<f64>() / batch.max(1) as f64;
    let y = storage::tensor_from_vec(vec![<F as Float>::from_f64(mean)], ())?;
    Ok(record1("crf_loss", &tracked, y, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let dloss = storage::read::<F>(&grad)?[0].to_f64() / batch.max(1) as f64;
        let dnll = vec![<F as Float>::from_f64(dloss); batch];
        let mut demissions = wanted::<F>(pass, 0, rows * classes);
        let mut dtransitions = wanted::<F>(pass, 1, classes * classes);
        let (mut dfirst, mut dlast) =
            (wanted::<F>(pass, 2, classes), wanted::<F>(pass, 3, classes));
        {
            let starts = storage::read::<i64>(&starts)?;
            let slices =
                values.iter().map(|v| storage::read::<F>(v)).collect::<Result<Vec<_>>>()?;
            let weights =
                CrfWeights { transitions: &slices[1], first: &slices[2], last: &slices[3] };
            let gradients = CrfGradients {
                emissions: demissions.as_deref_mut(),
                transitions: dtransitions.as_deref_mut().map(|d| (Store::Write, d)),
                first: dfirst.as_deref_mut().map(|d| (Store::Write, d)),
                last: dlast.as_deref_mut().map(|d| (Store::Write, d)),
            };
            let shape = CrfShape { starts: &starts, classes };
            let tags = storage::read::<i64>(&tags)?;
            crf_backward(shape, &slices[0], &tags, weights, &dnll, gradients)?;
        }
        give_vec(pass, 1, &[classes, classes], dtransitions)?;
        give_vec(pass, 2, &[classes], dfirst)?;
        give_vec(pass, 3, &[classes], dlast)?;
        give_vec(pass, 0, &[rows, classes], demissions)
    }))
}

/// The most probable tags `[T]` I64 (Viterbi). No gradient. Errors as for [`loss`].
pub fn decode(emissions: &Tensor, starts: &Tensor, scores: Scores<'_>) -> Result<Tensor> {
    const OP: &str = "crf_decode";
    let (rows, classes) = check(OP, emissions, scores)?;
    let starts = run_starts(OP, "starts", starts, rows)?;
    let inputs = [Some(emissions), Some(scores.transitions), Some(scores.first), Some(scores.last)];
    let mut tags = vec![0i64; rows];
    let _paused = crate::tape::Paused::new();
    by_dtype(OP, &inputs, |inputs, double| {
        if double {
            typed_decode::<f64>(inputs, &starts, classes, &mut tags)?;
        } else {
            typed_decode::<f32>(inputs, &starts, classes, &mut tags)?;
        }
        // `by_dtype` wants a floating point answer to cast back; the tags are not one.
        Ok(emissions.detach())
    })?;
    Ok(Tensor::new(storage::tensor_from_vec(tags, rows)?))
}

fn typed_decode<F: Direct>(
    inputs: &[Option<Tensor>],
    starts: &Value,
    classes: usize,
    tags: &mut [i64],
) -> Result<()> {
    let values =
        (0..4).map(|index| dense(given(inputs, index)?.value())).collect::<Result<Vec<_>>>()?;
    let slices = values.iter().map(|v| storage::read::<F>(v)).collect::<Result<Vec<_>>>()?;
    let starts = storage::read::<i64>(starts)?;
    let weights = CrfWeights { transitions: &slices[1], first: &slices[2], last: &slices[3] };
    crf_decode(CrfShape { starts: &starts, classes }, &slices[0], weights, tags)?;
    Ok(())
}
