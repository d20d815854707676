//! The whole way from a file of labelled texts to a bundle.

use crate::error::{check_out, guard};
use crate::handle::{find, give};
use crate::runtime::et_runtime;
use crate::text::{et_text, required};
use easytransfer_facade as facade;
use facade::plugin::abi::et_error;
use std::ffi::{c_char, c_void};

/// Called after every step with the steps done, the steps of the whole run, the loss and the learning rate of the
/// step. Returns 0 to end the run, which `et_fit` then reports as CANCELLED; everything else goes on. It must neither
/// throw nor `longjmp` out. [callback-thread] since 0.1
pub type et_progress = Option<
    unsafe extern "C" fn(user: *mut c_void, step: u64, total_steps: u64, loss: f64, lr: f64) -> i32,
>;

/// The caller's pointer, which goes where the run goes.
struct User(*mut c_void);

// SAFETY: the pointer is only handed back to the caller's function, on the thread that called `et_fit`.
unsafe impl Send for User {}

impl User {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Trains an app and writes its bundle. `options` is JSON: {"app": "text-classify", "encoder": "dir", "train": "file",
/// "valid": "file", "output": "dir", "config": {"epochs": 3, "lr": 5e-5, ..}, "from_scratch": false, "columns":
/// {"text": "sentence"}, "resume": false, "overwrite": false, "progress": "silent" | "plain" | "auto"}, of which
/// train and output are required; without encoder the model is what "config": {"encoder": {"model_type": ..}} says,
/// from scratch. What is in the output directory already is kept: `resume` goes on from its checkpoint, `overwrite`
/// replaces its bundle, else the call fails; so does a second run into a directory while the first one is under way.
/// `progress` may be NULL; `user` is handed to it. A run ends early when `progress` returns 0 or `et_runtime_cancel` is
/// called, which is looked at between the parts of setting up, while data is read and turned into features, after every
/// step, and between the batches of an evaluation. Before the first step that leaves an output directory as it was,
/// but for parts of a directory that had to be made; from then on a checkpoint, from which `resume` goes on to the same
/// result (an evaluation that was broken off is made again). `*out` is a JSON object with "metrics", "best_step",
/// "steps", "mean_loss", "skipped_rows", "seconds" and "tokens", for `et_text_release`; `out` may be NULL. Errors: BAD_INPUT
/// naming file and line, option or key; CANCELLED. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_fit(
    runtime: *const et_runtime,
    options: *const c_char,
    progress: et_progress,
    user: *mut c_void,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        // SAFETY: the caller passes text.
        let (runtime, options) =
            (find(runtime, "runtime")?, unsafe { required(options, "options")? });
        let mut job = facade::json::train_job(options)?;
        runtime.remember(&job.cancel);
        if let Some(progress) = progress {
            let user = User(user);
            job.on_step = Some(Box::new(move |info: &facade::StepInfo| {
                // SAFETY: the caller's function takes the caller's pointer.
                unsafe {
                    progress(user.get(), info.step, info.total_steps, info.loss, info.lr) != 0
                }
            }));
        }
        let result = runtime.runtime.train(job)?;
        if check_out(out, "").is_ok() {
            // SAFETY: `out` is not NULL.
            unsafe { give(out, et_text::new(&facade::json::train_result(&result))) };
        }
        Ok(())
    })
}
