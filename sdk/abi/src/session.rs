//! `et.session/1`: what a transfer strategy can ask of a running fit.

use crate::{et_buffer, et_error, et_map, et_params, et_str, et_tensor};

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

/// `et.session/1`. The model under training is called "model"; models loaded by a strategy have the name it gave. All
/// slots are [one-at-a-time], called from inside the strategy's hooks.
#[repr(C)]
#[cfg_attr(feature = "layout-check", derive(abi_stable::StableAbi))]
pub struct et_host_session {
    /// Bytes filled by the host.
    pub struct_size: usize,
    /// The parameter set of a model, borrowed for the life of the session. Errors: NOT_FOUND. since 0.1
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
    /// `ET_WANT_` bits. Models that were loaded record nothing on the tape. since 0.1
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
    /// The next batch of a named data source: "train" (endless, reshuffled every epoch) or a source opened with
    /// `open_source`. since 0.1
    pub next_batch: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            source: et_str,
            out: *mut *mut et_map,
        ) -> *mut et_error,
    >,
    /// Opens one more labelled file as an endless source under `name`, read as the training file is; only in
    /// `on_setup`. since 0.1
    pub open_source: Option<
        unsafe extern "C" fn(session: *mut et_session, name: et_str, path: et_str) -> *mut et_error,
    >,
    /// Opens an optimizer of the registry over a parameter set; `options` is JSON. Lives as long as the session.
    /// since 0.1
    pub optimizer: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            name: et_str,
            options: et_str,
            params: *mut et_params,
            out: *mut *mut et_session_optimizer,
        ) -> *mut et_error,
    >,
    /// One step of such an optimizer with the gradients present, then forgets them. since 0.1
    pub optimizer_step: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            optimizer: *mut et_session_optimizer,
            lr: f64,
        ) -> *mut et_error,
    >,
    /// Evaluates the model under training on the split "valid"; JSON object of metrics. since 0.1
    pub evaluate: Option<
        unsafe extern "C" fn(
            session: *mut et_session,
            split: et_str,
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
}
