//! Apps: from records to features, through the head, to one prediction per record; and their state.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use easytransfer::plugin::{
    Call, Column, ComponentRef, DType, LoadedApp, Map, ModelInfo, Params, Record, Row, Tokenizer,
    no_grad,
};
use serde_json::{Value, json};

use crate::defaults;
use crate::inputs::{no_panic, number, tensor};
use crate::report::{Checks, Outcome, failed, skipped};

const TEXTS: [&str; 4] = ["a short text", "x", "another text, of two parts", "the last one"];

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("names the columns of its records", || {
        let columns = new_app(component, "")?.columns()?;
        if columns.is_empty() {
            return failed("there are none");
        }
        for (at, column) in columns.iter().enumerate() {
            if column.role.is_empty() || column.names.is_empty() {
                return failed(format!("column {at} lacks a role or names"));
            }
            if columns[..at].iter().any(|other| other.role == column.role) {
                return failed(format!("two columns have the role {:?}", column.role));
            }
        }
        Ok(())
    });
    checks.check("state given to a new instance is the same state", || {
        let first = learned(component)?;
        let state = first.state()?;
        let second = new_app(component, &state.to_string())?;
        if second.state()? != state {
            return failed(format!("expected {state}, found {}", second.state()?));
        }
        if second.info()? == first.info()? {
            Ok(())
        } else {
            failed("it describes itself otherwise")
        }
    });
    checks.check("a record without its columns is refused", || {
        let app = learned(component)?;
        let folder = Folder::new()?;
        let (tokenizer, mut row) = (folder.tokenizer()?, Row::new()?);
        match app.features(&tokenizer, &Record::new(), &mut row) {
            Ok(()) => failed("it was accepted"),
            result => no_panic(result),
        }
    });
    checks.check("a refused record names a column and what was expected and found", || {
        let app = learned(component)?;
        let folder = Folder::new()?;
        let (tokenizer, mut row) = (folder.tokenizer()?, Row::new()?);
        let Err(error) = app.features(&tokenizer, &Record::new(), &mut row) else {
            return skipped("no record is refused");
        };
        let Some(fault) = error.record_fault() else {
            return failed(format!("the error has no details: {error}"));
        };
        if app.columns()?.iter().any(|column| column.role == fault.role) {
            Ok(())
        } else {
            failed(format!("{:?} is the role of no column", fault.role))
        }
    });
    checks.check("answers every record with one prediction", || predictions(component));
    checks.check("no record has more tokens than it says", || longest(component));
}

fn new_app(component: &ComponentRef, state: &str) -> Outcome<LoadedApp> {
    Ok(LoadedApp::create(component, &defaults(component)?, state)?)
}

/// An app that has seen the records.
fn learned(component: &ComponentRef) -> Outcome<LoadedApp> {
    let mut app = new_app(component, "")?;
    let columns = app.columns()?;
    for at in 0..TEXTS.len() {
        app.observe(&record(&columns, at, true))?;
    }
    app.observed()?;
    Ok(app)
}

fn record(columns: &[Column], at: usize, with_targets: bool) -> Record {
    let wanted =
        columns.iter().filter(|column| if column.target { with_targets } else { column.required });
    wanted
        .map(|column| {
            let value = if column.target { ["yes", "no"][at % 2] } else { TEXTS[at] };
            (column.role.clone(), Value::from(value))
        })
        .collect()
}

fn predictions(component: &ComponentRef) -> Outcome {
    let mut app = learned(component)?;
    let columns = app.columns()?;
    let folder = Folder::new()?;
    let tokenizer = folder.tokenizer()?;
    let mut rows = Vec::new();
    for (at, text) in TEXTS.iter().enumerate() {
        let mut row = Row::new()?;
        app.features(&tokenizer, &record(&columns, at, false), &mut row)?;
        if row.tokens_len() == 0 {
            return failed(format!("{text:?} became no tokens"));
        }
        rows.push(row);
    }
    let params = Params::new(3)?;
    app.build(&params.root()?, &model(&tokenizer))?;
    let width = WIDTH;
    // Another order and another number of rows, so that a prediction that is not of its row is noticed by its count.
    for picked in [vec![&rows[0], &rows[1], &rows[2], &rows[3]], vec![&rows[2]]] {
        let batch = Map::from_rows(&picked)?;
        let tokens = batch.get("ids")?.len();
        let mut outputs = Map::new()?;
        for (name, shape) in [("last", [tokens, width]), ("pooled", [picked.len(), width])] {
            let values: Vec<f64> = (0..shape[0] * width).map(number).collect();
            outputs.put(name, &tensor(&values, &shape, DType::F32)?)?;
        }
        let call = Call::inference(app.info()?.want);
        no_grad(|| app.forward(&call, &batch, &mut outputs))?;
        let answers = app.decode(&batch, &outputs)?;
        if answers.len() != picked.len() {
            return failed(format!("expected {}, found {}", picked.len(), answers.len()));
        }
        if answers.iter().any(Record::is_empty) {
            return failed("a prediction is empty");
        }
    }
    Ok(())
}

/// Width of the model that apps are built on.
const WIDTH: usize = 8;

fn model(tokenizer: &Tokenizer) -> ModelInfo {
    ModelInfo {
        hidden_size: WIDTH,
        layers: 1,
        vocab_size: tokenizer.vocab_len(),
        max_positions: 64,
        pooled: true,
        ..ModelInfo::default()
    }
}

fn longest(component: &ComponentRef) -> Outcome {
    let mut app = learned(component)?;
    let folder = Folder::new()?;
    let (tokenizer, params) = (folder.tokenizer()?, Params::new(3)?);
    app.build(&params.root()?, &model(&tokenizer))?;
    let longest = app.info()?.longest;
    let mut long = record(&app.columns()?, 0, false);
    for value in long.values_mut() {
        *value = Value::from("word ".repeat(1000));
    }
    let mut row = Row::new()?;
    app.features(&tokenizer, &long, &mut row)?;
    if longest > 0 && row.tokens_len() > longest {
        return failed(format!(
            "expected at most {longest} (`longest` of its description), found {}",
            row.tokens_len()
        ));
    }
    Ok(())
}

/// A folder with a tokenizer of letters, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("easytransfer-check-{}-{count}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        let mut words =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ","].map(str::to_owned).to_vec();
        for letter in 'a'..='z' {
            words.extend([letter.to_string(), format!("##{letter}")]);
        }
        let write = || {
            fs::create_dir_all(&folder.0)?;
            fs::write(folder.0.join("vocab.txt"), words.join("\n") + "\n")?;
            let config = json!({"do_lower_case": true, "tokenizer_class": "BertTokenizer"});
            fs::write(folder.0.join("tokenizer_config.json"), config.to_string())
        };
        match write() {
            Ok(()) => Ok(folder),
            Err(error) => failed(format!("write {}: {error}", folder.0.display())),
        }
    }

    fn tokenizer(&self) -> Outcome<Tokenizer> {
        Ok(Tokenizer::load(&self.0.to_string_lossy())?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
