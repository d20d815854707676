//! The whole way from a file of labelled texts to a bundle.

use crate::error::{check_out, guard};
use crate::event::{Listener, et_on_event};
use crate::handle::{find, give};
use crate::runtime::et_runtime;
use crate::text::{et_text, required};
use easytransfer_facade as facade;
use facade::plugin::abi::et_error;
use std::ffi::{c_char, c_void};

/// Trains an app and writes its bundle. `options` is JSON: {"app": "text-classify", "encoder": "dir", "train": "file" |
/// [records], "valid": "file" | [records], "output": "dir", "config": {"epochs": 3, "lr": 5e-5, ..}, "from_scratch":
/// false, "allow_missing": false, "columns": {"text": "sentence"}, "valid_columns": {}, "format": "auto" | "tsv" | "csv"
/// | "jsonl" | "text", "schema": "content:str:1,label:str:1", "on_bad_row": "stop" | "skip", "resume": false,
/// "overwrite": false, "progress": "silent" | "plain" | "auto"}, of which train and output are required. Records are
/// objects like {"text": "..", "label": ".."}; a run over them and one over a file of JSON Lines with them give the
/// same bytes. Without encoder the model is what "config": {"encoder": {"model_type": ..}} says,
/// from scratch. What is in the output directory already is kept: `resume` goes on from its checkpoint, `overwrite`
/// replaces its bundle, else the call fails; so does a second run into a directory while the first one is under way.
/// `on_event` is told of everything that happens and may end the run; it may be NULL; `user` is handed to it. A run
/// ends early when `on_event` says so or `et_runtime_cancel` is called, which is looked at between the parts of setting
/// up, while data is read and turned into features, after every step, and between the batches of an evaluation. Before
/// the first step that leaves an output directory as it was, but for parts of a directory that had to be made; from
/// then on a checkpoint, from which `resume` goes on to the same result (an evaluation that was broken off is made
/// again). `*out` is a JSON object with "metrics", "best_step", "steps", "mean_loss", "skipped_rows", "seconds",
/// "step_seconds" and "tokens", for `et_text_release`; `out` may be NULL. Errors: BAD_INPUT
/// naming file and line, option or key; CANCELLED. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_fit(
    runtime: *const et_runtime,
    options: *const c_char,
    on_event: et_on_event,
    user: *mut c_void,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes text.
        let (runtime, options) =
            (find(runtime, "runtime")?, unsafe { required(options, "options")? });
        let mut job = facade::json::train_job(options)?;
        runtime.remember(&job.cancel);
        let listener = Listener::new(on_event, user);
        if listener.is_there() {
            job = job.on_event(move |event: &facade::Event| listener.tell(event));
        }
        let result = runtime.runtime.train(job)?;
        if check_out(out, "").is_ok() {
            // SAFETY: `out` is not NULL.
            unsafe { give(out, et_text::new(&facade::json::train_result(&result))) };
        }
        Ok(())
    })
}
