//! `et.session/1`: what a transfer strategy can ask of a running fit.

use crate::{et_buffer, et_error, et_map, et_params, et_scope, et_str, et_stream, et_tensor};
use core::ffi::c_void;

/// A running fit.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_session {
    _opaque: [u8; 0],
}
/// An optimizer that a strategy opened in a session.
#[cfg_attr(feature = "layout-check", repr(C), derive(abi_stable::StableAbi))]
pub struct et_session_optimizer {
    _opaque: [u8; 0],
}

/// `et.session/1`. The model under training is called "model"; models and modules of strategies have the names they
/// were given. Sources of data are "train", "valid" where there is validation data, those of the run's configuration
/// and those that strategies opened. All slots are [one-at-a-time], called from inside the strategy's hooks.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_session {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// The parameter set of a model or module, borrowed for the life of the session. Errors: NOT_FOUND. since 0.1
    pub params: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            out: *mut *mut et_params,
        ) -> *mut et_error,
    >,
    /// Loads a trained bundle as a frozen model under `name`; only in `on_setup`. From then on every batch also
    /// carries that model's own features, made by its own tokenizer, under "name/". Errors: NOT_FOUND, BAD_INPUT,
    /// ALREADY_EXISTS. since 0.1
    pub load_model: Option<
        unsafe extern "C" fn(session: *mut et_session, name: et_str, path: et_str) -> *mut et_error,
    >,
    /// The description of a model as JSON: what the model and its app say of themselves, labels included. since 0.1
    pub describe: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Outputs of a model with its app's head on a batch. `training` 1 switches dropout on; `want` is a set of
    /// `ET_WANT_` bits. Models that were loaded record nothing on the tape. Errors: FAILED_PRECONDITION for a module
    /// without a model. since 0.1
    pub forward: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            batch: *const et_map,
            training: i32,
            want: u32,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// The configured loss of the run on outputs and batch: a scalar. since 0.1
    pub loss: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Adds a named scalar to this step's losses with a weight; only in `on_outputs`. since 0.1
    pub add_loss: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            loss: *const et_tensor,
            weight: f64,
        ) -> *mut et_error,
    >,
    /// Sets the weight of the run's own loss (named "loss") for this step, 1 by default; only in `on_outputs`. since
    /// 0.1
    pub set_loss_weight:
        Option<unsafe extern "C" fn(session: *mut et_session, weight: f64) -> *mut et_error>,
    /// Asks models for more outputs in every step, a set of `ET_WANT_` bits; only in `on_setup`. since 0.1
    pub want: Option<unsafe extern "C" fn(session: *mut et_session, want: u32) -> *mut et_error>,
    /// The next batch of a source: endless, in another order every epoch. Its fields "record" and "source" [B] say
    /// where each row comes from. Errors: NOT_FOUND. since 0.1
    pub next_batch: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// Opens one more file as a source under `name`, read as the training file is; only in `on_setup`. `options` is
    /// JSON: {"task": text, "domain": text, "weight": number, "labelled": bool, "columns": {role: column}}; without
    /// "labelled" its records have targets. Errors: ALREADY_EXISTS,
    /// BAD_INPUT; what is wrong with the file comes once all strategies are set up. since 0.2
    pub open_source: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            path: et_str,
            options: et_str,
        ) -> *mut et_error,
    >,
    /// Opens an optimizer of the registry over a parameter set of the session or a part of one, which is sealed by it;
    /// `options` is JSON. Lives as long as the session. Errors: FAILED_PRECONDITION for a set of which nothing is
    /// trainable. since 0.1
    pub optimizer: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            options: et_str,
            params: *mut et_params,
            out: *mut *mut et_session_optimizer,
        ) -> *mut et_error,
    >,
    /// One step of such an optimizer with the gradients present, which are clipped first as the run's are, and
    /// forgotten then. NULL is the run's own optimizer over the model under training, for strategies that drive the
    /// fit. since 0.1
    pub optimizer_step: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            optimizer: *mut et_session_optimizer,
            lr: f64,
        ) -> *mut et_error,
    >,
    /// Figures of the model under training or a module with a head on a source, of which the first `rows` records
    /// count, or all for 0; a JSON object. since 0.2
    pub evaluate: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            model: et_str,
            source: et_str,
            rows: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// Writes a number to the run's metrics under `name` at the present step. since 0.1
    pub log_scalar: Option<
        unsafe extern "C" fn(session: *mut et_session, name: et_str, value: f64) -> *mut et_error,
    >,
    /// Optimizer steps done so far. since 0.1
    pub step: Option<unsafe extern "C" fn(session: *const et_session) -> u64>,
    /// Optimizer steps of the whole run. since 0.1
    pub total_steps: Option<unsafe extern "C" fn(session: *const et_session) -> u64>,
    /// 1 if the user asked to stop, else 0. since 0.1
    pub is_cancelled: Option<unsafe extern "C" fn(session: *const et_session) -> i32>,

    /// A network of the strategy's own under `name`; only in `on_setup`. `model` names a model of the registry that
    /// `config` (JSON) describes, or is "model" for that of the model under training, of whose configuration `config`
    /// has the entries that differ, or is empty for a bare set. `flags` is a set of `ET_MODULE_` bits. The out is the
    /// outermost scope of its parameters, owned by the caller, in which more may be declared until `on_setup` ends;
    /// then the set is sealed. Modules are checkpointed and resumed with the run, and are listed in its report.
    /// Errors: ALREADY_EXISTS, NOT_FOUND, BAD_INPUT. since 0.2
    pub module: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            model: et_str,
            config: et_str,
            flags: u32,
            out: *mut *mut et_scope,
        ) -> *mut et_error,
    >,
    /// Makes a module with a model and a head the result of the run: it is what is evaluated, kept when best, and
    /// written to the bundle. Errors: NOT_FOUND, FAILED_PRECONDITION for a module without a head. since 0.2
    pub keep:
        Option<unsafe extern "C" fn(session: *mut et_session, module: et_str) -> *mut et_error>,
    /// The sources as JSON, in the order of their numbers, which batches have under "source": [{"name": "train",
    /// "records": 100, "batches": of an epoch, "task": "", "domain": "", "weight": 1.0, "categories": {role: [texts in
    /// the order of their numbers]}}, ...]; only after setup. since 0.2
    pub sources: Option<
        unsafe extern "C" fn(session: *mut et_session, out: *mut *mut et_buffer) -> *mut et_error,
    >,
    /// The next batch of one of `len` sources, drawn with these weights (NULL for those of the sources). The draw is
    /// counted, so a resumed run draws the same. since 0.2
    pub draw_batch: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            sources: *const et_str,
            weights: *const f64,
            len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// A batch of `len` records of a source by their numbers. Errors: NOT_FOUND. since 0.2
    pub records: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            numbers: *const u64,
            len: usize,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// One record of a source as a JSON object from role to value. Errors: NOT_FOUND. since 0.2
    pub record: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            number: u64,
            out: *mut *mut et_buffer,
        ) -> *mut et_error,
    >,
    /// The loss of each row by itself, [B]. Errors: UNIMPLEMENTED for a loss whose rows have none of their own. since
    /// 0.2
    pub loss_rows: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            outputs: *const et_map,
            batch: *const et_map,
            out: *mut *mut et_tensor,
        ) -> *mut et_error,
    >,
    /// Says how many steps the whole run has, for a strategy that drives the fit; the schedule counts by it. Only in
    /// `on_setup`. since 0.2
    pub set_total_steps:
        Option<unsafe extern "C" fn(session: *mut et_session, steps: u64) -> *mut et_error>,
    /// The learning rate of the present step by the run's schedule. since 0.2
    pub lr: Option<unsafe extern "C" fn(session: *mut et_session) -> f64>,
    /// What the trainer's own step does with the next batches of a source: hooks of the other strategies, loss,
    /// backward, clipping, optimizer. It is not counted before `commit`. Only in `fit`. since 0.2
    pub step_once:
        Option<unsafe extern "C" fn(session: *mut et_session, source: et_str) -> *mut et_error>,
    /// Gradients of a scalar, added to those that are there. since 0.2
    pub backward: Option<
        unsafe extern "C" fn(session: *mut et_session, loss: *const et_tensor) -> *mut et_error,
    >,
    /// Ends a step: counts it, writes `figures` (a JSON object from name to number; "loss" is the step's loss),
    /// evaluates and writes a checkpoint when due, for which `saver` gives the state of the strategy, which is in the
    /// middle of its `fit`; NULL for a strategy without state. The out is 1 while the run goes on, 0 once it is over:
    /// all steps done, stopped early or cancelled. Only in `fit`. since 0.2
    pub commit: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            figures: et_str,
            saver: *const et_saver,
            out: *mut i32,
        ) -> *mut et_error,
    >,
}

/// How a strategy writes its state while it drives the fit.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_saver {
    /// Bytes filled by the strategy.
    pub struct_size: usize,
    /// First argument of `save`.
    pub context: *mut c_void,
    /// Writes what `state_load` will read. Called before `commit` returns, or never. [callback-thread] since 0.2
    pub save:
        Option<unsafe extern "C" fn(context: *mut c_void, stream: *mut et_stream) -> *mut et_error>,
}
