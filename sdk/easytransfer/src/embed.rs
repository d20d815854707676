//! Text vectors from an encoder.

use std::path::Path;
use std::sync::Arc;

use easytransfer_core::inference::{LayerPrecision, PredictionScope};
use easytransfer_plugin::Record;
use easytransfer_train::data::dataset::{DataOptions, DatasetReader};
use easytransfer_train::data::windows::{self, Windows};
use easytransfer_train::files::atomic::AtomicFile;
use easytransfer_train::files::npy::NpyWriter;
use easytransfer_train::files::output::{OutputFormat, OutputPlace};
use easytransfer_train::model::bundle;
use easytransfer_train::model::components::Components;
use easytransfer_train::model::network::{AppStage, Network, Start};
use easytransfer_train::model::weights;
use easytransfer_train::run::evaluate;
use easytransfer_train::run::events::Watch;
use easytransfer_train::{Error, Result};
use serde_json::{Value, json};

use crate::app::{BATCH_TOKENS, Count};
use crate::inputs::Inputs;
use crate::lanes::Lanes;
use crate::sentence::Recipe;
use crate::shared;
use crate::{DataSource, Runtime};

/// How vectors are made. What is not set comes from the directory's sentence-transformers files, then from the app's
/// defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedOptions {
    /// "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken" or "pooled".
    pub pooling: Option<String>,
    /// Euclidean length 1.
    pub normalize: Option<bool>,
    /// Most tokens of a text.
    pub max_length: Option<u64>,
    /// What precedes every text.
    pub prompt: Option<String>,
    /// Name of the directory's prompt that precedes every text, where `prompt` is not set.
    pub prompt_name: Option<String>,
    /// What the encoder's linear layers compute in.
    pub precision: LayerPrecision,
}

/// An encoder that turns texts into vectors. Threads may ask it at the same time: each vector is the one that it would
/// be alone, to the byte. Cloning is cheap; clones, and embedders that are loaded from the same unchanged files with the
/// same options but for the precision, share one set of weights.
#[derive(Clone)]
pub struct Embedder {
    lanes: Arc<Lanes>,
    width: usize,
    precision: LayerPrecision,
    inputs: Inputs,
}

impl EmbedOptions {
    /// What the directory's files say, but for what is set here.
    fn complete(&self, directory: &Path) -> Result<Recipe> {
        let mut recipe = Recipe::read(directory)?;
        if let Some(pooling) = &self.pooling {
            recipe.set_pooling(pooling);
        }
        if let Some(normalize) = self.normalize {
            recipe.set_normalize(normalize);
        }
        if let Some(length) = self.max_length {
            recipe.options.insert("max_length".to_owned(), json!(length));
        }
        let prompt = recipe.prompt(self.prompt.as_deref(), self.prompt_name.as_deref())?;
        recipe.options.insert("prompt".to_owned(), json!(prompt));
        Ok(recipe)
    }
}

impl Embedder {
    pub(crate) fn load(
        runtime: &Runtime,
        encoder: &Path,
        options: EmbedOptions,
    ) -> Result<Embedder> {
        options.validate("")?;
        let components: Arc<dyn Components> = runtime.shared();
        let precision = options.precision;
        let recipe = options.complete(encoder)?;
        let app_options = Value::Object(recipe.options.clone());
        let made = format!("text-embed {app_options}");
        let lanes = shared::load(&components, encoder, &made, || {
            let stage = AppStage::new(&*components, "text-embed", app_options, None)?;
            let (from, none) = (&recipe.encoder, serde_json::Map::new());
            let network = Network::new(&*components, stage, from, &none, Start::Encoder, 0)?;
            for (folder, scope) in &recipe.weights {
                weights::load_scope(folder, &network.params, scope)?;
            }
            bundle::check_files(&network, encoder)?;
            Ok(network)
        })?;
        let width = recipe.width(lanes.first().model.info().hidden_size);
        Ok(Embedder { lanes, width, precision, inputs: Inputs::of(encoder) })
    }

    /// Number of values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What loading the encoder said that one may not expect, as the log has it too; usually nothing.
    pub fn warnings(&self) -> &[String] {
        &self.lanes.first().load_report.warnings
    }

    /// The network: model, head, parameters and tokenizer. Clones and other embedders of the encoder share it, so a
    /// parameter that is changed here is changed for them too; what is loaded from now on reads the files again.
    pub fn network(&self) -> &Network {
        self.lanes.show()
    }

    /// Vectors of texts, row-major [texts, width].
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<f32>> {
        let record = |text: &&str| Record::from_iter([("text".to_owned(), Value::from(*text))]);
        let network = self.lanes.first();
        let (app, tokenizer) = (network.app.clone(), network.tokenizer.clone());
        let _scope = PredictionScope::new(self.precision);
        let (mut all, mut width) = (Vec::new(), 0);
        if let [text] = texts {
            // One text does not pay for a thread.
            let sample = windows::features(0, &record(text), &app, &tokenizer)?;
            (all, width) = evaluate::vectors(&self.lanes.take(), &[sample], BATCH_TOKENS)?;
        } else {
            for window in Windows::of_records(texts.iter().map(record).collect(), app, tokenizer)? {
                let vectors;
                (vectors, width) =
                    evaluate::vectors(&self.lanes.take(), &window?.samples, BATCH_TOKENS)?;
                all.extend(vectors);
            }
        }
        if !texts.is_empty() && width == 0 {
            return Err(Error::other("embed: the app gave no vectors"));
        }
        Ok(all)
    }

    /// Vectors of a file's texts (or of records in memory), written to `output`: a NumPy array of float32 [texts, width] if its name ends in
    /// `.npy`, otherwise JSON Lines with `text` and `vector` (`-` is standard output). Answers with the number of
    /// texts. Errors: as [`DatasetReader`]; nothing of an output file remains.
    pub fn embed_file(&self, data: &DataSource, output: &Path) -> Result<usize> {
        self.embed_file_watched(data, output, &mut Watch::nobody())
    }

    /// As [`Embedder::embed_file`]; `watch` is told of the rows that are done, and may end it. Errors: `Cancelled`;
    /// nothing of an output file remains.
    pub fn embed_file_watched(
        &self,
        data: &DataSource,
        output: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<usize> {
        watch.set_total(data.data.known_len());
        let columns = self.lanes.first().app.columns()?;
        let options = DataOptions {
            read: data.read.clone(),
            named: data.named.clone(),
            ..DataOptions::default()
        };
        self.inputs.check(output, data.data.path())?;
        let reader = DatasetReader::open(&data.data, &columns, &options)?;
        let network = self.lanes.first();
        let (app, tokenizer) = (network.app.clone(), network.tokenizer.clone());
        let windows = Windows::start(reader, app, tokenizer)?;
        let _scope = PredictionScope::new(self.precision);
        let mut count = Count::default();
        if output.extension().is_some_and(|ending| ending == "npy") {
            let mut file = AtomicFile::create(output)?;
            if !file.can_seek() {
                return Err(Error::user(format!(
                    "`{}`: expected a file, found a pipe or an open file, which cannot take an array: its number of rows, known at the end, \
                     stands at its beginning; name a file, or let the name end otherwise for JSON Lines",
                    output.display()
                )));
            }
            let mut array = NpyWriter::new(output, file, self.width())?;
            for window in windows {
                let window = window?;
                count.add(&window);
                let (vectors, width) =
                    evaluate::vectors(&self.lanes.take(), &window.samples, BATCH_TOKENS)?;
                watch.rows(window.samples.len() as u64)?;
                vectors.chunks_exact(width.max(1)).try_for_each(|vector| array.row(vector))?;
            }
            count.check(data.data.path())?;
            array.finish()?.commit()?;
            return Ok(count.rows);
        }
        let mut lines = OutputPlace::open(output, OutputFormat::JsonLines)?.start(Vec::new())?;
        for window in windows {
            let window = window?;
            count.add(&window);
            let (vectors, width) =
                evaluate::vectors(&self.lanes.take(), &window.samples, BATCH_TOKENS)?;
            watch.rows(window.samples.len() as u64)?;
            for (vector, record) in vectors.chunks_exact(width.max(1)).zip(window.records) {
                let mut line = record;
                line.insert("vector".to_owned(), Value::from(vector));
                lines.write(&line)?;
            }
            lines.flush()?;
        }
        count.check(data.data.path())?;
        lines.finish()?;
        Ok(count.rows)
    }
}
