//! A training loop by hand, one line per step: plugins, model, batch, loss, gradients, freezing, optimizer. The
//! encoder directory gives configuration and tokenizer; weights are random, so the numbers depend on the seed alone.

use std::process::ExitCode;

use easytransfer::plugin::{Call, Init, LoadedLoss, Param, Params, abi, nn};
use easytransfer::{
    Map, Model, Result, Row, Runtime, RuntimeOptions, Tensor, Tokenizer, VERSION, json,
};
use easytransfer_hosts::{arguments, number, read_file, run};

const EXAMPLES: [(&str, i64); 4] = [
    ("where is my parcel", 0),
    ("I want my money back", 1),
    ("the parcel is late", 0),
    ("please return the money", 1),
];

fn is_embedding(param: &Param) -> bool {
    param.name().starts_with("embeddings.")
}

/// A batch of the examples: token ids end to end, and where each row starts.
fn make_batch(encoder: &str) -> Result<Map> {
    let tokenizer = Tokenizer::load(encoder)?;
    let mut rows = Vec::new();
    for (text, label) in EXAMPLES {
        let encoding = tokenizer.encode(text, None, 0)?;
        let mut row = Row::new()?;
        row.put_tokens("ids", encoding.ids())?;
        row.put_tokens("segments", encoding.segments())?;
        row.put_i64("labels", &[label])?;
        rows.push(row);
    }
    Ok(Map::from_rows(&rows.iter().collect::<Vec<_>>())?)
}

/// The loss of the present parameters on the batch, on the tape.
fn forward(model: &mut Model, head: &Param, loss: &mut LoadedLoss, batch: &Map) -> Result<Tensor> {
    let mut outputs = model.forward(batch, false, abi::ET_WANT_POOLED)?;
    let logits = nn::linear(&outputs.get("pooled")?, &head.tensor()?, None, nn::Activation::None)?;
    outputs.put("logits", &logits)?;
    Ok(loss.forward(&Call::inference(0), &outputs, batch)?)
}

fn print_gradients(step: &str, params: &Params) {
    let reached: Vec<Param> = params.iter().filter(Param::has_grad).collect();
    let embeddings = reached.iter().filter(|param| is_embedding(param)).count();
    println!(
        "{step}: {} parameters received a gradient, {embeddings} of them embeddings",
        reached.len()
    );
}

fn main() -> ExitCode {
    run(arguments(), 1, 1, "quickstart ENCODER", |arguments| {
        let encoder = &arguments[0];
        let runtime = Runtime::new(RuntimeOptions::default())?;
        eprintln!("plugins: {}", json::plugins(&runtime.plugins()));
        println!("1 load: easytransfer {VERSION}");

        let mut model = runtime.model("bert", &read_file(&format!("{encoder}/config.json"))?, 7)?;
        let elements: usize = model.params().iter().map(|param| param.len()).sum();
        println!("2 model: {} parameters, {elements} values", model.params().len());

        let batch = make_batch(encoder)?;
        println!("3 batch: {} rows, {} tokens", EXAMPLES.len(), batch.get("ids")?.len());

        let width = model.info().hidden_size;
        let scope = model.params().root()?;
        let head = scope.param("classifier.weight", &[2, width], Init::Normal(0.0, 0.02))?;
        let mut optimizer = runtime.optimizer("adamw", "", &mut model)?; // seals the parameters
        let mut loss = runtime.loss("cross-entropy", "")?;
        let first = forward(&mut model, &head, &mut loss, &batch)?;
        println!("4 loss: {}", number(first.to_scalar()?));

        first.backward()?;
        print_gradients("5 backward", model.params());

        model.params().zero_grads();
        for param in model.params().iter().filter(is_embedding) {
            param.set_trainable(false)?;
        }
        forward(&mut model, &head, &mut loss, &batch)?.backward()?;
        print_gradients("6 frozen", model.params());

        model.params().zero_grads();
        for step in 1..=5 {
            forward(&mut model, &head, &mut loss, &batch)?.backward()?;
            optimizer.step(&mut model, 1e-3)?;
            let loss = forward(&mut model, &head, &mut loss, &batch)?;
            println!("7 step {step}: loss {}", number(loss.to_scalar()?));
        }
        Ok(())
    })
}
