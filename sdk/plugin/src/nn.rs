//! Fused differentiable operations of the engine (`et.nn/1`). "Runs" are the rows of a batch laid end to end;
//! `starts` [B + 1] holds their cumulative lengths.

mod attention;
mod by_row;
mod rotary;
mod sequence;

pub use attention::{
    Attention, AttentionTerms, DistanceBias, Order, Positions, Segments, attention, attention_with,
};
pub use by_row::{binary_cross_entropy_rows, cross_entropy_rows, row_means};
pub use rotary::{Angles, Rotary};
pub use sequence::{Crf, Recurrent, crf_decode, crf_loss, gru, lstm};

use crate::host::{ask, call, tables};
use crate::tensor::produce;
use crate::{DType, Map, Params, Result, Rng, Tensor};
use easytransfer_abi as abi;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::ptr::{null, null_mut};

/// An activation function, by the names that configurations use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum Activation {
    /// Identity.
    #[default]
    #[serde(alias = "linear")]
    None = abi::ET_ACTIVATION_NONE,
    /// `max(x, 0)`
    Relu = abi::ET_ACTIVATION_RELU,
    /// Exact GELU.
    #[serde(alias = "gelu_python")]
    Gelu = abi::ET_ACTIVATION_GELU,
    /// GELU by tanh.
    #[serde(
        alias = "gelu_new",
        alias = "gelu_pytorch_tanh",
        alias = "gelu_python_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate"
    )]
    GeluTanh = abi::ET_ACTIVATION_GELU_TANH,
    /// Hyperbolic tangent.
    Tanh = abi::ET_ACTIVATION_TANH,
    /// Logistic function.
    Sigmoid = abi::ET_ACTIVATION_SIGMOID,
    /// `x * sigmoid(x)`
    #[serde(alias = "swish")]
    Silu = abi::ET_ACTIVATION_SILU,
}

impl Activation {
    /// The function of each element, for what is no output of a linear layer, which computes its own.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x.clone()),
            Self::Relu => x.relu(),
            Self::Gelu => x.gelu(),
            Self::GeluTanh => x.gelu_tanh(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => x.sigmoid(),
            Self::Silu => x.silu(),
        }
    }
}

/// How runs become one vector each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum Pool {
    /// Mean over tokens.
    Mean = abi::ET_POOL_MEAN,
    /// First token.
    First = abi::ET_POOL_FIRST,
    /// Elementwise maximum.
    Max = abi::ET_POOL_MAX,
}

fn raw(tensor: Option<&Tensor>) -> *const abi::et_tensor {
    tensor.map_or(null(), |t| t.as_raw().cast_const())
}

fn raw_rng(rng: Option<&Rng>) -> *mut abi::et_rng {
    rng.map_or(null_mut(), Rng::as_raw)
}

/// activation(x Wᵀ + b): x [.., i], weight [o, i], bias `[o]` -> [.., o].
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    produce!(et_host_nn.linear(x.as_raw(), weight.as_raw(), raw(bias), activation as i32))
}

/// Layer normalisation of residual + dropout(x) over the last axis (Ba et al. 2016). `dropout` counts only with an
/// `rng`.
pub fn layer_norm(
    x: &Tensor,
    residual: Option<&Tensor>,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    dropout: f64,
    rng: Option<&Rng>,
) -> Result<Tensor> {
    let args = abi::et_layer_norm {
        struct_size: size_of::<abi::et_layer_norm>(),
        x: x.as_raw(),
        residual: raw(residual),
        gamma: gamma.as_raw(),
        beta: beta.as_raw(),
        epsilon,
        dropout,
        rng: raw_rng(rng),
    };
    produce!(et_host_nn.layer_norm(&args))
}

/// Root mean square normalisation over the last axis (Zhang and Sennrich 2019).
pub fn rms_norm(x: &Tensor, gamma: &Tensor, epsilon: f64) -> Result<Tensor> {
    produce!(et_host_nn.rms_norm(x.as_raw(), gamma.as_raw(), epsilon))
}

/// Sum of table look-ups: pairs of a table [rows, h] and ids `[T]` -> [T, h].
pub fn embedding_sum(lookups: &[(&Tensor, &Tensor)]) -> Result<Tensor> {
    let tables_raw: Vec<_> = lookups.iter().map(|(t, _)| t.as_raw().cast_const()).collect();
    let ids_raw: Vec<_> = lookups.iter().map(|(_, i)| i.as_raw().cast_const()).collect();
    produce!(et_host_nn.embedding_sum(tables_raw.as_ptr(), ids_raw.as_ptr(), lookups.len()))
}

/// Softmax over the last axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    produce!(et_host_nn.softmax(x.as_raw()))
}

/// Logarithm of softmax over the last axis.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    produce!(et_host_nn.log_softmax(x.as_raw()))
}

/// Mean cross entropy of logits [N, C] and labels `[N]`; see `et_host_nn.cross_entropy`.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
    ignore_index: i64,
    smoothing: f64,
) -> Result<Tensor> {
    produce!(et_host_nn.cross_entropy(
        logits.as_raw(),
        labels.as_raw(),
        raw(weights),
        ignore_index,
        smoothing
    ))
}

/// Mean binary cross entropy of logits and targets of one shape, rows weighted by `weights` `[N]`.
pub fn binary_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor> {
    produce!(et_host_nn.binary_cross_entropy(logits.as_raw(), targets.as_raw(), raw(weights)))
}

/// Drops elements with probability `p` and divides the rest by 1 - p; the identity without an rng.
pub fn dropout(x: &Tensor, p: f64, rng: Option<&Rng>) -> Result<Tensor> {
    if rng.is_none() || p == 0.0 {
        return Ok(x.clone());
    }
    produce!(et_host_nn.dropout(x.as_raw(), p, raw_rng(rng)))
}

/// One vector per run: x [T, h], starts [B + 1] -> [B, h].
pub fn pool(x: &Tensor, starts: &Tensor, kind: Pool) -> Result<Tensor> {
    produce!(et_host_nn.pool(x.as_raw(), starts.as_raw(), kind as i32))
}

/// Runs padded with zeros: x [T, h] -> [B, len, h].
pub fn to_padded(x: &Tensor, starts: &Tensor, len: usize) -> Result<Tensor> {
    produce!(et_host_nn.to_padded(x.as_raw(), starts.as_raw(), len))
}

/// The inverse of [`to_padded`].
pub fn from_padded(x: &Tensor, starts: &Tensor) -> Result<Tensor> {
    produce!(et_host_nn.from_padded(x.as_raw(), starts.as_raw()))
}

/// 1-D convolution within each run that keeps lengths: x [T, i], weight [o, i, k] -> [T, o].
pub fn conv1d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    starts: &Tensor,
    dilation: usize,
) -> Result<Tensor> {
    produce!(et_host_nn.conv1d(x.as_raw(), weight.as_raw(), raw(bias), starts.as_raw(), dilation))
}

/// Fresh state of an optimizer kind (an `ET_OPTIM_` constant) for a sealed set.
pub fn optim_state(params: &Params, kind: i32) -> Result<Map> {
    let mut out = null_mut();
    call!(tables().nn, et_host_nn.optim_state(params.as_raw(), kind, &mut out))?;
    // SAFETY: on success the out holds an owned reference.
    unsafe { Map::from_raw(out) }
}

/// One step of a fused optimizer over the whole arena.
pub fn optim_step(params: &mut Params, state: &mut Map, step: &abi::et_optim_step) -> Result<()> {
    call!(tables().nn, et_host_nn.optim_step(params.as_raw(), state.as_raw(), step))
}

/// True if the host's engine has the opcode of a family for elements of `dtype`; see `et_host_nn.supports`.
pub fn supports(family: &CStr, opcode: i32, dtype: DType) -> bool {
    ask!(tables().nn, et_host_nn.supports(family.as_ptr(), opcode, dtype as i32) or 0) == 1
}
