//! What an app can ask while it makes features (`et.context/1`) and while it computes (`et.net/1`).

use crate::{et_buffer, et_call, et_error, et_map, et_rng, et_str, et_tensor};

/// What the features of one record are made for.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_context {
    _opaque: [u8; 0],
}
/// The encoder and the modules of an app while its `forward` runs.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_net {
    _opaque: [u8; 0],
}

/// `et.context/1`. All slots are [callback-thread], called from inside `features`.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_context {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// 1 if the features are for training, else 0. since 0.2
    pub training: Option<unsafe extern "C" fn(context: *const et_context) -> i32>,
    /// Epoch of training, counted from 0; 0 for apps whose features are kept. since 0.2
    pub epoch: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    /// Number of the source that the record comes from: 0 for the file itself. since 0.2
    pub source: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    /// Number of the record in its source. since 0.2
    pub record: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    /// Number of records of the source, as far as they can be read by `record_at`: 0 where the source is read as it
    /// comes. since 0.2
    pub records_len: Option<unsafe extern "C" fn(context: *const et_context) -> u64>,
    /// Another record of the source as a JSON object from role to value. Errors: NOT_FOUND. since 0.2
    pub record_at: Option<
        unsafe extern "C" fn(
            context: *mut et_context,
            index: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Random numbers that depend on the run's seed, the source, the epoch and the record alone, borrowed for the
    /// call. since 0.2
    pub rng: Option<
        unsafe extern "C" fn(context: *mut et_context, out: *mut *mut et_rng) -> *mut et_error,
    >,
}

/// `et.net/1`. All slots are [callback-thread], called from inside an app's `forward`.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_net {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Runs the encoder (module "") or a module that the app declared on a batch; its outputs are added to `outputs`.
    /// `call` is that of `forward`, or another. Errors: NOT_FOUND, the model's. since 0.2
    pub run: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            module: et_str,
            call: *const et_call,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    /// The tensor of a parameter of the whole set by its name, on the tape while training: for heads that are tied to
    /// the encoder. Errors: NOT_FOUND. since 0.2
    pub param: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            name: et_str,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Continues the runs of `batch` by the encoder (module "") or another module, token by token, without a tape.
    /// The runs that grow are those of "decoder/ids" where the batch has them, else those of "ids"; the rest of the
    /// batch is read once. The module must answer `ET_WANT_LOGITS`. `options` is JSON: {"max_new_tokens": 64,
    /// "min_new_tokens": 0, "eos": [ids that end a run], "beams": 1, "length_penalty": 1.0, "early_stopping": false |
    /// true | "never", "no_repeat_ngram": 0, "repetition_penalty": 1.0, "forced_first": id or null, "forced_last": id
    /// or null, "sample": false, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, "return": 1, "cache":
    /// true}. Adds to `outputs`: "generated/ids" [N] I64 and "generated/starts" [R+1] I64, the new tokens of R = B *
    /// "return" runs (those of one run side by side, the best first), and "generated/scores" [R] F32, the sums of log
    /// probabilities by the length penalty, or zeros without beams. Errors: INVALID_ARGUMENT naming the option,
    /// FAILED_PRECONDITION for a module without logits. since 0.2
    pub generate: Option<
        unsafe extern "C" fn(
            net: *mut et_net,
            module: et_str,
            batch: *const et_map,
            options: et_str,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
}
