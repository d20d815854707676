//! What a plugin offers: the entry record and one table per kind of component.

use crate::{
    et_buffer, et_context, et_error, et_host, et_map, et_net, et_params, et_rng, et_rows, et_scope,
    et_session, et_str, et_stream, et_tensor, et_tokenizer,
};
use core::ffi::{c_char, c_void};

/// The record that the one exported symbol of a plugin, `const et_plugin_record *et_plugin_entry(void)`, returns; its
/// name may have `_` and the plugin's id behind it, so that several plugins can be linked into one program. The
/// fields up to `version` are frozen for all time: the host reads them before it calls anything.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_record {
    /// `ET_PLUGIN_MAGIC`.
    pub magic: u64,
    /// `ET_ABI_MAJOR` the plugin was built for.
    pub abi_major: u32,
    /// `ET_ABI_MINOR` the plugin needs at least.
    pub abi_minor: u32,
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// `ET_PLUGIN_FLAG_` bits.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Id of the plugin, for instance "loss-basic"; the same as in its manifest.
    pub id: *const c_char,
    /// Version of the plugin, for instance "0.1.0".
    pub version: *const c_char,
    /// Called before any component is made; keeps `host` and fetches the interfaces it needs. May be called more than
    /// once. [one-at-a-time] since 0.1
    pub init: Option<unsafe extern "C" fn(host: *const et_host) -> *mut et_error>,
    /// Called when the host is done; logical only, the library stays loaded. May be NULL. [one-at-a-time] since 0.1
    pub shutdown: Option<unsafe extern "C" fn()>,
    /// Component `index` of a kind ("et.model/1", "et.loss/1", "et.optimizer/1", "et.strategy/1", "et.app/1",
    /// "et.op/1", "et.metric/1") as a pointer to its table, which lives until the process ends; NULL past the last
    /// one and for unknown kinds. [any-thread] since 0.1
    pub component: Option<unsafe extern "C" fn(kind: *const c_char, index: usize) -> *const c_void>,
}

/// What a forward pass is for.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
#[derive(Clone, Copy)]
pub struct et_call {
    /// Bytes filled by the caller.
    pub struct_size: usize,
    /// 1 while training (dropout is on), else 0.
    pub training: i32,
    /// Set of `ET_WANT_` bits.
    pub want: u32,
    /// Source of random numbers while training, else NULL.
    pub rng: *mut et_rng,
    /// What the model keeps of the tokens so far while the host generates, else NULL. Empty before the first tokens:
    /// the model then reads the whole batch and puts in what it will want; later a batch holds the new tokens of the
    /// growing runs alone, and the model appends. Entries lie in name spaces as those of a batch do: each space has
    /// "starts" [B+1] and tensors with one row per token, by which the host reorders runs (beams) and drops finished
    /// ones. A cache of another model is refused. since 0.2
    pub cache: *mut et_map,
}

/// `et.model/1`: an encoder or any other network below the head.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_model {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write: the `model_type` of the configuration, for instance "bert".
    pub name: *const c_char,
    /// JSON Schema of the configuration.
    pub schema: *const c_char,
    /// Declares the parameters in `scope` and makes an instance. `config` is the content of config.json.
    /// [one-at-a-time] since 0.1
    pub create: Option<
        unsafe extern "C" fn(
            config: et_str,
            scope: *const et_scope,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    /// What the trainer must know, as JSON: {"hidden_size": 384, "layers": 6, "vocab_size": 30522, "max_positions":
    /// 512, "base_prefix": "bert", "pooled": true, "class": "BertModel", "tasks": {"sequence-classification":
    /// {"class": "BertForSequenceClassification", "form": "bert"}, ...}, "ignore": ["cls."], "decoder_start": token
    /// with which a decoder's run begins, or null, "eos": [tokens that end a continued run]}. [one-at-a-time] since
    /// 0.2
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Reads "ids", "positions", "starts" and, where it has them, "segments" from `batch`; writes "last" [T, h], and
    /// "pooled" [B, h], "hidden_states/k" and "logits" when wanted, to `outputs`. A model with an encoder and a
    /// decoder also reads "decoder/ids", "decoder/positions" and "decoder/starts", and writes "decoder/last".
    /// [one-at-a-time] since 0.1
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
}

/// `et.loss/1`: a scalar from outputs and targets.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_loss {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write, for instance "cross-entropy".
    pub name: *const c_char,
    /// JSON Schema of the options.
    pub schema: *const c_char,
    /// Makes an instance from options as JSON. [one-at-a-time] since 0.1
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    /// `outputs` usually holds "logits"; `batch` holds "labels" and, when rows are weighted, "weights" [B]. The
    /// result is a scalar. [one-at-a-time] since 0.1
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// The loss of each row by itself, [B]; `forward` is their mean, weighted by "weights" where the batch has them.
    /// May be NULL where rows have no loss of their own (in-batch negatives). [one-at-a-time] since 0.2
    pub rows: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// What `forward` is a mean over: the number of rows, of tokens, or the sum of their weights. Means over several
    /// batches weigh each by this. NULL means the number of rows. [one-at-a-time] since 0.2
    pub weight: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            batch: *const et_map,
            out: *mut f64,
        ) -> *mut et_error,
    >,
}

/// `et.optimizer/1`: a step over a parameter set.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_optimizer {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write, for instance "adamw".
    pub name: *const c_char,
    /// JSON Schema of the options; its key "default_lr" is the peak learning rate of runs that set none.
    pub schema: *const c_char,
    /// Makes an instance for a sealed set, which outlives it. [one-at-a-time] since 0.1
    pub create: Option<
        unsafe extern "C" fn(
            options: et_str,
            params: *mut et_params,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    /// Changes the parameters by their gradients. `lr` is this step's learning rate, `step` counts from 1.
    /// [one-at-a-time] since 0.1
    pub step: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            params: *mut et_params,
            lr: f64,
            step: u64,
        ) -> *mut et_error,
    >,
    /// Writes the state. [one-at-a-time] since 0.1
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    /// Reads the state back. [one-at-a-time] since 0.1
    pub state_load: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// As `step`, but changes only the elements from `begin` to `end` of the arena (`params_arena_len` of them), and
    /// of the state what belongs to them: machines that share the work each do a part. NULL where a step needs all of
    /// them. Errors: INVALID_ARGUMENT for bounds inside a parameter where the kind does not allow it. [one-at-a-time]
    /// since 0.2
    pub step_part: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            params: *mut et_params,
            lr: f64,
            step: u64,
            begin: usize,
            end: usize,
        ) -> *mut et_error,
    >,
}

/// `et.strategy/1`: a transfer-learning method as hooks of the shared step, or as the whole fit.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_strategy {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write, for instance "finetune".
    pub name: *const c_char,
    /// JSON Schema of the options.
    pub schema: *const c_char,
    /// Makes an instance. [one-at-a-time] since 0.1
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    /// Set of `ET_PHASE_` bits: the hooks that are used. [one-at-a-time] since 0.1
    pub phases: Option<unsafe extern "C" fn(instance: *mut c_void) -> u32>,
    /// Weights are loaded and nothing is sealed yet: freeze, scale rates, add low-rank updates, load other models.
    /// [one-at-a-time] since 0.1
    pub on_setup: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    /// May put "weights" [B] into the batch. [one-at-a-time] since 0.1
    pub on_batch: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            batch: *mut et_map,
        ) -> *mut et_error,
    >,
    /// May add losses to the session. [one-at-a-time] since 0.1
    pub on_outputs: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            batch: *const et_map,
            outputs: *const et_map,
        ) -> *mut et_error,
    >,
    /// Makes one scalar of all losses of the step (weights applied). [one-at-a-time] since 0.1
    pub combine: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            losses: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Gradients are complete and not yet clipped. [one-at-a-time] since 0.1
    pub on_gradients: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    /// After epoch `epoch` (from 1); `metrics` is a JSON object, empty without validation data. [one-at-a-time] since
    /// 0.1
    pub on_epoch: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            session: *mut et_session,
            epoch: u64,
            metrics: et_str,
        ) -> *mut et_error,
    >,
    /// Drives the whole fit by `next_batch`, `step_once`, `optimizer_step` and `commit` of the session, from step
    /// `step` of the session on: after a resume that is not 0. Of its own hooks only `on_setup` is called then; other
    /// strategies of the run have theirs called by `step_once`. Must return CANCELLED, or soon return, once `commit`
    /// says so. [one-at-a-time] since 0.2
    pub fit: Option<
        unsafe extern "C" fn(instance: *mut c_void, session: *mut et_session) -> *mut et_error,
    >,
    /// Writes the state for a checkpoint. May be NULL when there is none. [one-at-a-time] since 0.1
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    /// Reads the state back. May be NULL when there is none. [one-at-a-time] since 0.1
    pub state_load: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// More columns that the strategy needs of every training record, as JSON: [{"role": "domain", "names":
    /// ["domain"], "required": true, "kind": "category" or "number"}, ...]. Batches have them as fields of that name:
    /// a number as F32 [B], a category as I64 [B], numbered in the order of its first occurrence. May be NULL.
    /// [one-at-a-time] since 0.2
    pub columns: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
}

/// `et.app/1`: from records to features, a head, a loss and predictions.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_app {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write, for instance "text-classify".
    pub name: *const c_char,
    /// JSON Schema of the options.
    pub schema: *const c_char,
    /// Makes an instance. `state` is what `state` of an earlier instance returned, or empty for a new app.
    /// [one-at-a-time] since 0.1
    pub create: Option<
        unsafe extern "C" fn(
            options: et_str,
            state: et_str,
            out: *mut *mut c_void,
        ) -> *mut et_error,
    >,
    /// Columns that records need, as JSON: [{"role": "text", "names": ["text", "sentence"], "required": true,
    /// "target": false}, ...]. Targets may be missing when predicting. [one-at-a-time] since 0.1
    pub columns: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Sees every training record before training, to learn the labels and to refuse what `features` would refuse.
    /// `record` is a JSON object from role to value. Errors: BAD_INPUT, with the details {"role": ..., "expected":
    /// ..., "found": ...} for a value that cannot be used (`et_host.error_new_detailed`); the host adds file, line
    /// and the column's name. [one-at-a-time] since 0.1
    pub observe:
        Option<unsafe extern "C" fn(instance: *mut c_void, record: et_str) -> *mut et_error>,
    /// All records were seen; decides what follows from them. [one-at-a-time] since 0.1
    pub observed: Option<unsafe extern "C" fn(instance: *mut c_void) -> *mut et_error>,
    /// What a bundle must keep, as JSON. [one-at-a-time] since 0.1
    pub state: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// What the host must know, as JSON: {"loss": {"name": ..., "options": {}} or null, "metrics": [{"name": ...,
    /// "options": {}}], "best": "accuracy", "best_is": "max", "want": 2, "labels": [...], "config": {entries for
    /// config.json}, "longest": most tokens of a record's features after `build`, 0 if not known, "task": the model's
    /// task whose head this is, or "", "pretrained_head": whether a head of the checkpoint is taken over, "fresh":
    /// whether features change from epoch to epoch, "finish": whether `finish` is wanted for every record, "modules":
    /// [{"name": ...}] that `forward` runs besides the encoder, "vocabulary": {"tokens": [...], "unknown": token,
    /// "padding": token, "lower": bool} from which the host makes a tokenizer of words where the model's directory has
    /// none: ids follow the order of "tokens", behind "padding" and "unknown" where these are not among them; words
    /// are those of the pre-tokenizer "Whitespace" of a tokenizer.json}. [one-at-a-time] since 0.2
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Turns a record (JSON object from role to value) into features: adds one row or more. Targets that are absent
    /// are left out. Errors: as for `observe`. [any-thread] since 0.2
    pub features: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            context: *mut et_context,
            tokenizer: *const et_tokenizer,
            record: et_str,
            rows: *mut et_rows,
        ) -> *mut et_error,
    >,
    /// Declares the parameters of the head in `scope`, the root of the set; `model` is the model's description as
    /// JSON. [one-at-a-time] since 0.1
    pub build: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            scope: *const et_scope,
            model: et_str,
        ) -> *mut et_error,
    >,
    /// Runs the encoder and other modules by `net` as often as it likes, and writes what the loss and `decode` read
    /// to `outputs`, for instance "logits". [one-at-a-time] since 0.2
    pub forward: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            call: *const et_call,
            net: *mut et_net,
            batch: *const et_map,
            outputs: *mut et_map,
        ) -> *mut et_error,
    >,
    /// One part per row of the batch, as a JSON array of objects; the only part of a record is its prediction, unless
    /// `finish` is wanted. [one-at-a-time] since 0.2
    pub decode: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            batch: *const et_map,
            outputs: *const et_map,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// The prediction of a record, a JSON object, from the record and the parts of its rows in their order, a JSON
    /// array. Called for records of more than one row, and for all where `describe` says "finish". NULL where records
    /// always are one row. [one-at-a-time] since 0.2
    pub finish: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            record: et_str,
            parts: et_str,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
}

/// `et.metric/1`: a figure over a whole data set.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_metric {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name users write, for instance "accuracy".
    pub name: *const c_char,
    /// JSON Schema of the options.
    pub schema: *const c_char,
    /// Makes an instance with nothing counted. [one-at-a-time] since 0.1
    pub create:
        Option<unsafe extern "C" fn(options: et_str, out: *mut *mut c_void) -> *mut et_error>,
    /// Counts one batch. [one-at-a-time] since 0.1
    pub update: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            outputs: *const et_map,
            batch: *const et_map,
        ) -> *mut et_error,
    >,
    /// The figures so far as a JSON object from name to number (or nested arrays for a confusion matrix).
    /// [one-at-a-time] since 0.1
    pub compute: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Frees the instance. Accepts NULL. [one-at-a-time] since 0.1
    pub release: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// What the host must know, as JSON: {"of": "outputs" (the default: `update` is called) or "answers" (`answers`
    /// is), "lower_is_better": ["mse"]}. May be NULL. [one-at-a-time] since 0.2
    pub describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// Counts predictions beside the records that they belong to, both JSON arrays of objects of one length.
    /// [one-at-a-time] since 0.2
    pub answers: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            answers: et_str,
            records: et_str,
        ) -> *mut et_error,
    >,
    /// Writes what was counted. May be NULL, as `state_merge` then must be. [one-at-a-time] since 0.2
    pub state_save: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
    /// Adds what another instance of the same options has written. [one-at-a-time] since 0.2
    pub state_merge: Option<
        unsafe extern "C" fn(instance: *mut c_void, stream: *mut et_stream) -> *mut et_error,
    >,
}

/// A borrowed view of a tensor's memory for the time of one call. Fields mean what DLPack's DLTensor fields mean;
/// strides count elements.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_view {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// First byte of the memory; the first element lies `byte_offset` further.
    pub data: *mut c_void,
    /// An `ET_DEVICE_` constant.
    pub device_type: i32,
    /// Ordinal of the device.
    pub device_id: i32,
    /// An `ET_DTYPE_` constant.
    pub dtype: i32,
    /// Number of axes.
    pub rank: i32,
    /// Extents.
    pub shape: *const i64,
    /// Strides in elements.
    pub strides: *const i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: usize,
}

/// What `et_plugin_op.forward` gets.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_op_call {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// Instance of the operation.
    pub state: *mut c_void,
    /// Inputs, read only.
    pub inputs: *const *const et_view,
    /// Number of inputs.
    pub inputs_len: usize,
    /// Outputs, allocated by the host, contiguous, not initialised.
    pub outputs: *const *const et_view,
    /// Number of outputs.
    pub outputs_len: usize,
    /// CUDA stream on which the work must be enqueued; NULL on the CPU.
    pub stream: *mut c_void,
}

/// `et.op/1`: an operation with code of its own.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_plugin_op {
    /// Bytes filled by the plugin.
    pub struct_size: usize,
    /// Name, for instance "cube".
    pub name: *const c_char,
    /// `ET_OP_` bits.
    pub flags: u32,
    /// Number of inputs.
    pub inputs_len: u32,
    /// Number of outputs.
    pub outputs_len: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Sets `dtype`, `rank` (at most 8) and the extents of each output from the inputs (whose `data` is NULL here).
    /// `shapes[i]` has room for 8 extents. [callback-thread] since 0.1
    pub infer: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_view,
            dtypes: *mut i32,
            ranks: *mut i32,
            shapes: *const *mut i64,
        ) -> *mut et_error,
    >,
    /// Computes the outputs. [callback-thread] since 0.1
    pub forward: Option<unsafe extern "C" fn(call: *const et_op_call) -> *mut et_error>,
    /// Gradients of the inputs from those of the outputs, by host operations: `input_grads[i]` receives an owned
    /// reference, or stays NULL where no gradient flows; an entry of `output_grads` is NULL where none arrived. NULL
    /// without `ET_OP_HAS_BACKWARD`. [callback-thread] since 0.1
    pub backward: Option<
        unsafe extern "C" fn(
            state: *mut c_void,
            inputs: *const *const et_tensor,
            outputs: *const *const et_tensor,
            output_grads: *const *const et_tensor,
            input_grads: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
}

/// `et.registry/1`: what other plugins of the host offer.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_registry {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// The table of an operation by its name; it lives until the process ends, and goes to `apply_op` of
    /// `et.autograd/1` as one's own does. Errors: NOT_FOUND naming the nearest name. [any-thread] since 0.2
    pub op:
        Option<unsafe extern "C" fn(name: et_str, out: *mut *const et_plugin_op) -> *mut et_error>,
}
