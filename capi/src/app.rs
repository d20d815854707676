//! A trained bundle that answers texts.

use crate::error::{answer, check_out, exclusive, give, guard, shared, take_back};
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
    app: facade::App,
    labels: Vec<CString>,
}

/// Answers to texts, one row per text.
pub struct et_predictions {
    rows: Vec<Answer>,
    classes: Vec<CString>,
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

/// Loads a trained bundle. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file and what is wrong with it. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_load(
    runtime: *const et_runtime,
    directory: *const c_char,
    out: *mut *mut et_app,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_load")?;
        // SAFETY: the caller passes a live runtime and text, and `out` is not NULL.
        unsafe {
            let runtime = shared(runtime, "runtime")?;
            let app = runtime.runtime.app(required(directory, "directory")?.as_ref())?;
            let labels = app.labels().iter().map(|label| c_string(label)).collect();
            give(out, et_app { app, labels });
        }
        Ok(())
    })
}

/// Loads a trained bundle that answers in another way than usual. `options` is JSON, or NULL for the defaults: {"precision": "f32" |
/// "bf16" | "int8"}. `*out` is for `et_app_release`. Errors: BAD_INPUT naming the file or key. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_load_with(
    runtime: *const et_runtime,
    directory: *const c_char,
    options: *const c_char,
    out: *mut *mut et_app,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_load_with")?;
        // SAFETY: the caller passes a live runtime and texts, and `out` is not NULL.
        unsafe {
            let runtime = shared(runtime, "runtime")?;
            let options = facade::json::app_options(optional(options, "options")?)?;
            let directory = required(directory, "directory")?;
            let app = runtime.runtime.app_with(directory.as_ref(), options)?;
            let labels = app.labels().iter().map(|label| c_string(label)).collect();
            give(out, et_app { app, labels });
        }
        Ok(())
    })
}

/// Gives an app back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_release(app: *mut et_app) {
    // SAFETY: the caller passes NULL or an app that it owns.
    unsafe { take_back(app) };
}

/// Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_labels_len(app: *const et_app) -> usize {
    // SAFETY: the caller passes NULL or a live app.
    answer(0, || unsafe { app.as_ref() }.map_or(0, |app| app.labels.len()))
}

/// Name of class `index`, valid while the app lives; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_label(app: *const et_app, index: usize) -> *const c_char {
    // SAFETY: the caller passes NULL or a live app.
    let app = unsafe { app.as_ref() };
    answer(null(), || app.and_then(|app| app.labels.get(index)).map_or(null(), |l| l.as_ptr()))
}

/// Answers `texts_len` texts, which are borrowed for the call. `*out` is for `et_predictions_release`; it does not need the app any
/// more. Errors: BAD_INPUT for text that is not UTF-8, naming its index. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict(
    app: *mut et_app,
    texts: *const *const c_char,
    texts_len: usize,
    out: *mut *mut et_predictions,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict")?;
        // SAFETY: the caller passes a live app that no other call uses and an array of texts, and `out` is not NULL.
        unsafe {
            let app = exclusive(app, "app")?;
            let records = app.app.predict(&many(texts, texts_len)?)?;
            let classes = app.app.labels();
            let rows = records.into_iter().map(|record| Answer::new(record, classes)).collect();
            give(out, et_predictions { rows, classes: app.labels.clone() });
        }
        Ok(())
    })
}

/// Answers a JSON text: an object like {"text": ".."}, a string, or an array of them; `*out` is one object or an array, for
/// `et_text_release`. Errors: BAD_INPUT saying what is wrong with the request. [one-at-a-time] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_json(
    app: *mut et_app,
    request: *const c_char,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_json")?;
        // SAFETY: the caller passes a live app that no other call uses and text, and `out` is not NULL.
        unsafe {
            let app = exclusive(app, "app")?;
            let answer = app.app.predict_json(required(request, "request")?)?;
            give(out, et_text::new(&answer));
        }
        Ok(())
    })
}

/// # Safety
/// `predictions` is NULL or live.
unsafe fn row<'a>(predictions: *const et_predictions, row: usize) -> Option<&'a Answer> {
    // SAFETY: promised by the caller.
    unsafe { predictions.as_ref() }.and_then(|predictions| predictions.rows.get(row))
}

/// Number of rows; 0 for NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_len(predictions: *const et_predictions) -> usize {
    // SAFETY: the caller passes NULL or live predictions.
    answer(0, || unsafe { predictions.as_ref() }.map_or(0, |all| all.rows.len()))
}

/// Number of classes; 0 for NULL and for apps without classes. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_classes_len(predictions: *const et_predictions) -> usize {
    // SAFETY: the caller passes NULL or live predictions.
    answer(0, || unsafe { predictions.as_ref() }.map_or(0, |all| all.classes.len()))
}

/// Name of class `index`, valid while the predictions live; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_class(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    // SAFETY: the caller passes NULL or live predictions.
    let all = unsafe { predictions.as_ref() };
    answer(null(), || all.and_then(|all| all.classes.get(index)).map_or(null(), |c| c.as_ptr()))
}

/// The label of a row, valid while the predictions live: the most probable class; with several labels all of them, joined by commas;
/// empty for numbers. NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_label(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    // SAFETY: the caller passes NULL or live predictions.
    answer(null(), || unsafe { row(predictions, index) }.map_or(null(), |row| row.label.as_ptr()))
}

/// Probability of the label of a row, or the predicted number; NaN where there is none and past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_score(
    predictions: *const et_predictions,
    index: usize,
) -> f32 {
    // SAFETY: the caller passes NULL or live predictions.
    answer(f32::NAN, || unsafe { row(predictions, index) }.map_or(f32::NAN, |row| row.score))
}

/// Probability of class `class_index` in a row; NaN past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_probability(
    predictions: *const et_predictions,
    index: usize,
    class_index: usize,
) -> f32 {
    // SAFETY: the caller passes NULL or live predictions.
    let row = unsafe { row(predictions, index) };
    answer(f32::NAN, || {
        row.and_then(|row| row.probabilities.get(class_index)).copied().unwrap_or(f32::NAN)
    })
}

/// A whole row as JSON, valid while the predictions live; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_json(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    // SAFETY: the caller passes NULL or live predictions.
    answer(null(), || unsafe { row(predictions, index) }.map_or(null(), |row| row.json.as_ptr()))
}

/// Gives predictions back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_release(predictions: *mut et_predictions) {
    // SAFETY: the caller passes NULL or predictions that it owns.
    unsafe { take_back(predictions) };
}
