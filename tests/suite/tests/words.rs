//! Models of words: neither tokenizer files nor a config.json, a vocabulary that the app learns, training from
//! nothing.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};

use easytransfer::plugin::{
    Activation, App, AppInfo, Call, Choice, Column, Context, Embedding, Error, Init, Linear,
    LinearConfig, Map, Model, ModelInfo, Pool, Record, Result, Rows, Scope, Tokenizer, Vocabulary,
    WordCounts, nn,
};
use easytransfer::{DataSource, Runtime, Start, TrainConfig, TrainJob};
use easytransfer_tests::hosts::Scratch;
use easytransfer_tests::linked;
use serde::Deserialize;
use serde_json::{Value, json};

/// The configuration of [`Bag`].
#[derive(Deserialize)]
pub struct BagConfig {
    vocab_size: usize,
    hidden_size: usize,
}

/// Vectors of words, and their mean as the vector of a text.
struct Bag {
    words: Embedding,
    config: BagConfig,
}

impl Model for Bag {
    const NAME: &'static CStr = c"bag-of-words";
    const SCHEMA: &'static CStr = cr#"{"type":"object","required":["vocab_size"],"properties":{
"vocab_size":{"type":"integer","minimum":1},"hidden_size":{"type":"integer","minimum":1,"default":8}}}"#;
    type Config = BagConfig;

    fn new(config: BagConfig, scope: &Scope) -> Result<Self> {
        let init = Init::Normal(0.0, 0.5);
        let shape = [config.vocab_size, config.hidden_size];
        let words = Embedding::new(&scope.child("words")?, shape[0], shape[1], init)?;
        Ok(Self { words, config })
    }

    fn info(&self) -> ModelInfo {
        ModelInfo {
            hidden_size: self.config.hidden_size,
            vocab_size: self.config.vocab_size,
            max_positions: 64,
            pooled: true,
            ..ModelInfo::default()
        }
    }

    fn forward(&mut self, _: &Call<'_>, batch: &Map, outputs: &mut Map) -> Result<()> {
        let last = self.words.forward(&batch.get("ids")?)?;
        outputs.put("pooled", &nn::pool(&last, &batch.get("starts")?, Pool::Mean)?)?;
        outputs.put("last", &last)
    }
}

/// Options of [`Sort`].
#[derive(Deserialize)]
pub struct SortOptions {
    learn: bool,
}

/// A classifier of texts that learns its words.
struct Sort {
    learn: bool,
    words: WordCounts,
    vocabulary: Option<Vocabulary>,
    labels: Vec<String>,
    head: Option<Linear>,
}

impl App for Sort {
    const NAME: &'static CStr = c"sort-by-words";
    const SCHEMA: &'static CStr =
        cr#"{"type":"object","properties":{"learn":{"type":"boolean","default":true}}}"#;
    type Options = SortOptions;

    fn new(options: SortOptions, state: Option<Value>) -> Result<Self> {
        let labels = state
            .map_or(Ok(Vec::new()), |state| serde_json::from_value(state["labels"].clone()))?;
        let words = WordCounts::new(true)?;
        Ok(Self { learn: options.learn, words, vocabulary: None, labels, head: None })
    }

    fn columns(&self) -> Vec<Column> {
        let column = |role: &str, target| Column {
            role: role.to_owned(),
            names: vec![role.to_owned()],
            required: true,
            target,
        };
        vec![column("text", false), column("label", true)]
    }

    fn observe(&mut self, record: &Record) -> Result<()> {
        let text = |role: &str| record[role].as_str().ok_or_else(|| Error::bad_input(role));
        self.words.add(text("text")?)?;
        if !self.labels.iter().any(|known| Some(known.as_str()) == record["label"].as_str()) {
            self.labels.push(text("label")?.to_owned());
        }
        Ok(())
    }

    fn observed(&mut self) -> Result<()> {
        self.vocabulary = self.learn.then(|| self.words.vocabulary(1, 1000));
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        Ok(json!({ "labels": self.labels }))
    }

    fn info(&self) -> AppInfo {
        AppInfo {
            loss: Some(Choice::new("cross-entropy")),
            labels: self.labels.clone(),
            want: easytransfer::plugin::abi::ET_WANT_POOLED,
            vocabulary: self.vocabulary.clone(),
            ..AppInfo::default()
        }
    }

    fn features(
        &self,
        _: &mut Context<'_>,
        tokenizer: &Tokenizer,
        record: &Record,
        rows: &mut Rows,
    ) -> Result<()> {
        let text = record["text"].as_str().ok_or_else(|| Error::bad_input("text"))?;
        let encoding = tokenizer.encode(text, None, 64)?;
        let mut row = rows.add()?;
        row.put_tokens("ids", encoding.ids())?;
        let Some(label) = record.get("label") else { return Ok(()) };
        let class = self.labels.iter().position(|known| Some(known.as_str()) == label.as_str());
        let class = class.ok_or_else(|| Error::bad_input("label: expected a known one"))?;
        row.put_i64("labels", &[class as i64])
    }

    fn build(&mut self, scope: &Scope, model: &ModelInfo) -> Result<()> {
        let head = LinearConfig::new(model.hidden_size, self.labels.len());
        self.head = Some(head.init(&scope.child("classifier")?)?);
        Ok(())
    }

    fn head(&self, _: &Call<'_>, _: &Map, outputs: &mut Map) -> Result<()> {
        let head = self.head.as_ref().ok_or_else(|| Error::bad_input("forward before build"))?;
        let logits = head.forward(&outputs.get("pooled")?, Activation::None)?;
        outputs.put("logits", &logits)
    }

    fn decode(&self, _: &Map, outputs: &Map) -> Result<Vec<Record>> {
        let scores = nn::softmax(&outputs.get("logits")?)?.to_vec::<f32>()?;
        let answer = |row: &[f32]| {
            let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0);
            let label = &self.labels[best];
            let answer =
                json!({"label": label, "score": row[best], "text": format!("about {label}")});
            answer.as_object().cloned().unwrap_or_default()
        };
        Ok(scores.chunks_exact(self.labels.len()).map(answer).collect())
    }
}

easytransfer::plugin::export! {
    id: "app-words",
    models: [Bag],
    apps: [Sort],
}

fn runtime() -> Runtime {
    let runtime = linked::runtime();
    runtime.register_plugin(PluginRecord::get()).unwrap();
    runtime
}

/// Lines of two classes that differ by a word each.
fn data(scratch: &Scratch) -> PathBuf {
    let path = scratch.path().join("train.tsv");
    let mut table = "text\tlabel\n".to_owned();
    for index in 0..60 {
        let (word, label) = [("Straße!", "ground"), ("ÖL", "fluid")][index % 2];
        table.push_str(&format!("the {word} number {}\t{label}\n", index % 7));
    }
    fs::write(&path, table).unwrap();
    path
}

fn job(scratch: &Scratch, app: &str, config: Value) -> TrainJob {
    TrainJob::new("", self::data(scratch), scratch.path().join("bundle"))
        .with_app(app)
        .with_config(TrainConfig::from_value(config, "test").unwrap())
}

fn refusal(scratch: &Scratch, app: &str, encoder: &Path, config: Value) -> String {
    let mut job = job(scratch, app, config);
    job.encoder = encoder.to_path_buf();
    let error = runtime().train(job).unwrap_err();
    assert!(error.is_user_error(), "{error}");
    error.to_string()
}

#[test]
fn words_are_learned_from_nothing_saved_and_read_back() {
    let scratch = Scratch::new("words");
    let runtime = runtime();
    let config = json!({
        "encoder": {"model_type": "bag-of-words", "hidden_size": 6}, "lr": 0.05, "epochs": 20, "seed": 5,
    });
    runtime.train(job(&scratch, "sort-by-words", config)).unwrap();
    let bundle = scratch.path().join("bundle");
    let json = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(bundle.join(name)).unwrap()).unwrap()
    };
    // "the" and "number" are the most frequent; then "!", "straße" and "öl" with 30 each, and seven digits.
    let tokenizer = json("tokenizer.json");
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    assert_eq!(vocab.len(), 2 + 12);
    for (token, id) in
        [("[PAD]", 0), ("[UNK]", 1), ("number", 2), ("the", 3), ("!", 4), ("straße", 5), ("öl", 6)]
    {
        assert_eq!(vocab[token], id, "{token}");
    }
    let config = json("config.json");
    assert_eq!((&config["vocab_size"], &config["hidden_size"]), (&json!(14), &json!(6)));
    assert_eq!(config["model_type"], "bag-of-words");

    let app = runtime.app(&bundle).unwrap();
    // Case does not count, and white space does not either.
    let texts = ["The STRAẞE\t!", "öl", "ÖL", " \u{3000}Öl\n"];
    let answers = app.predict(&texts).unwrap();
    assert_eq!(answers[0].label().as_deref(), Some("ground"));
    assert!(answers[1..].iter().all(|answer| answer.label().as_deref() == Some("fluid")));
    assert_eq!(answers[1], answers[2]);
    assert_eq!(answers[1], answers[3]);
    // Words that training has not seen are the unknown word, whatever they are.
    let unseen = app.predict(&["[UNK] [UNK]", "quark 東京", "zwölf μ"]).unwrap();
    assert_eq!(unseen[0], unseen[1]);
    assert_eq!(unseen[0], unseen[2]);
    assert_ne!(unseen[0], answers[1]);
    let ids = app.network().tokenizer.encode("The quark ÖL", None, 0).unwrap();
    assert_eq!(ids.ids(), [3, 1, 6]);
    // What the app calls as a column is called does not replace it.
    let (file, output) = (DataSource::from(data(&scratch)), "out.tsv");
    let output = scratch.path().join(output);
    assert_eq!(app.predict_file(&file, &output, None).unwrap(), 60);
    let lines = fs::read_to_string(output).unwrap();
    let mut lines = lines.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["text", "label", "score", "predicted_text"]);
    let first = lines.next().unwrap();
    assert_eq!([first[0], first[1], first[3]], ["the Straße! number 0", "ground", "about ground"]);
    // A copy answers with the same numbers.
    assert_eq!(runtime.app(&bundle).unwrap().predict(&texts).unwrap(), answers);
}

/// The same words come out of the counts and of the tokenizer, whatever the script.
#[test]
fn words_that_are_counted_are_those_of_the_tokenizer() {
    let _runtime = runtime();
    let texts = [
        "Don't stop: e.g. 3.5 km/h, naïve_café!?",
        "ΟΔΟΣ İstanbul ǅ Straße ẞ",
        "हिन्दी में लिखा, বাংলা; ไทย\u{200d}x",
        "e\u{301}te\u{301} 東京タワー ２３ ½ ² Ⅷ 👩‍👩‍👧",
        "zero\u{0}byte\ttab\u{a0}nbsp\u{2003}em",
    ];
    for lower in [false, true] {
        let mut counts = WordCounts::new(lower).unwrap();
        for text in texts {
            counts.add(text).unwrap();
        }
        let vocabulary = counts.vocabulary(1, usize::MAX);
        assert!(vocabulary.tokens.len() > 30, "{vocabulary:?}");
        let tokenizer = vocabulary.to_tokenizer().unwrap();
        for text in texts {
            let encoding = tokenizer.encode(text, None, 0).unwrap();
            assert!(!encoding.ids().contains(&1), "{text}: an unknown word: {:?}", encoding.ids());
        }
        // All of them are needed.
        let mut seen: Vec<i64> = texts
            .iter()
            .flat_map(|text| tokenizer.encode(text, None, 0).unwrap().ids().to_vec())
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), vocabulary.tokens.len());
    }
    let twice = Vocabulary { tokens: vec!["a".into(), "a".into()], ..Vocabulary::default() };
    let error = twice.to_tokenizer().err().unwrap().to_string();
    assert!(error.contains("\"a\""), "{error}");
    // Special tokens may stand among the others, where their place is.
    let own = Vocabulary {
        tokens: ["a", "<unk>", "<pad>"].map(str::to_owned).to_vec(),
        unknown: "<unk>".into(),
        padding: "<pad>".into(),
        lower: false,
    };
    assert_eq!(own.to_tokenizer().unwrap().encode("a b A", None, 0).unwrap().ids(), [0, 1, 1]);
    // A special token that is a word is none within another word.
    let plain = Vocabulary {
        tokens: ["w0", "w1", "w17"].map(str::to_owned).to_vec(),
        unknown: "w1".into(),
        padding: "w0".into(),
        lower: false,
    };
    let tokenizer = plain.to_tokenizer().unwrap();
    assert_eq!(tokenizer.encode("w17 w1 w0x", None, 0).unwrap().ids(), [2, 1, 1]);
}

#[test]
fn what_is_missing_is_said() {
    let scratch = Scratch::new("words-refused");
    let (none, empty) = (Path::new(""), scratch.path().join("empty"));
    fs::create_dir_all(&empty).unwrap();
    let bag = || json!({"encoder": {"model_type": "bag-of-words"}});
    // Neither a model nor its name.
    let error = refusal(&scratch, "sort-by-words", none, json!({}));
    assert!(error.contains("encoder.model_type") && error.contains("`encoder=DIR`"), "{error}");
    let error = refusal(&scratch, "sort-by-words", &empty, json!({}));
    assert!(
        error.contains("without config.json") && error.contains("encoder.model_type"),
        "{error}"
    );
    // Neither a tokenizer nor words.
    let wordless = json!({"encoder": {"model_type": "bag-of-words"}, "app": {"learn": false}});
    let error = refusal(&scratch, "sort-by-words", none, wordless.clone());
    assert!(error.contains("app sort-by-words learns no vocabulary"), "{error}");
    let error = refusal(&scratch, "sort-by-words", &empty, wordless);
    assert!(error.contains("app sort-by-words learns no vocabulary"), "{error}");
    assert!(error.contains("tokenizer.json"), "{error}");
    // An app of another kind, and an option that the model does not have.
    let error = refusal(&scratch, "masked-lm", none, bag());
    assert!(error.contains("app masked-lm learns no vocabulary"), "{error}");
    let misspelt = json!({"encoder": {"model_type": "bag-of-words", "hidden": 4}});
    let error = refusal(&scratch, "sort-by-words", none, misspelt);
    assert!(error.contains("encoder.hidden") && error.contains("hidden_size"), "{error}");
    let unknown = json!({"encoder": {"model_type": "bag-of-word"}});
    let error = refusal(&scratch, "sort-by-words", none, unknown);
    assert!(error.contains("bag-of-words"), "{error}");
    // A directory that says something else.
    fs::write(empty.join("config.json"), "{\"model_type\": \"bert\"}").unwrap();
    let error = refusal(&scratch, "sort-by-words", &empty, bag());
    assert!(error.contains("\"bert\"") && error.contains("bag-of-words"), "{error}");
}

/// A config.json without tokenizer files beside it: the words fill in the size that it does not say.
#[test]
fn config_json_without_a_tokenizer_takes_the_words_of_the_app() {
    let scratch = Scratch::new("words-config");
    let encoder = scratch.path().join("encoder");
    fs::create_dir_all(&encoder).unwrap();
    fs::write(encoder.join("config.json"), r#"{"model_type": "bag-of-words", "hidden_size": 4}"#)
        .unwrap();
    let mut job = job(&scratch, "sort-by-words", json!({"max_steps": 2}));
    job.encoder = encoder;
    job.start = Start::Scratch;
    let runtime = runtime();
    runtime.train(job).unwrap();
    let app = runtime.app(&scratch.path().join("bundle")).unwrap();
    assert_eq!(app.network().config["vocab_size"], 14);
    assert_eq!(app.predict(&["the ÖL"]).unwrap().len(), 1);
}
