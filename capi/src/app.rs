//! A trained bundle that answers texts.

use crate::error::{answer, check_out, guard};
use crate::handle::{Guarded, Object, find, give, peek, take_back};
use crate::runtime::et_runtime;
use crate::text::{c_string, et_text, many, optional, required};
use easytransfer_facade as facade;
use facade::Record;
use facade::plugin::abi::et_error;
use serde_json::Value;
use std::ffi::{CString, c_char};
use std::ptr::null;

/// A trained bundle.
pub struct et_app {
    app: Guarded<facade::App>,
    labels: Vec<CString>,
}

impl Object for et_app {
    const NAME: &'static str = "an app";
}

impl et_app {
    fn new(app: facade::App) -> et_app {
        let labels = app.labels().iter().map(|label| c_string(label)).collect();
        et_app { app: Guarded::new(app), labels }
    }
}

/// Answers to texts, one row per text.
pub struct et_predictions {
    rows: Vec<Answer>,
    classes: Vec<CString>,
}

impl Object for et_predictions {
    const NAME: &'static str = "predictions";
}

struct Answer {
    label: CString,
    score: f32,
    probabilities: Vec<f32>,
    json: CString,
}

impl Answer {
    fn new(record: Record, classes: &[String]) -> Answer {
        let probability = |class: &String| {
            record
                .get("probabilities")
                .and_then(|all| all.get(class))
                .and_then(Value::as_f64)
                .map_or(f32::NAN, |p| p as f32)
        };
        let probabilities: Vec<f32> = classes.iter().map(probability).collect();
        let number = |key: &str| record.get(key).and_then(Value::as_f64);
        let label = match (record.get("label"), record.get("labels")) {
            (Some(Value::String(label)), _) => label.clone(),
            (_, Some(Value::Array(labels))) => {
                labels.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            }
            _ => String::new(),
        };
        let score = number("score").or_else(|| number("value")).map_or(f32::NAN, |s| s as f32);
        let json = c_string(&Value::Object(record).to_string());
        Answer { label: c_string(&label), score, probabilities, json }
    }
}

/// Loads a trained bundle. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file and what is wrong with
/// it. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_load(
    runtime: *const et_runtime,
    directory: *const c_char,
    out: *mut *mut et_app,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_load")?;
        let runtime = find(runtime, "runtime")?;
        // SAFETY: the caller passes text, and `out` is not NULL.
        unsafe {
            let app = runtime.runtime.app(required(directory, "directory")?.as_ref())?;
            give(out, et_app::new(app));
        }
        Ok(())
    })
}

/// Loads a trained bundle that answers in another way than usual. `options` is JSON, or NULL for the defaults:
/// {"precision": "f32" | "bf16" | "int8"}. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file or key.
/// [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_load_with(
    runtime: *const et_runtime,
    directory: *const c_char,
    options: *const c_char,
    out: *mut *mut et_app,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_load_with")?;
        let runtime = find(runtime, "runtime")?;
        // SAFETY: the caller passes texts, and `out` is not NULL.
        unsafe {
            let options = facade::json::app_options(optional(options, "options")?)?;
            let directory = required(directory, "directory")?;
            let app = runtime.runtime.app_with(directory.as_ref(), options)?;
            give(out, et_app::new(app));
        }
        Ok(())
    })
}

/// Gives an app back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_release(app: *mut et_app) {
    answer((), || take_back(app));
}

/// Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_labels_len(app: *const et_app) -> usize {
    answer(0, || peek(app, |app| Some(app.labels.len())).unwrap_or(0))
}

/// Name of class `index`, valid while the app lives; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_label(app: *const et_app, index: usize) -> *const c_char {
    let label = |app: &et_app| app.labels.get(index).map(|label| label.as_ptr());
    answer(null(), || peek(app, label).unwrap_or(null()))
}

/// Answers `texts_len` texts, which are borrowed for the call. `*out` is for `et_predictions_release`; it does not
/// need the app any more. Errors: BAD_INPUT for text that is not UTF-8, naming its index. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict(
    app: *mut et_app,
    texts: *const *const c_char,
    texts_len: usize,
    out: *mut *mut et_predictions,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes an array of texts.
        let texts = unsafe { many(texts, texts_len)? };
        let mut turn = app.app.turn();
        let records = turn.predict(&texts)?;
        let classes = turn.labels();
        let rows = records.into_iter().map(|record| Answer::new(record, classes)).collect();
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_predictions { rows, classes: app.labels.clone() }) };
        Ok(())
    })
}

/// Answers a JSON text: an object like {"text": ".."}, a string, or an array of them; `*out` is one object or an
/// array, for `et_text_release`. Errors: BAD_INPUT saying what is wrong with the request. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_json(
    app: *mut et_app,
    request: *const c_char,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_json")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes text.
        let request = unsafe { required(request, "request")? };
        let answer = app.app.turn().predict_json(request)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&answer)) };
        Ok(())
    })
}

/// What `read` finds in a row; nothing past the end.
fn row<T>(
    predictions: *const et_predictions,
    index: usize,
    read: impl FnOnce(&Answer) -> Option<T>,
) -> Option<T> {
    peek(predictions, |all| all.rows.get(index).and_then(read))
}

/// Number of rows; 0 for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_len(predictions: *const et_predictions) -> usize {
    answer(0, || peek(predictions, |all| Some(all.rows.len())).unwrap_or(0))
}

/// Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_classes_len(predictions: *const et_predictions) -> usize {
    answer(0, || peek(predictions, |all| Some(all.classes.len())).unwrap_or(0))
}

/// Name of class `index`, valid while the predictions live; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_class(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    let class = |all: &et_predictions| all.classes.get(index).map(|class| class.as_ptr());
    answer(null(), || peek(predictions, class).unwrap_or(null()))
}

/// The label of a row, valid while the predictions live: the most probable class; with several labels all of them,
/// joined by commas; empty for numbers. NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_label(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    answer(null(), || row(predictions, index, |row| Some(row.label.as_ptr())).unwrap_or(null()))
}

/// Probability of the label of a row, or the predicted number; NaN where there is none and past the end. [any-thread]
/// since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_score(
    predictions: *const et_predictions,
    index: usize,
) -> f32 {
    answer(f32::NAN, || row(predictions, index, |row| Some(row.score)).unwrap_or(f32::NAN))
}

/// Probability of class `class_index` in a row; NaN past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_probability(
    predictions: *const et_predictions,
    index: usize,
    class_index: usize,
) -> f32 {
    let probability = |row: &Answer| row.probabilities.get(class_index).copied();
    answer(f32::NAN, || row(predictions, index, probability).unwrap_or(f32::NAN))
}

/// A whole row as JSON, valid while the predictions live; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_json(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    answer(null(), || row(predictions, index, |row| Some(row.json.as_ptr())).unwrap_or(null()))
}

/// Gives predictions back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_release(predictions: *mut et_predictions) {
    answer((), || take_back(predictions));
}
