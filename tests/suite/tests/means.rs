//! Losses as means over many batches: whatever the batches are, the mean is that of one batch of all rows.

use easytransfer::plugin::{
    Call, LoadedApp, LoadedLoss, LoadedModel, Map, Params, Row, Tensor, no_grad,
};
use easytransfer_tests::{linked, places};
use easytransfer_train::model::network::Running;
use easytransfer_train::model::weights;
use easytransfer_train::run::evaluate::WeightedMean;
use serde_json::Value;

fn loss(name: &str, options: &str) -> LoadedLoss {
    let component = linked::runtime().components().find("et.loss/1", name).unwrap();
    LoadedLoss::create(&component, options).unwrap()
}

fn batch(ids: &[Vec<i64>], labels: &[Vec<i64>]) -> Map {
    let row = |(index, (ids, labels)): (usize, (&Vec<i64>, &Vec<i64>))| {
        let mut row = Row::new().unwrap();
        row.put_tokens("ids", ids).unwrap();
        row.put_tokens("segments", &vec![0; ids.len()]).unwrap();
        row.put_tokens("token_labels", labels).unwrap();
        row.put_i64("record", &[index as i64]).unwrap();
        row
    };
    let rows: Vec<Row> = ids.iter().zip(labels).enumerate().map(row).collect();
    Map::from_rows(&rows.iter().collect::<Vec<_>>()).unwrap()
}

/// Tokens that are predicted: batches have different numbers of them, and one has none.
#[test]
fn mean_over_tokens_is_that_of_one_large_batch() {
    let directory = places::parity().join("apps/masked-lm-bert");
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(directory.join(name)).unwrap()).unwrap()
    };
    let golden = read("golden.json");
    let config = read("config.json");
    let runtime = linked::runtime();
    let component = runtime.components().find("et.model/1", "bert").unwrap();
    let params = Params::new(0).unwrap();
    let root = params.root().unwrap();
    let mut model = LoadedModel::create(&component, &config.to_string(), &root).unwrap();
    let info = model.info().clone();
    let app = runtime.components().find("et.app/1", "masked-lm").unwrap();
    let mut app = LoadedApp::create(&app, "{}", "").unwrap();
    app.build(&root, &info).unwrap();
    weights::load_where_there(&directory, params.iter().collect(), &info).unwrap();
    let mut forward = |batch: &Map| {
        let mut outputs = Map::new().unwrap();
        let net = &mut Running { model: &mut model, modules: &mut [], params: &params };
        no_grad(|| app.forward(&Call::inference(0), net, batch, &mut outputs)).unwrap();
        outputs
    };

    let lists =
        |key: &str| -> Vec<Vec<i64>> { serde_json::from_value(golden[key].clone()).unwrap() };
    let (mut ids, mut labels) = (lists("ids"), lists("labels"));
    let counts: Vec<usize> =
        labels.iter().map(|row| row.iter().filter(|label| **label >= 0).count()).collect();
    assert_eq!(counts, [2, 2, 1], "batches of unequal counts");
    // A row without a token to predict changes nothing.
    ids.push(vec![2, 7, 3]);
    labels.push(vec![-100; 3]);
    let mut loss = loss("masked-tokens", "");
    let mut mean_of = |groups: &[std::ops::Range<usize>]| {
        let (mut mean, mut plain) = (WeightedMean::default(), Vec::new());
        for group in groups {
            let batch = batch(&ids[group.clone()], &labels[group.clone()]);
            let outputs = forward(&batch);
            mean.update(&mut loss, &batch, &outputs).unwrap();
            let value = no_grad(|| loss.forward(&Call::inference(0), &outputs, &batch)).unwrap();
            plain.push(value.to_scalar().unwrap());
        }
        (mean.value().unwrap(), plain.iter().sum::<f64>() / plain.len() as f64)
    };
    // What transformers says of all rows at once.
    let expected = golden["loss"].as_f64().unwrap();
    let (whole, _) = mean_of(std::slice::from_ref(&(0..4)));
    assert!((whole - expected).abs() < 1e-5, "{whole}, expected {expected}");
    let (single, plain) = mean_of(&[0..1, 1..2, 2..3, 3..4]);
    assert!((single - expected).abs() < 1e-5, "{single}, expected {expected}");
    let (pairs, _) = mean_of(&[0..1, 1..4]);
    assert!((pairs - expected).abs() < 1e-5, "{pairs}, expected {expected}");
    // The mean of the batches' means is another number, so the test can fail.
    assert!((plain - expected).abs() > 1e-3, "{plain}, {expected}");
}

/// Rows with weights: a batch counts as much as its weights together.
#[test]
fn mean_over_weighted_rows_is_that_of_one_large_batch() {
    let _runtime = linked::runtime();
    let logits = [[2.0f32, -1.0], [0.5, 0.25], [-3.0, 1.0], [0.0, 4.0]];
    let (labels, weights) = ([0i64, 1, 0, 1], [1.0f32, 0.5, 3.0, 0.25]);
    let mut loss = loss("cross-entropy", "");
    let mut mean_of = |groups: &[std::ops::Range<usize>]| {
        let mut mean = WeightedMean::default();
        for group in groups {
            let flat = logits[group.clone()].concat();
            let (mut batch, mut outputs) = (Map::new().unwrap(), Map::new().unwrap());
            let len = group.len();
            outputs.put("logits", &Tensor::from_slice(&flat, &[len, 2]).unwrap()).unwrap();
            let put =
                |batch: &mut Map, name: &str, tensor: Tensor| batch.put(name, &tensor).unwrap();
            put(&mut batch, "labels", Tensor::from_slice(&labels[group.clone()], &[len]).unwrap());
            put(
                &mut batch,
                "weights",
                Tensor::from_slice(&weights[group.clone()], &[len]).unwrap(),
            );
            mean.update(&mut loss, &batch, &outputs).unwrap();
        }
        mean.value().unwrap()
    };
    // sum of w · -log softmax over the sum of w
    let row = |k: usize| {
        let [a, b] = logits[k].map(f64::from);
        let own = if labels[k] == 0 { a } else { b };
        f64::from(weights[k]) * ((a.exp() + b.exp()).ln() - own)
    };
    let expected =
        (0..4).map(row).sum::<f64>() / weights.iter().map(|w| f64::from(*w)).sum::<f64>();
    let whole = 0..4;
    for groups in
        [std::slice::from_ref(&whole), &[0..1, 1..4], &[0..3, 3..4], &[0..1, 1..2, 2..3, 3..4]]
    {
        let found = mean_of(groups);
        assert!((found - expected).abs() < 1e-6, "{groups:?}: {found}, expected {expected}");
    }
}
