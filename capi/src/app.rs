//! A trained bundle that answers texts and other records.

use crate::error::{answer, check_out, guard};
use crate::event::{Listener, et_on_event};
use crate::handle::{Object, find, give, peek, take_back};
use crate::runtime::et_runtime;
use crate::text::{c_string, et_text, many, many_sized, optional, required, sized};
use easytransfer_facade as facade;
use facade::plugin::Error;
use facade::plugin::abi::{et_error, et_str};
use std::ffi::{CString, c_char, c_void};
use std::ptr::null;
use std::sync::{Arc, OnceLock};

/// A trained bundle.
pub struct et_app {
    app: facade::App,
    classes: Arc<[Class]>,
}

impl Object for et_app {
    const NAME: &'static str = "an app";
}

impl et_app {
    fn new(app: facade::App) -> et_app {
        let class = |name: &String| Class { name: name.clone(), text: c_string(name) };
        let classes = app.labels().iter().map(class).collect();
        et_app { app, classes }
    }

    fn predictions(&self, answers: Vec<facade::Answer>) -> et_predictions {
        let rows = answers.into_iter().map(Row::from).collect();
        et_predictions { rows, classes: self.classes.clone() }
    }
}

/// A class by its name, and by its name as C reads it.
struct Class {
    name: String,
    text: CString,
}

/// Answers of an app, one row per text or record.
pub struct et_predictions {
    rows: Vec<Row>,
    classes: Arc<[Class]>,
}

impl Object for et_predictions {
    const NAME: &'static str = "predictions";
}

/// An answer, and the texts of it that somebody has asked for.
struct Row {
    answer: facade::Answer,
    label: OnceLock<Option<CString>>,
    json: OnceLock<CString>,
}

impl From<facade::Answer> for Row {
    fn from(answer: facade::Answer) -> Self {
        Self { answer, label: OnceLock::new(), json: OnceLock::new() }
    }
}

impl Row {
    fn label(&self) -> Option<*const c_char> {
        let label = self.label.get_or_init(|| self.answer.label().map(|label| c_string(&label)));
        label.as_ref().map(|label| label.as_ptr())
    }

    /// The JSON text, in which there is no NUL: JSON escapes it.
    fn json(&self) -> &CString {
        self.json.get_or_init(|| c_string(&self.answer.to_string()))
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
    answer(0, || peek(app, |app| Some(app.classes.len())).unwrap_or(0))
}

/// Name of class `index`, valid while the app lives; NULL past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_label(app: *const et_app, index: usize) -> *const c_char {
    let label = |app: &et_app| app.classes.get(index).map(|class| class.text.as_ptr());
    answer(null(), || peek(app, label).unwrap_or(null()))
}

/// Answers `texts_len` texts, which are borrowed for the call. `*out` is for `et_predictions_release`; it does not
/// need the app any more. Errors: BAD_INPUT for text that is not UTF-8, naming its index, and for an app that needs
/// more than a text. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict(
    app: *const et_app,
    texts: *const *const c_char,
    texts_len: usize,
    out: *mut *mut et_predictions,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes an array of texts, and `out` is not NULL.
        unsafe {
            let texts = many(texts, texts_len)?;
            give(out, app.predictions(app.app.predict(&texts)?));
        }
        Ok(())
    })
}

/// As `et_app_predict`, for texts with their lengths, which may hold NULs. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_texts(
    app: *const et_app,
    texts: *const et_str,
    texts_len: usize,
    out: *mut *mut et_predictions,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_texts")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes an array of texts, and `out` is not NULL.
        unsafe {
            let texts = many_sized(texts, texts_len, "text")?;
            give(out, app.predictions(app.app.predict(&texts)?));
        }
        Ok(())
    })
}

/// Answers `records_len` records, each the JSON text of an object from role to value, for instance {"question": ..,
/// "context": ..}, or of a string, which is a text alone. `*out` is as that of `et_app_predict`. Errors: BAD_INPUT
/// naming the index of a record and what is wrong with it. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_records(
    app: *const et_app,
    records: *const et_str,
    records_len: usize,
    out: *mut *mut et_predictions,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_records")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes an array of texts.
        let texts = unsafe { many_sized(records, records_len, "record")? };
        let record = |(index, text): (usize, &&str)| {
            let record = facade::json::record(text).map_err(Error::from);
            record.map_err(|error| error.context(format!("record {index}")))
        };
        let records = texts.iter().enumerate().map(record).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, app.predictions(app.app.predict_records(&records)?)) };
        Ok(())
    })
}

/// Answers a JSON text: an object like {"text": ".."}, a string, or an array of them; `*out` is one object or an
/// array, for `et_text_release`. Errors: BAD_INPUT saying what is wrong with the request. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_json(
    app: *const et_app,
    request: *const c_char,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_json")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes text.
        let request = unsafe { required(request, "request")? };
        let answer = app.app.predict_json(request)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&answer)) };
        Ok(())
    })
}

/// Figures on labelled data. `options` is JSON: {"data": "file" | [records], "report": "file", "columns": {"text":
/// "sentence"}, "format": "auto" | "tsv" | "csv" | "jsonl" | "text", "schema": "..", "on_bad_row": "stop" | "skip",
/// "metrics": ["name"]}, of which data is required; records are objects like {"text": "..", "label": ".."}, report is
/// an HTML page that is written, and metrics are of any plugin, beside those of the app. `on_event` is told of the
/// rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is handed to it. `*out` is a JSON object
/// with "rows", "skipped" and "metrics", for `et_text_release`. Errors: BAD_INPUT naming file and line, record or key;
/// CANCELLED, without a page. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_evaluate(
    app: *mut et_app,
    options: *const c_char,
    on_event: et_on_event,
    user: *mut c_void,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_evaluate")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes text.
        let options = unsafe { required(options, "options")? };
        let listener = Listener::new(on_event, user);
        let mut tell = |event: &facade::Event| listener.tell(event);
        let mut watch = facade::Watch::new(&mut tell);
        let figures = facade::json::evaluate(&app.app, options, &mut watch)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&figures)) };
        Ok(())
    })
}

/// Predictions for data, written to a file. `options` is JSON: as for `et_app_evaluate` without report, and "output":
/// "file" (its name ends in .tsv, .csv or .jsonl, or "output_format" says which), which is required too. `on_event` is
/// told of the rows that are done (ET_EVENT_ROWS) and may end it; it may be NULL; `user` is handed to it. `*out` is a
/// JSON object with "rows", for `et_text_release`. Errors: BAD_INPUT naming file and line, record or key; CANCELLED;
/// nothing of the output remains. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_file(
    app: *mut et_app,
    options: *const c_char,
    on_event: et_on_event,
    user: *mut c_void,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_file")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes text.
        let options = unsafe { required(options, "options")? };
        let listener = Listener::new(on_event, user);
        let mut tell = |event: &facade::Event| listener.tell(event);
        let mut watch = facade::Watch::new(&mut tell);
        let rows = facade::json::predict_file(&app.app, options, &mut watch)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&rows)) };
        Ok(())
    })
}

/// As `et_app_predict_json`, for a text with its length, of which nothing is left out: a NUL in it is an error, since
/// JSON escapes it. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_app_predict_request(
    app: *const et_app,
    request: et_str,
    out: *mut *mut et_text,
) -> *mut et_error {
    guard(|| {
        check_out(out, "et_app_predict_request")?;
        let app = find(app, "app")?;
        // SAFETY: the caller passes a text with its length.
        let request = unsafe { sized(request, || "request".to_owned())? };
        let answer = app.app.predict_json(request)?;
        // SAFETY: `out` is not NULL.
        unsafe { give(out, et_text::new(&answer)) };
        Ok(())
    })
}

/// What `read` finds in a row; nothing past the end.
fn row<T>(
    predictions: *const et_predictions,
    index: usize,
    read: impl FnOnce(&Row) -> Option<T>,
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
    let class = |all: &et_predictions| all.classes.get(index).map(|class| class.text.as_ptr());
    answer(null(), || peek(predictions, class).unwrap_or(null()))
}

/// The whole answer in a row as the JSON text of an object, with whatever the app says ({"label": ..}, {"answer": ..,
/// "start": ..}, {"text": ..}). NUL-terminated, valid while the predictions live; NULL and 0 past the end. The text is
/// made when it is asked for first. [any-thread] since 0.2
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_answer(
    predictions: *const et_predictions,
    index: usize,
) -> et_str {
    let none = et_str { ptr: null(), len: 0 };
    let json = |row: &Row| {
        let json = row.json();
        Some(et_str { ptr: json.as_ptr(), len: json.count_bytes() })
    };
    answer(none, || row(predictions, index, json).unwrap_or(none))
}

/// The characters of `et_predictions_answer` alone. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_json(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    let json = |row: &Row| Some(row.json().as_ptr());
    answer(null(), || row(predictions, index, json).unwrap_or(null()))
}

/// The label in a row, valid while the predictions live: the most probable class; with several labels all of them,
/// joined by commas, and "" where none of them was given. NULL where the app says no label (numbers, spans, texts:
/// `et_predictions_answer` has what it says), and past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_label(
    predictions: *const et_predictions,
    index: usize,
) -> *const c_char {
    answer(null(), || row(predictions, index, Row::label).unwrap_or(null()))
}

/// The score in a row: the label's probability, that of a span, or the predicted number; NaN where the app says none
/// of these, and past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_score(
    predictions: *const et_predictions,
    index: usize,
) -> f32 {
    let score = |row: &Row| row.answer.score().map(|score| score as f32);
    answer(f32::NAN, || row(predictions, index, score).unwrap_or(f32::NAN))
}

/// Probability of class `class_index` in a row; NaN where the app says none, and past the end. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_probability(
    predictions: *const et_predictions,
    index: usize,
    class_index: usize,
) -> f32 {
    let probability = |all: &et_predictions| {
        let (row, class) = (all.rows.get(index)?, all.classes.get(class_index)?);
        row.answer.probability(&class.name).map(|probability| probability as f32)
    };
    answer(f32::NAN, || peek(predictions, probability).unwrap_or(f32::NAN))
}

/// Gives predictions back. Accepts NULL. [any-thread] since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn et_predictions_release(predictions: *mut et_predictions) {
    answer((), || take_back(predictions));
}
