//! Attention over runs.

mod terms;

use super::{Direct, by_dtype, dense, dropout_of, give_vec, run_starts, wanted};
use crate::device;
use crate::error::{Result, fail};
use crate::kernels::attention::backward::{
    AttentionGradients, AttentionSaved, attention_backward_with,
};
use crate::kernels::attention::terms::TermGradients;
use crate::kernels::attention::{AttentionOutputs, AttentionShape, attention_forward_with};
use crate::kernels::philox::Dropout;
use crate::rng::Rng;
use crate::storage::{self, Value};
use crate::tape::{keeps, record1};
use crate::tensor::Tensor;

pub use terms::Terms;
use terms::{Inputs, Integers};

/// Arguments of [`attention`], as in `et_attention`.
pub struct Attention<'a> {
    /// Queries [Tq, heads * d].
    pub query: &'a Tensor,
    /// Keys [Tk, heads * d].
    pub key: &'a Tensor,
    /// Values [Tk, heads * d].
    pub value: &'a Tensor,
    /// Cumulative lengths [B + 1] I64 of the runs of queries.
    pub starts: &'a Tensor,
    /// Those of the runs of keys and values, if they differ.
    pub key_starts: Option<&'a Tensor>,
    /// Number of heads; divides the last axis.
    pub heads: usize,
    /// Factor on the scores; 0 means 1 / sqrt(d).
    pub scale: f64,
    /// Probability of dropping an attention weight.
    pub dropout: f64,
    /// Source of the dropout numbers; without one nothing is dropped.
    pub rng: Option<&'a Rng>,
    /// A token may not look at later ones.
    pub causal: bool,
    /// What is added to the scores, and what is hidden.
    pub terms: Terms<'a>,
}

/// What shape the kernels need, with owned starts.
struct Plan {
    heads: usize,
    head_size: usize,
    starts: Value,
    key_starts: Value,
    scale: f64,
    causal: bool,
    dropout: Option<Dropout>,
    integers: Integers,
}

impl Plan {
    fn with_shape<R>(&self, f: impl FnOnce(AttentionShape<'_>) -> Result<R>) -> Result<R> {
        let query_starts = storage::read::<i64>(&self.starts)?;
        let key_starts = storage::read::<i64>(&self.key_starts)?;
        f(AttentionShape {
            heads: self.heads,
            head_size: self.head_size,
            query_starts: &query_starts,
            key_starts: &key_starts,
            causal: self.causal,
            scale: self.scale,
        })
    }
}

/// softmax(S) V per head with the scores S that `et_attention` tells, each token within its run (Vaswani et al. 2017).
/// Errors: `SHAPE`, `DTYPE`, `INVALID_ARGUMENT`.
pub fn attention(args: Attention<'_>) -> Result<Tensor> {
    const OP: &str = "attention";
    let Attention { query, key, value, heads, .. } = args;
    for (name, x) in [("query", query), ("key", key), ("value", value)] {
        if x.dims().len() != 2 || x.dims()[1] != query.dims()[query.dims().len() - 1] {
            fail!(
                ET_ERR_SHAPE,
                "{OP}: query, key and value must have two axes and as many columns, found {:?} for {name} and {:?} for query",
                x.dims(),
                query.dims()
            );
        }
    }
    let (queries, width) = (query.dims()[0], query.dims()[1]);
    let keys = key.dims()[0];
    super::check_shape(OP, "value", value, &[keys, width])?;
    if heads == 0 || width == 0 || width % heads != 0 {
        fail!(ET_ERR_INVALID_ARGUMENT, "{OP}: {heads} heads do not divide {width} columns");
    }
    let head_size = width / heads;
    let starts = run_starts(OP, "starts", args.starts, queries)?;
    let key_starts = match args.key_starts {
        Some(key_starts) => run_starts(OP, "key_starts", key_starts, keys)?,
        None => run_starts(OP, "starts (of the keys)", args.starts, keys)?,
    };
    if key_starts.elem_count() != starts.elem_count() {
        fail!(
            ET_ERR_SHAPE,
            "{OP}: starts and key_starts must have one length, found {} and {}",
            starts.elem_count(),
            key_starts.elem_count()
        );
    }
    let scale = if args.scale == 0.0 { 1.0 / (head_size as f64).sqrt() } else { args.scale };
    if !scale.is_finite() {
        fail!(ET_ERR_INVALID_ARGUMENT, "{OP}: the scale must be finite, found {scale}");
    }
    let causal = args.causal;
    let integers = args.terms.check(OP, [queries, keys], heads, width)?;
    let dropout = None;
    let mut plan = Plan { heads, head_size, starts, key_starts, scale, causal, dropout, integers };
    let elements = plan.with_shape(|shape| Ok(shape.dropout_elements()))?;
    plan.dropout = dropout_of(OP, args.dropout, args.rng, elements as usize)?;
    by_dtype(OP, &args.terms.with([query, key, value]), |inputs, double| {
        if double { typed::<f64>(inputs, plan) } else { typed::<f32>(inputs, plan) }
    })
}

/// Memory of the pool for `len` words of 16 bits.
fn take_words(len: usize) -> Vec<f32> {
    storage::take::<f32>(len.div_ceil(2))
}

/// The first `len` words of such memory.
fn words(memory: &[f32], len: usize) -> &[u16] {
    assert!(len <= 2 * memory.len());
    // SAFETY: the words lie within the slice, whose alignment is greater, and all bits are words.
    unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), len) }
}

/// As [`words`], for writing.
fn words_mut(memory: &mut [f32], len: usize) -> &mut [u16] {
    assert!(len <= 2 * memory.len());
    // SAFETY: as above, and all words are numbers.
    unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), len) }
}

fn typed<F: Direct>(inputs: &[Option<Tensor>], plan: Plan) -> Result<Tensor> {
    // Devices have no kernels for what comes on top of plain attention.
    if let [Some(q), Some(k), Some(v), ..] = inputs
        && plan.integers.is_plain()
    {
        let on_device = device::offer(&[q, k, v], |device| {
            plan.with_shape(|shape| device.attention(q, k, v, shape, plan.dropout))
        })?;
        if let Some(o) = on_device {
            return Ok(o);
        }
    }
    let tracked: Vec<&Tensor> = inputs.iter().flatten().collect();
    tracked.iter().try_for_each(|x| x.widen())?;
    let saved_inputs = Inputs::new::<F>(inputs)?;
    let [queries, keys, width] = saved_inputs.sizes();
    let mut o = storage::take::<F>(queries * width);
    let mut lse = storage::take::<F>(queries * plan.heads);
    let window = plan.integers.window();
    // One bit for every weight costs less than making its random number again.
    let keeps = plan.dropout.is_some() && keeps(&tracked);
    let words_len =
        if keeps { plan.with_shape(|shape| Ok(shape.decisions_len_within(window)?))? } else { 0 };
    let mut decisions = keeps.then(|| take_words(words_len));
    saved_inputs.read::<F, _>(&plan.integers, |rows, terms| {
        let decisions = decisions.as_deref_mut().map(|memory| words_mut(memory, words_len));
        let outputs = AttentionOutputs { o: &mut o, lse: &mut lse, decisions };
        let dropout = plan.dropout;
        plan.with_shape(|shape| Ok(attention_forward_with(shape, terms, rows, dropout, outputs)?))
    })?;
    let decisions = decisions
        .map(|memory| {
            let len = memory.len();
            storage::tensor_from_vec(memory, len).map(Value::new)
        })
        .transpose()?;
    let o = storage::tensor_from_vec(o, (queries, width))?;
    let saved_o = Value::new(o.clone());
    let lse = Value::new(storage::tensor_from_vec(lse, queries * plan.heads)?);
    Ok(record1("attention", &tracked, o, move |pass| {
        let Some(grad) = pass.grad(0) else { return Ok(()) };
        let grad = dense(&grad)?;
        let mut dq = storage::take::<F>(queries * width);
        let (mut dk, mut dv) = (storage::take::<F>(keys * width), storage::take::<F>(keys * width));
        let mut more =
            saved_inputs.terms(|index, shape| wanted::<F>(pass, index, shape.iter().product()));
        saved_inputs.read::<F, _>(&plan.integers, |[q, k, v], terms| {
            let (o, lse) = (storage::read::<F>(&saved_o)?, storage::read::<F>(&lse)?);
            let memory = decisions.as_deref().map(storage::read::<f32>).transpose()?;
            let decisions = memory.as_deref().map(|memory| words(memory, words_len));
            let saved = AttentionSaved { q, k, v, o: &o, lse: &lse, decisions };
            let gradients = AttentionGradients::Separate { q: &mut dq, k: &mut dk, v: &mut dv };
            let [bias, position_keys, position_query, position_queries, segments] =
                more.each_mut().map(Option::as_deref_mut);
            let more =
                TermGradients { bias, position_keys, position_query, position_queries, segments };
            let grad = storage::read::<F>(&grad)?;
            let dropout = plan.dropout;
            plan.with_shape(|shape| {
                Ok(attention_backward_with(shape, terms, saved, dropout, &grad, gradients, more)?)
            })
        })?;
        let dterms = saved_inputs.terms(|index, shape| Some((index, shape.to_vec())));
        for (at, gradient) in dterms.into_iter().zip(more) {
            let Some((index, shape)) = at else { continue };
            give_vec(pass, index, &shape, gradient)?;
        }
        give_vec(pass, 0, &[queries, width], Some(dq))?;
        give_vec(pass, 1, &[keys, width], Some(dk))?;
        give_vec(pass, 2, &[keys, width], Some(dv))
    }))
}
