//! Recurrent networks over runs, and conditional random fields.

use crate::host::{call, tables};
use crate::tensor::produce;
use crate::{Result, Tensor};
use std::ptr::null_mut;

/// Weights of one direction of an [`lstm`] or [`gru`], with `g` = 4 h or 3 h rows, in PyTorch's order of gates.
#[derive(Clone, Copy)]
pub struct Recurrent<'a> {
    /// Of the inputs, [g, i].
    pub input_weight: &'a Tensor,
    /// Of the states, [g, h].
    pub state_weight: &'a Tensor,
    /// Added to the inputs' products, `[g]`.
    pub input_bias: &'a Tensor,
    /// Added to the states' products, `[g]`.
    pub state_bias: &'a Tensor,
}

/// LSTM over runs that begin with a state of zeros (Hochreiter and Schmidhuber 1997; gates i, f, g, o, so g = 4 h): x
/// [T, i] -> [T, h]. `reverse` reads each run from its end; two directions side by side are two calls and a
/// concatenation.
pub fn lstm(x: &Tensor, weights: Recurrent<'_>, starts: &Tensor, reverse: bool) -> Result<Tensor> {
    let Recurrent { input_weight, state_weight, input_bias, state_bias } = weights;
    produce!(et_host_nn.lstm(
        x.as_raw(),
        input_weight.as_raw(),
        state_weight.as_raw(),
        input_bias.as_raw(),
        state_bias.as_raw(),
        starts.as_raw(),
        i32::from(reverse)
    ))
}

/// GRU over runs (Cho et al. 2014; gates r, z, n, so g = 3 h); otherwise as [`lstm`].
pub fn gru(x: &Tensor, weights: Recurrent<'_>, starts: &Tensor, reverse: bool) -> Result<Tensor> {
    let Recurrent { input_weight, state_weight, input_bias, state_bias } = weights;
    produce!(et_host_nn.gru(
        x.as_raw(),
        input_weight.as_raw(),
        state_weight.as_raw(),
        input_bias.as_raw(),
        state_bias.as_raw(),
        starts.as_raw(),
        i32::from(reverse)
    ))
}

/// Scores of a linear-chain conditional random field over C tags (Lafferty et al. 2001).
#[derive(Clone, Copy)]
pub struct Crf<'a> {
    /// From a tag (row) to the next one (column), [C, C].
    pub transitions: &'a Tensor,
    /// Of a run's first tag, `[C]`.
    pub first: &'a Tensor,
    /// Of a run's last tag, `[C]`.
    pub last: &'a Tensor,
}

/// Mean over runs of the negative log likelihood of the tags: emissions [T, C], tags `[T]` I64, starts [B + 1] ->
/// scalar.
pub fn crf_loss(
    emissions: &Tensor,
    tags: &Tensor,
    starts: &Tensor,
    field: Crf<'_>,
) -> Result<Tensor> {
    produce!(et_host_nn.crf_loss(
        emissions.as_raw(),
        tags.as_raw(),
        starts.as_raw(),
        field.transitions.as_raw(),
        field.first.as_raw(),
        field.last.as_raw()
    ))
}

/// The most probable tags of each run (Viterbi): emissions [T, C], starts [B + 1] -> `[T]` I64. No gradient.
pub fn crf_decode(emissions: &Tensor, starts: &Tensor, field: Crf<'_>) -> Result<Tensor> {
    produce!(et_host_nn.crf_decode(
        emissions.as_raw(),
        starts.as_raw(),
        field.transitions.as_raw(),
        field.first.as_raw(),
        field.last.as_raw()
    ))
}
