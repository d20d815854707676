//! Apps: from records to features, through the head, to one prediction per record; and their state.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use easytransfer::plugin::{
    self, Asked, Call, Column, ComponentRef, DType, Init, LoadedApp, Map, ModelInfo, NetHost,
    Params, Record, Row, Task, Tensor, Tokenizer, abi, no_grad,
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
        let tokenizer = folder.tokenizer()?;
        match app.features(&mut Asked::new(0), &tokenizer, &Record::new()) {
            Ok(_) => failed("it was accepted"),
            Err(error) => no_panic::<()>(Err(error)),
        }
    });
    checks.check("a refused record names a column and what was expected and found", || {
        let app = learned(component)?;
        let folder = Folder::new()?;
        let tokenizer = folder.tokenizer()?;
        let Err(error) = app.features(&mut Asked::new(0), &tokenizer, &Record::new()) else {
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
    checks.check("joins the rows of a record into one prediction", || joined(component));
    checks.check("no record has more tokens than it says", || longest(component));
}

fn new_app(component: &ComponentRef, state: &str) -> Outcome<LoadedApp> {
    Ok(LoadedApp::create(component, &defaults(component)?, state)?)
}

/// Targets that apps of the tree's kinds take: classes, numbers, and answers in the text.
fn target(form: usize, at: usize) -> Value {
    match form {
        0 => Value::from(["yes", "no"][at % 2]),
        1 => Value::from(["0.5", "-2"][at % 2]),
        _ => json!({"text": [&TEXTS[at][..1]], "answer_start": [0]}),
    }
}

/// An app that has seen records, of the first form that it takes: with the columns that must be there and with all of
/// them, with targets of each kind. Skips where none is taken.
fn learned(component: &ComponentRef) -> Outcome<LoadedApp> {
    let mut refusal = String::new();
    for (all, form) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)] {
        let mut app = new_app(component, "")?;
        let columns = app.columns()?;
        let mut records = (0..TEXTS.len()).map(|at| record(&columns, at, all, Some(form)));
        let seen =
            records.try_for_each(|record| app.observe(&record)).and_then(|()| app.observed());
        match seen {
            Ok(()) => return Ok(app),
            Err(error) => {
                no_panic::<()>(Err(error.clone())).map(|()| refusal = error.to_string())?
            }
        }
    }
    skipped(format!("its records are others: {refusal}"))
}

/// A record with a text in every column that must be there, or in `all`, and with targets of a form.
fn record(columns: &[Column], at: usize, all: bool, form: Option<usize>) -> Record {
    let wanted = columns
        .iter()
        .filter(|column| if column.target { form.is_some() } else { all || column.required });
    wanted
        .map(|column| {
            let target = form.filter(|_| column.target).map(|form| target(form, at));
            (column.role.clone(), target.unwrap_or_else(|| Value::from(TEXTS[at])))
        })
        .collect()
}

fn predictions(component: &ComponentRef) -> Outcome {
    let mut app = learned(component)?;
    let columns = app.columns()?;
    let folder = Folder::new()?;
    let tokenizer = folder.tokenizer()?;
    let mut records = Vec::new();
    for (at, text) in TEXTS.iter().enumerate() {
        let rows = app.features(
            &mut Asked::new(at as u64),
            &tokenizer,
            &record(&columns, at, false, None),
        )?;
        if rows.iter().any(|row| row.tokens_len() == 0) {
            return failed(format!("{text:?} became a row without tokens"));
        }
        records.push(rows);
    }
    let mut net = FakeNet::new(&mut app, &tokenizer)?;
    // Another order and another number of rows, so that a prediction that is not of its row is noticed by its count.
    for picked in [vec![0, 1, 2, 3], vec![2]] {
        let rows: Vec<&Row> = picked.iter().flat_map(|&at| &records[at]).collect();
        let parts = net.parts(&app, &rows)?;
        if parts.len() != rows.len() {
            return failed(format!("expected {}, found {}", rows.len(), parts.len()));
        }
        if parts.iter().any(Record::is_empty) {
            return failed("a prediction is empty");
        }
    }
    Ok(())
}

/// A record whose texts are longer than any limit, so that it may become several rows.
fn long_record(app: &LoadedApp) -> Outcome<Record> {
    let mut long = record(&app.columns()?, 0, false, None);
    for value in long.values_mut() {
        *value = Value::from("word ".repeat(1000));
    }
    Ok(long)
}

fn joined(component: &ComponentRef) -> Outcome {
    let mut app = learned(component)?;
    let folder = Folder::new()?;
    let tokenizer = folder.tokenizer()?;
    let mut net = FakeNet::new(&mut app, &tokenizer)?;
    let long = long_record(&app)?;
    let rows = app.features(&mut Asked::new(0), &tokenizer, &long)?;
    if rows.len() == 1 && !app.info()?.finish {
        return Ok(());
    }
    let parts = net.parts(&app, &rows.iter().collect::<Vec<_>>())?;
    if app.finish(&long, parts)?.is_empty() { failed("the prediction is empty") } else { Ok(()) }
}

/// A model below the app that answers with fixed numbers.
struct FakeNet {
    params: Params,
}

impl FakeNet {
    /// Builds the app on it.
    fn new(app: &mut LoadedApp, tokenizer: &Tokenizer) -> Outcome<Self> {
        let params = Params::new(3)?;
        let root = params.root()?;
        // For heads that are tied to the words.
        let words = root.child("embeddings")?.child("word_embeddings")?;
        words.param("weight", &[tokenizer.vocab_len(), WIDTH], Init::Normal(0.0, 0.1))?;
        if let Err(error) = app.build(&root, &model(tokenizer)) {
            let refusal = error.to_string();
            no_panic::<()>(Err(error))?;
            return skipped(format!("it wants another model: {refusal}"));
        }
        Ok(Self { params })
    }

    /// What the app decodes from rows.
    fn parts(&mut self, app: &LoadedApp, rows: &[&Row]) -> Outcome<Vec<Record>> {
        let batch = Map::from_rows(rows)?;
        let mut outputs = Map::new()?;
        let call = Call::inference(app.info()?.want);
        no_grad(|| app.forward(&call, self, &batch, &mut outputs))?;
        Ok(app.decode(&batch, &outputs)?)
    }
}

impl NetHost for FakeNet {
    fn run(
        &mut self,
        _: &str,
        call: &Call<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> plugin::Result<()> {
        let (tokens, rows) = (batch.get("ids")?.len(), batch.get("starts")?.len() - 1);
        let mut wanted = vec![("last".to_owned(), tokens), ("pooled".to_owned(), rows)];
        if call.wants(abi::ET_WANT_HIDDEN_STATES) {
            wanted.extend([0, 1].map(|layer| (format!("hidden_states/{layer}"), tokens)));
        }
        for (name, rows) in wanted {
            let values: Vec<f64> = (0..rows * WIDTH).map(number).collect();
            let value = tensor(&values, &[rows, WIDTH], DType::F32)?;
            outputs.put(&name, &value)?;
        }
        Ok(())
    }

    fn param(&mut self, name: &str) -> plugin::Result<Tensor> {
        self.params.find(name)?.tensor()
    }

    /// One token for each run that is asked for.
    fn generate(
        &mut self,
        _: &str,
        batch: &Map,
        options: &str,
        outputs: &mut Map,
    ) -> plugin::Result<()> {
        let options: Value = serde_json::from_str(options)?;
        let space = if batch.has("decoder/ids") { "decoder/" } else { "" };
        let begun = batch.get(&format!("{space}starts"))?.len() - 1;
        let runs = begun * options["return"].as_u64().unwrap_or(1) as usize;
        let starts: Vec<i64> = (0..=runs as i64).collect();
        outputs.put("generated/ids", &Tensor::from_slice(&vec![1i64; runs], &[runs])?)?;
        outputs.put("generated/starts", &Tensor::from_slice(&starts, &[runs + 1])?)?;
        outputs.put("generated/scores", &Tensor::from_slice(&vec![0f32; runs], &[runs])?)
    }
}

/// Width of the model that apps are built on.
const WIDTH: usize = 8;

fn bert() -> Task {
    Task { form: "bert".to_owned(), ..Task::default() }
}

fn model(tokenizer: &Tokenizer) -> ModelInfo {
    ModelInfo {
        hidden_size: WIDTH,
        layers: 1,
        vocab_size: tokenizer.vocab_len(),
        max_positions: 512,
        embedding_size: WIDTH,
        pooled: true,
        tasks: ["masked-lm", "sequence-classification"]
            .map(|task| (task.to_owned(), bert()))
            .into(),
        decoder_start: Some(0),
        ..ModelInfo::default()
    }
}

fn longest(component: &ComponentRef) -> Outcome {
    let mut app = learned(component)?;
    let folder = Folder::new()?;
    let tokenizer = folder.tokenizer()?;
    FakeNet::new(&mut app, &tokenizer)?;
    let longest = app.info()?.longest;
    let rows = app.features(&mut Asked::new(0), &tokenizer, &long_record(&app)?)?;
    let found: usize = rows.iter().map(|row| row.tokens_len()).sum();
    if longest > 0 && found > longest {
        return failed(format!(
            "expected at most {longest} (`longest` of its description), found {found}"
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
