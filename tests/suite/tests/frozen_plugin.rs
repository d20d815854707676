//! A plugin written and compiled against the header of a released version, found by its manifest and run on the engine of today.

use std::fs;

use easytransfer::plugin::{Call, Map, Tensor, live_handles};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::hosts::{Scratch, build_plugin, command, demo, install_loss, run};
use easytransfer_tests::places;

#[test]
fn frozen_plugins_compute_and_train_on_todays_engine() {
    let scratch = Scratch::new("frozen");
    let mut count = 0;
    for folder in fs::read_dir(places::root().join("tests/abi/frozen")).unwrap() {
        let version = folder.unwrap().path();
        let place = scratch.path().join(version.file_name().unwrap());
        fs::create_dir_all(&place).unwrap();
        let library = build_plugin(&place, &version.join("loss.c"), "libfrozen_loss.so");
        let requires = ["et.tensor/1", "et.data/1"];
        let plugins = install_loss(&place.join("plugins"), "frozen-loss", &requires, &library);
        let manifest = plugins.join("frozen-loss/frozen-loss.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("name = \"frozen-loss\"", "name = \"frozen-mse\""))
            .unwrap();

        // ((1 - 2)^2 + (3 - 1)^2) / 2, and its gradient 2 (logits - labels) / 2.
        let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
        let runtime = Runtime::new(options).unwrap();
        runtime.load_plugin(&plugins.join("frozen-loss")).unwrap();
        let before = live_handles();
        {
            let mut loss = runtime.loss("frozen-mse", "").unwrap();
            let (mut outputs, mut batch) = (Map::new().unwrap(), Map::new().unwrap());
            let logits = Tensor::from_slice(&[1.0f32, 3.0], &[2, 1]).unwrap().leaf().unwrap();
            outputs.put("logits", &logits).unwrap();
            batch.put("labels", &Tensor::from_slice(&[2i64, 1], &[2]).unwrap()).unwrap();
            let value = loss.forward(&Call::inference(0), &outputs, &batch).unwrap();
            assert_eq!(value.to_scalar().unwrap(), 2.5);
            value.backward().unwrap();
            let gradient = logits.leaf_grad().unwrap().unwrap();
            assert_eq!(gradient.to_vec::<f32>().unwrap(), [-1.0, 2.0]);
            let mut empty = Map::new().unwrap();
            empty.put("nothing", &value).unwrap();
            let error = loss.forward(&Call::inference(0), &empty, &batch).unwrap_err();
            assert!(error.message().contains("frozen-mse"), "{error}");
            assert!(error.message().contains("logits"), "{error}");
        }
        assert_eq!(live_handles(), before, "{}: handles were left behind", version.display());

        // A training run of the command's kind: a regression whose loss it is learns its targets.
        let table = place.join("numbers.tsv");
        let rows: String = (0..64)
            .map(|i| format!("{}\t{}\n", ["good", "bad"][i % 2], [1.0, -1.0][i % 2]))
            .collect();
        fs::write(&table, format!("text\tlabel\n{rows}")).unwrap();
        let output = place.join("run");
        let config = r#"{"epochs": 8, "max_steps": 30, "lr": 0.001, "batch": {"rows": 16}, "loss": {"name": "frozen-mse"}, "app": {"problem": "regression"}}"#;
        let mut train = command(&places::staged().join("train"), &[&plugins]);
        train.args(["--scratch", &demo("encoder"), table.to_str().unwrap(), "-"]);
        train.args([output.to_str().unwrap(), config]);
        let printed = run(&mut train, b"").good("train with the frozen loss");
        let losses: Vec<f64> = printed
            .lines()
            .filter(|line| line.starts_with("step "))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(losses.len(), 30, "{printed}");
        assert!(losses[29] < 0.5 * losses[0], "the loss did not go down: {losses:?}");
        count += 1;
    }
    assert!(count > 0, "no frozen version found");
}
