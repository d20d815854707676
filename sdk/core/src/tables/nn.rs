//! `et.nn/1`: fused operations.

use std::ffi::{CStr, c_char};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use easytransfer_abi as abi;
use easytransfer_abi::{
    et_attention, et_error, et_host_nn, et_layer_norm, et_map, et_optim_step, et_params, et_rng,
    et_tensor,
};

use super::tensor::tensors;
use crate::error::{Result, fail};
use crate::handle::{borrow, borrow_optional, guard, guard_value, out};
use crate::nn;
use crate::ops::unary;
use crate::optim::optim_state;
use crate::profile;
use crate::rng::Rng;
use crate::tensor::{Tensor, dtype_from_code};

/// The table.
pub static TABLE: et_host_nn = et_host_nn {
    struct_size: size_of::<et_host_nn>(),
    linear: Some(linear),
    layer_norm: Some(layer_norm),
    rms_norm: Some(rms_norm),
    embedding_sum: Some(embedding_sum),
    attention: Some(attention),
    softmax: Some(softmax),
    log_softmax: Some(log_softmax),
    cross_entropy: Some(cross_entropy),
    binary_cross_entropy: Some(binary_cross_entropy),
    dropout: Some(dropout),
    pool: Some(pool),
    to_padded: Some(to_padded),
    from_padded: Some(from_padded),
    conv1d: Some(conv1d),
    lstm: Some(lstm),
    gru: Some(gru),
    crf_loss: Some(crf_loss),
    crf_decode: Some(crf_decode),
    optim_state: Some(optim_state),
    optim_step: Some(optim_step),
    supports: Some(supports),
};

/// The table, for those who link the engine.
pub fn table() -> &'static et_host_nn {
    &TABLE
}

/// Defines a slot that makes one tensor. Arguments of the first list are tensors, of the second optional tensors.
macro_rules! slot {
    ($name:ident ($($all:ident: $type:ty),*) [$($tensor:ident),*] [$($optional:ident),*] $body:expr) => {
        unsafe extern "C" fn $name($($all: $type,)* result: *mut *mut et_tensor) -> *mut et_error {
            // SAFETY: the boundary's contract: live handles or NULL where allowed, arrays as long as the slot says, a
            // writable out pointer.
            guard(|| unsafe {
                $(let $tensor = borrow::<Tensor>($tensor)
                    .map_err(|error| error.context(concat!(stringify!($name), ": ", stringify!($tensor))))?;)*
                $(let $optional = borrow_optional::<Tensor>($optional)
                    .map_err(|error| error.context(concat!(stringify!($name), ": ", stringify!($optional))))?;)*
                let span = profile::op(stringify!($name));
                if span.is_open() {
                    $(profile::input($tensor);)*
                    $(profile::input_optional($optional);)*
                }
                out(result, $body?)
            })
        }
    };
}

type T = *const et_tensor;

slot!(linear(x: T, weight: T, bias: T, activation: i32) [x, weight] [bias]
    nn::linear::linear(x, weight, bias, nn::linear::activation_from_code(activation)?));
slot!(rms_norm(x: T, gamma: T, epsilon: f64) [x, gamma] [] nn::norm::rms_norm(x, gamma, epsilon));
slot!(embedding_sum(tables: *const T, ids: *const T, len: usize) [] []
    nn::embedding::embedding_sum(&profiled(tensors(tables, len)?), &profiled(tensors(ids, len)?)));
slot!(softmax(x: T) [x] [] nn::softmax::softmax(x));
slot!(log_softmax(x: T) [x] [] nn::softmax::log_softmax(x));
slot!(cross_entropy(logits: T, labels: T, weights: T, ignore_index: i64, smoothing: f64)
    [logits, labels] [weights]
    nn::loss::cross_entropy(logits, labels, weights, ignore_index, smoothing));
slot!(binary_cross_entropy(logits: T, targets: T, weights: T) [logits, targets] [weights]
    nn::loss::binary_cross_entropy(logits, targets, weights));
slot!(dropout(x: T, p: f64, rng: *mut et_rng) [x] []
    nn::norm::dropout(x, p, borrow_optional::<Rng>(rng)?));
slot!(pool(x: T, starts: T, kind: i32) [x, starts] []
    nn::runs::pool(x, starts, nn::runs::pool_from_code(kind)?));
slot!(to_padded(x: T, starts: T, len: usize) [x, starts] [] nn::runs::to_padded(x, starts, len));
slot!(from_padded(x: T, starts: T) [x, starts] [] nn::runs::from_padded(x, starts));
slot!(conv1d(x: T, weight: T, bias: T, starts: T, dilation: usize) [x, weight, starts] [bias]
    nn::runs::conv1d(x, weight, bias, starts, dilation));
slot!(lstm(x: T, w_ih: T, w_hh: T, b_ih: T, b_hh: T, starts: T, reverse: i32)
    [x, w_ih, w_hh, b_ih, b_hh, starts] []
    nn::recurrent::lstm(x, [w_ih, w_hh, b_ih, b_hh], starts, reverse != 0));
slot!(gru(x: T, w_ih: T, w_hh: T, b_ih: T, b_hh: T, starts: T, reverse: i32)
    [x, w_ih, w_hh, b_ih, b_hh, starts] []
    nn::recurrent::gru(x, [w_ih, w_hh, b_ih, b_hh], starts, reverse != 0));
slot!(crf_loss(emissions: T, tags: T, starts: T, transitions: T, first: T, last: T)
    [emissions, tags, starts, transitions, first, last] []
    nn::crf::loss(emissions, tags, starts, nn::crf::Scores { transitions, first, last }));
slot!(crf_decode(emissions: T, starts: T, transitions: T, first: T, last: T)
    [emissions, starts, transitions, first, last] []
    nn::crf::decode(emissions, starts, nn::crf::Scores { transitions, first, last }));
slot!(layer_norm(args: *const et_layer_norm) [] [] layer_norm_of(args));
slot!(attention(args: *const et_attention) [] [] attention_of(args));

/// Fails unless the caller filled the arguments up to `needed` bytes.
///
/// # Safety
/// `args` is NULL or points to a structure that begins with its size.
unsafe fn check_args(op: &str, args: *const usize, needed: usize) -> Result<()> {
    if args.is_null() {
        fail!(ET_ERR_INVALID_ARGUMENT, "{op}: the arguments are NULL");
    }
    // SAFETY: the first field is the size, by the contract.
    let size = unsafe { args.read() };
    if size < needed {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "{op}: struct_size of the arguments must be at least {needed}, found {size}"
        );
    }
    Ok(())
}

/// # Safety
/// `args` is NULL or a filled structure of live handles.
unsafe fn layer_norm_of(args: *const et_layer_norm) -> Result<Tensor> {
    let needed = offset_of!(et_layer_norm, rng) + size_of::<*mut et_rng>();
    // SAFETY: the contract; the fields are read only after the size was checked.
    unsafe {
        check_args("layer_norm", args.cast(), needed)?;
        let args = &*args;
        profile::input(borrow(args.x)?);
        profile::input_optional(borrow_optional(args.residual)?);
        nn::norm::layer_norm(nn::norm::LayerNorm {
            x: borrow(args.x)?,
            residual: borrow_optional(args.residual)?,
            gamma: borrow(args.gamma)?,
            beta: borrow(args.beta)?,
            epsilon: args.epsilon,
            dropout: args.dropout,
            rng: borrow_optional::<Rng>(args.rng)?,
        })
    }
}

/// Notes the shapes of tensors that came as an array.
fn profiled(tensors: Vec<&Tensor>) -> Vec<&Tensor> {
    tensors.iter().for_each(|tensor| profile::input(tensor));
    tensors
}

/// Arithmetic of both products of attention: for each query its keys, times the width, times 4.
///
/// # Safety
/// The structure is filled with live handles.
unsafe fn attention_flop(args: &et_attention) -> Result<f64> {
    // SAFETY: the caller's contract is the same.
    let (query, starts, key_starts) = unsafe {
        let starts = borrow::<Tensor>(args.starts)?;
        (borrow::<Tensor>(args.query)?, starts, borrow_optional::<Tensor>(args.key_starts)?)
    };
    let starts_of = |starts: &Tensor| -> Result<Vec<f64>> {
        let values = starts.value().to_vec1::<i64>()?;
        Ok(values.windows(2).map(|run| (run[1] - run[0]) as f64).collect())
    };
    let queries = starts_of(starts)?;
    let keys = key_starts.map(starts_of).transpose()?;
    let keys = keys.as_ref().unwrap_or(&queries);
    let pairs = queries.iter().zip(keys).map(|(&queries, &keys)| {
        if args.causal != 0 && queries == keys {
            queries * (queries + 1.0) / 2.0
        } else {
            queries * keys
        }
    });
    Ok(4.0 * pairs.sum::<f64>() * query.dims().last().map_or(0.0, |&width| width as f64))
}

/// # Safety
/// As [`crate::optim::optim_step`].
unsafe extern "C" fn optim_step(
    params: *mut et_params,
    state: *mut et_map,
    options: *const et_optim_step,
) -> *mut et_error {
    let _span = profile::work("optim_step");
    // SAFETY: the caller's contract is the same.
    unsafe { crate::optim::optim_step(params, state, options) }
}

/// The arguments, with zeros where the caller filled nothing. Errors: `INVALID_ARGUMENT` when too little is filled, or
/// something that this host does not know.
///
/// # Safety
/// `args` is NULL or points to as many bytes as its first field says.
unsafe fn attention_args(args: *const et_attention) -> Result<et_attention> {
    let needed = offset_of!(et_attention, reserved) + size_of::<i32>();
    // SAFETY: the caller's contract is the same.
    unsafe { check_args("attention", args.cast(), needed)? };
    // SAFETY: the first field is the size, by the contract.
    let size = unsafe { args.cast::<usize>().read() };
    let known = size_of::<et_attention>();
    // SAFETY: the caller filled that many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(args.cast::<u8>(), size) };
    if let Some(at) = bytes.iter().skip(known).position(|&byte| byte != 0) {
        fail!(
            ET_ERR_INVALID_ARGUMENT,
            "attention: the argument at byte {} is of a newer version than this host, which knows {known} bytes",
            known + at
        );
    }
    let mut own = MaybeUninit::<et_attention>::zeroed();
    // SAFETY: both have at least that many bytes, and zeros are NULL and numbers.
    let own = unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), own.as_mut_ptr().cast(), size.min(known));
        own.assume_init()
    };
    for (name, found) in [("reserved", own.reserved), ("reserved_2", own.reserved_2)] {
        if found != 0 {
            fail!(ET_ERR_INVALID_ARGUMENT, "attention: {name} must be 0, found {found}");
        }
    }
    Ok(own)
}

/// # Safety
/// `args` is NULL or a filled structure of live handles.
unsafe fn attention_of(args: *const et_attention) -> Result<Tensor> {
    // SAFETY: the contract; the copy has only fields that were filled.
    unsafe {
        let args = attention_args(args)?;
        for x in [args.query, args.key, args.value, args.starts] {
            profile::input(borrow(x)?);
        }
        profile::flop(|| attention_flop(&args).unwrap_or(0.0));
        nn::attention::attention(nn::attention::Attention {
            query: borrow(args.query)?,
            key: borrow(args.key)?,
            value: borrow(args.value)?,
            starts: borrow(args.starts)?,
            key_starts: borrow_optional(args.key_starts)?,
            heads: args.heads,
            scale: args.scale,
            dropout: args.dropout,
            rng: borrow_optional::<Rng>(args.rng)?,
            causal: args.causal != 0,
            terms: nn::attention::Terms {
                window: args.window,
                bias: borrow_optional(args.bias)?,
                bias_buckets: borrow_optional(args.bias_buckets)?,
                position_keys: borrow_optional(args.position_keys)?,
                position_query: borrow_optional(args.position_query)?,
                position_queries: borrow_optional(args.position_queries)?,
                position_buckets: borrow_optional(args.position_buckets)?,
                segment_scores: borrow_optional(args.segment_scores)?,
                segments: borrow_optional(args.segments)?,
                key_segments: borrow_optional(args.key_segments)?,
                order: borrow_optional(args.order)?,
                key_order: borrow_optional(args.key_order)?,
                order_inclusive: args.order_inclusive != 0,
            },
        })
    }
}

unsafe extern "C" fn supports(family: *const c_char, opcode: i32, dtype: i32) -> i32 {
    guard_value(0, || {
        if family.is_null() {
            return Ok(0);
        }
        // SAFETY: the boundary's contract: a NUL-terminated name.
        let family = unsafe { CStr::from_ptr(family) }.to_bytes();
        let Ok(dtype) = dtype_from_code(dtype) else { return Ok(0) };
        let float = dtype.is_float();
        Ok(i32::from(match family {
            b"unary" => unary::supports(opcode, dtype),
            b"binary" => crate::ops::binary::name(opcode).is_ok(),
            b"compare" => (abi::ET_COMPARE_EQ..=abi::ET_COMPARE_GE).contains(&opcode),
            b"reduce" => {
                crate::ops::reduce::name(opcode).is_ok() && (float || opcode != abi::ET_REDUCE_MEAN)
            }
            b"attention" => float && opcode == abi::ET_ATTENTION_TERMS,
            b"activation" => float && nn::linear::activation_from_code(opcode).is_ok(),
            b"optim" => {
                (abi::ET_OPTIM_ADAMW..=abi::ET_OPTIM_ADAFACTOR).contains(&opcode)
                    && matches!(dtype, candle_core::DType::F32 | candle_core::DType::F64)
            }
            _ => false,
        }))
    })
}
