//! Records that apps are tried on: which values their columns take is found by trying.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use easytransfer::plugin::{self, Asked, Column, ComponentRef, LoadedApp, Record, Tokenizer};
use serde_json::{Value, json};

use super::net::FakeNet;
use crate::inputs::{is_fault, no_panic};
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema::defaults;

/// Texts of the records.
pub const TEXTS: [&str; 6] =
    ["a short text", "x", "another text, of two parts", "the last one", "short again", "y z"];

/// Kinds of values that an input column may take.
const INPUTS: usize = 4;
/// Kinds of values that a target may take.
const TARGETS: usize = 6;

/// Which kind of value each column gets.
#[derive(Clone)]
pub(crate) struct Recipe {
    /// Column, and number of its kind of value; columns that are left out are absent.
    columns: Vec<(Column, usize)>,
}

/// Value of an input column: a text, a list of words, a number, a list of numbers.
fn input(kind: usize, at: usize) -> Value {
    let text = TEXTS[at % TEXTS.len()];
    match kind {
        0 => json!(text),
        1 => json!(text.split(' ').collect::<Vec<_>>()),
        2 => json!(0.5 * at as f64 - 1.0),
        _ => json!([0.5 * at as f64, -1.0, 2.0]),
    }
}

/// Value of a target: a class, a number, answers in the text, a class for each word, several classes, a list of
/// numbers.
fn target(kind: usize, at: usize) -> Value {
    let text = TEXTS[at % TEXTS.len()];
    let words = text.split(' ').count();
    match kind {
        0 => Value::from(["yes", "no"][at % 2]),
        1 => Value::from(["0.5", "-2"][at % 2]),
        2 => json!({"text": [&text[..1]], "answer_start": [0]}),
        3 => json!((0..words).map(|word| ["O", "B-x"][(at + word) % 2]).collect::<Vec<_>>()),
        4 => {
            if at.is_multiple_of(2) {
                json!(["yes"])
            } else {
                json!(["no", "yes"])
            }
        }
        _ => json!([0.5, at as f64]),
    }
}

impl Recipe {
    /// Record `at`, with its targets or without.
    pub fn record(&self, at: usize, targets: bool) -> Record {
        let wanted = self.columns.iter().filter(|(column, _)| targets || !column.target);
        wanted
            .map(|(column, kind)| {
                let value = if column.target { target(*kind, at) } else { input(*kind, at) };
                (column.role.clone(), value)
            })
            .collect()
    }

    /// Roles of the columns that records have.
    pub fn roles(&self) -> Vec<(String, bool)> {
        self.columns.iter().map(|(column, _)| (column.role.clone(), column.target)).collect()
    }
}

/// An app that has seen records, and how they are made: with the columns that must be there and then with all of
/// them. Where the app says which role it refuses, the next kind of value is tried for that role, else for all. Skips
/// where none is taken.
pub fn learned(component: &ComponentRef) -> Outcome<Learned> {
    learned_with(component, &defaults(component)?)
}

/// [`learned`] with options of one's own.
pub fn learned_with(component: &ComponentRef, options: &str) -> Outcome<Learned> {
    let columns = LoadedApp::create(component, options, "")?.columns()?;
    let mut refusal = String::new();
    for all in [false, true] {
        let wanted = columns.iter().filter(|column| all || column.required || column.target);
        let wanted: Vec<Column> = wanted.cloned().collect();
        for inputs in 0..INPUTS {
            for targets in 0..TARGETS {
                let kind = |column: &Column| if column.target { targets } else { inputs };
                let columns = wanted.iter().map(|c| (c.clone(), kind(c))).collect();
                match adapted(component, options, Recipe { columns })? {
                    Ok(found) => return Ok(found),
                    Err(text) => refusal = text,
                }
            }
        }
    }
    skipped(format!("its records are others: {refusal}"))
}

/// An app, its records, and the model that it was built on; skips where it wants another.
pub type Learned = (LoadedApp, Recipe, Outcome<FakeNet>);

type Found = Result<Learned, String>;

/// Tries a recipe, and changes the kinds of single columns as long as the app says which one it refuses.
fn adapted(component: &ComponentRef, options: &str, mut recipe: Recipe) -> Outcome<Found> {
    let mut refusal = String::new();
    for _ in 0..INPUTS + TARGETS {
        let error = match seen(component, options, &recipe)? {
            Ok((app, net)) => return Ok(Ok((app, recipe, net))),
            Err(error) => error,
        };
        refusal = error.to_string();
        if is_fault(&refusal) {
            return failed(refusal);
        }
        let fault = error.record_fault().map(|fault| fault.role.clone());
        no_panic::<()>(Err(error))?;
        let refused =
            recipe.columns.iter_mut().find(|(column, _)| fault.as_ref() == Some(&column.role));
        let Some((column, kind)) = refused else { break };
        *kind = (*kind + 1) % if column.target { TARGETS } else { INPUTS };
    }
    Ok(Err(refusal))
}

/// An app that has seen the records of a recipe, and makes features of the first.
fn seen(
    component: &ComponentRef,
    options: &str,
    recipe: &Recipe,
) -> Outcome<plugin::Result<(LoadedApp, Outcome<FakeNet>)>> {
    let tokenizer = tokenizer()?;
    let mut app = LoadedApp::create(component, options, "")?;
    let mut see = || {
        for at in 0..TEXTS.len() {
            app.observe(&recipe.record(at, true))?;
        }
        app.observed()
    };
    if let Err(error) = see() {
        return Ok(Err(error));
    }
    let net = FakeNet::new(&mut app, tokenizer);
    match app.features(&mut Asked::new(0), tokenizer, &recipe.record(0, true)) {
        Ok(_) => Ok(Ok((app, net))),
        // What the host refuses of rows is for a check to tell.
        Err(error) if is_of_rows(&error.to_string()) => Ok(Ok((app, net))),
        Err(error) => Ok(Err(error)),
    }
}

fn is_of_rows(text: &str) -> bool {
    ["expected at least one row", "is the host's to fill"].iter().any(|part| text.contains(part))
}

/// A tokenizer of letters, which lives as long as the process.
pub fn tokenizer() -> plugin::Result<&'static Tokenizer> {
    static TOKENIZER: OnceLock<Result<Tokenizer, String>> = OnceLock::new();
    let made = TOKENIZER.get_or_init(|| match Folder::new() {
        Ok(folder) => folder.tokenizer().map_err(|error| error.to_string()),
        Err(Stop::Failed(text) | Stop::Skipped(text)) => Err(text),
    });
    made.as_ref().map_err(|text| plugin::Error::invalid(text.clone()))
}

/// A folder with a tokenizer, removed afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        let name = format!("easytransfer-check-{}", std::process::id());
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

    fn tokenizer(&self) -> plugin::Result<Tokenizer> {
        Tokenizer::load(&self.0.to_string_lossy())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
