//! A model below an app: each token has outputs that follow from its id and place, so a row's are the same whatever
//! rows are beside it.

use std::thread::{self, ThreadId};

use easytransfer::plugin::{
    self, Call, DType, Init, LoadedApp, Map, ModelInfo, NetHost, Params, Record, Row, Task, Tensor,
    Tokenizer, abi, no_grad,
};
use easytransfer::train::model::generate::options::GenerateOptions;

use crate::inputs::{is_fault, no_panic, number, tensor};
use crate::report::{Outcome, failed, skipped};

/// Width of the model that apps are built on.
const WIDTH: usize = 8;

pub struct FakeNet {
    params: Params,
    home: ThreadId,
    /// Calls that came from another thread than the app's `forward`.
    pub strange_calls: usize,
    /// Options of the runs that it was last asked to go on with.
    pub asked: Option<String>,
    /// Factor on everything that the model answers with.
    pub scale: f64,
}

impl FakeNet {
    /// Builds the app on it.
    pub fn new(app: &mut LoadedApp, tokenizer: &Tokenizer) -> Outcome<Self> {
        let params = Params::new(3)?;
        let root = params.root()?;
        // For heads that are tied to the words.
        let words = root.child("embeddings")?.child("word_embeddings")?;
        words.param("weight", &[tokenizer.vocab_len(), WIDTH], Init::Normal(0.0, 0.1))?;
        if let Err(error) = app.build(&root, &model(tokenizer)) {
            let refusal = error.to_string();
            if is_fault(&refusal) {
                return failed(refusal);
            }
            no_panic::<()>(Err(error))?;
            return skipped(format!("it wants another model: {refusal}"));
        }
        Ok(Self { params, home: thread::current().id(), strange_calls: 0, asked: None, scale: 1.0 })
    }

    /// Outputs of the app on a batch.
    pub fn outputs(&mut self, app: &LoadedApp, batch: &Map) -> Outcome<Map> {
        let mut outputs = Map::new()?;
        let call = Call::inference(app.info()?.want);
        no_grad(|| app.forward(&call, self, batch, &mut outputs))?;
        Ok(outputs)
    }

    /// What the app decodes from rows.
    pub fn parts(&mut self, app: &LoadedApp, rows: &[&Row]) -> Outcome<Vec<Record>> {
        let batch = Map::from_rows(rows)?;
        let outputs = self.outputs(app, &batch)?;
        Ok(app.decode(&batch, &outputs)?)
    }

    fn note(&mut self) {
        self.strange_calls += usize::from(thread::current().id() != self.home);
    }
}

/// Outputs of one token.
fn token(id: i64, place: usize, layer: usize) -> impl Iterator<Item = f64> {
    let id = usize::try_from(id).unwrap_or(0);
    (0..WIDTH).map(move |column| number(id * 131 + place * 17 + layer * 7 + column * 3))
}

impl NetHost for FakeNet {
    fn run(
        &mut self,
        _: &str,
        call: &Call<'_>,
        batch: &Map,
        outputs: &mut Map,
    ) -> plugin::Result<()> {
        self.note();
        let ids = batch.get("ids")?.to_vec::<i64>()?;
        let starts = batch.get("starts")?.to_vec::<i64>()?;
        let bounds: Vec<usize> =
            starts.iter().map(|start| usize::try_from(*start).unwrap_or(0)).collect();
        let rows = bounds.len().saturating_sub(1);
        let all = |layer: usize| -> Vec<f64> {
            let runs =
                bounds.windows(2).flat_map(|run| (run[0]..run[1]).map(move |at| (at, run[0])));
            runs.flat_map(|(at, begin)| token(ids[at], at - begin, layer)).collect()
        };
        let mut wanted = vec![("last".to_owned(), all(2), ids.len())];
        if call.wants(abi::ET_WANT_HIDDEN_STATES) {
            let states = [0, 1].map(|k| (format!("hidden_states/{k}"), all(k), ids.len()));
            wanted.extend(states);
        }
        let pooled = bounds.windows(2).flat_map(|run| {
            let sum = ids.get(run[0]..run[1]).unwrap_or_default().iter().sum::<i64>();
            token(sum, run[1] - run[0], 3)
        });
        wanted.push(("pooled".to_owned(), pooled.collect(), rows));
        for (name, values, rows) in wanted {
            let values: Vec<f64> = values.iter().map(|value| self.scale * value).collect();
            outputs.put(&name, &tensor(&values, &[rows, WIDTH], DType::F32)?)?;
        }
        Ok(())
    }

    fn param(&mut self, name: &str) -> plugin::Result<Tensor> {
        self.note();
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
        self.note();
        let options = GenerateOptions::parse(options)?;
        self.asked = Some(format!("{options:?}"));
        let space = if batch.has("decoder/ids") { "decoder/" } else { "" };
        let begun = batch.get(&format!("{space}starts"))?.len().saturating_sub(1);
        let runs = begun * options.returned;
        let starts: Vec<i64> = (0..=runs as i64).collect();
        outputs.put("generated/ids", &Tensor::from_slice(&vec![1i64; runs], &[runs])?)?;
        outputs.put("generated/starts", &Tensor::from_slice(&starts, &[runs + 1])?)?;
        outputs.put("generated/scores", &Tensor::from_slice(&vec![0f32; runs], &[runs])?)
    }
}

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
