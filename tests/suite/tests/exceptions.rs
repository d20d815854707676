//! What a plugin in C++ throws is an error in the host that names plugin and callback; the process lives and nothing
//! stays behind.

use std::fs;

use easytransfer::plugin::abi::{ET_ERR_INVALID_ARGUMENT, ET_ERR_PANIC, ET_ERR_SHAPE};
use easytransfer::plugin::{
    Call, LoadedMetric, LoadedOp, LoadedStrategy, Map, Result, Stream, Tensor, live_handles,
};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::hosts::{Scratch, build_plugin, install_loss};
use easytransfer_tests::no_trainer::NoTrainer;
use serde_json::{Map as Json, json};
use std::sync::Mutex;

/// The tests count live handles, so they run one after the other.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn exceptions_of_a_plugin_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let scratch = Scratch::new("exceptions");
    let source = scratch.path().join("throws.cpp");
    fs::write(&source, include_str!("hosts/throws.cpp")).unwrap();
    let library = build_plugin(scratch.path(), &source, "libthrows.so");
    let plugins = install_loss(scratch.path(), "throws", &["et.tensor/1", "et.data/1"], &library);
    let manifest = plugins.join("throws/throws.toml");
    let names = ["create", "forward", "number", "engine", "release"];
    let provides: Vec<String> = names
        .iter()
        .map(|at| format!("[[provides]]\nkind = \"loss\"\nname = \"throws-{at}\"\n"))
        .collect();
    let text = fs::read_to_string(&manifest).unwrap();
    let one = "[[provides]]\nkind = \"loss\"\nname = \"throws\"\n";
    assert!(text.contains(one), "{text}");
    fs::write(&manifest, text.replace(one, &provides.join("\n"))).unwrap();

    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).unwrap();
    runtime.load_plugin(&plugins.join("throws")).unwrap();
    let before = live_handles();
    {
        let mut outputs = Map::new().unwrap();
        outputs.put("logits", &Tensor::from_slice(&[1.0f32, 3.0], &[2, 1]).unwrap()).unwrap();
        let batch = Map::new().unwrap();
        let run = |name: &str| {
            let mut loss = runtime.loss(name, "").map_err(|error| error.to_string())?;
            let value = loss.forward(&Call::inference(0), &outputs, &batch);
            value.map_err(|error| format!("{}: {error}", error.code()))
        };
        for _ in 0..2 {
            let error = run("throws-create").unwrap_err();
            let expected = "loss throws-create (plugin throws 0.1.0): create: thrown in create";
            assert!(error.contains(expected), "{error}");
            for (name, what) in [
                ("throws-forward", "thrown in forward"),
                ("throws-number", "an exception that is no std::exception"),
            ] {
                let expected =
                    format!("{ET_ERR_PANIC}: loss {name} (plugin throws 0.1.0): forward: {what}");
                assert_eq!(run(name).unwrap_err(), expected);
            }
            // What the engine refused keeps its code.
            let error = run("throws-engine").unwrap_err();
            let start = format!("{ET_ERR_SHAPE}: loss throws-engine (plugin throws 0.1.0): ");
            assert!(error.starts_with(&start) && error.contains("1000003"), "{error}");
            assert_eq!(run("throws-release").unwrap().to_scalar().unwrap(), 5.0);
        }
    }
    assert_eq!(live_handles(), before, "handles were left behind");
}

#[test]
fn exceptions_of_metrics_operations_and_strategies_are_errors() {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let scratch = Scratch::new("exceptions-by-kind");
    let source = scratch.path().join("throws_by_kind.cpp");
    fs::write(&source, include_str!("hosts/throws_by_kind.cpp")).unwrap();
    let library = build_plugin(scratch.path(), &source, "libthrows_by_kind.so");
    let requires = ["et.tensor/1", "et.data/1", "et.session/1"];
    let plugins = install_loss(scratch.path(), "throws-by-kind", &requires, &library);
    let manifest = plugins.join("throws-by-kind/throws-by-kind.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let provides = ["metric", "op", "strategy"]
        .map(|kind| format!("[[provides]]\nkind = \"{kind}\"\nname = \"throws-{kind}\"\n"));
    let one = "[[provides]]\nkind = \"loss\"\nname = \"throws-by-kind\"\n";
    assert!(text.contains(one), "{text}");
    fs::write(&manifest, text.replace(one, &provides.join("\n"))).unwrap();

    let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
    let runtime = Runtime::new(options).unwrap();
    runtime.load_plugin(&plugins.join("throws-by-kind")).unwrap();
    let find = |kind: &str| {
        runtime.components().find(&format!("et.{kind}/1"), &format!("throws-{kind}")).unwrap()
    };
    let before = live_handles();
    // What came of the callback `at`, which throws; the same without `at` goes well.
    let check = |kind: &str, at: &str, run: &dyn Fn(&str) -> Result<()>| {
        let error = run(&json!({ "at": at }).to_string()).expect_err(at);
        assert_eq!(error.code(), ET_ERR_PANIC, "{kind}.{at}: {error}");
        let text = error.message();
        for part in [format!("{kind} throws-{kind}"), format!("thrown in {at}")] {
            assert!(text.contains(&part), "{kind}.{at}: {text:?} lacks {part:?}");
        }
        run("{}").unwrap_or_else(|error| panic!("{kind}.{at} without an exception: {error}"));
        assert_eq!(live_handles(), before, "{kind}.{at} left handles behind");
    };

    let component = find("metric");
    for at in ["create", "update", "compute", "state_save", "state_merge"] {
        check("metric", at, &|options| {
            let mut metric = LoadedMetric::create(&component, options)?;
            metric.update(&Map::new()?, &Map::new()?)?;
            let figures = metric.compute()?;
            assert_eq!((figures["one"].as_f64(), &figures["none"]), (Some(1.0), &json!(null)));
            let mut stream = Stream::writer()?;
            metric.save(&mut stream)?;
            let state = stream.bytes()?.as_slice().to_vec();
            metric.merge(&mut Stream::reader(&state)?)
        });
    }

    let component = find("strategy");
    let logits = || -> Result<Map> {
        let mut map = Map::new()?;
        map.put("logits", &Tensor::scalar(0.5)?)?;
        Ok(map)
    };
    for at in [
        "create",
        "on_setup",
        "on_batch",
        "on_outputs",
        "combine",
        "on_gradients",
        "on_epoch",
        "fit",
        "state_save",
        "state_load",
    ] {
        check("strategy", at, &|options| {
            let (mut strategy, host) =
                (LoadedStrategy::create(&component, options)?, &mut NoTrainer);
            let mut batch = logits()?;
            strategy.on_setup(host)?;
            strategy.on_batch(host, &mut batch)?;
            assert!(batch.has("weights"));
            strategy.on_outputs(host, &batch, &batch)?;
            assert_eq!(strategy.combine(host, &batch)?.to_scalar()?, 0.5);
            strategy.on_gradients(host)?;
            strategy.on_epoch(host, 1, &Json::new())?;
            strategy.fit(host)?;
            strategy.save(&mut Stream::writer()?)?;
            strategy.load(&mut Stream::reader(&[])?)
        });
    }

    let op = LoadedOp::create(&find("op")).unwrap();
    let run = |fault: &str| -> Result<f64> {
        // SAFETY: the tests of this program run one after the other, and nothing else reads the variable.
        unsafe { std::env::set_var("ET_THROWS", fault) };
        let x = Tensor::from_slice(&[1.0f32, 2.0], &[2])?.leaf()?;
        op.apply(&[&x])?.remove(0).sum(&[], false)?.backward()?;
        x.leaf_grad()?.map_or(Ok(0.0), |grad| grad.sum(&[], false)?.to_scalar())
    };
    assert_eq!(run("").unwrap(), 2.0);
    for (fault, code, text) in [
        ("infer", ET_ERR_PANIC, "thrown in infer"),
        ("infer: too many", ET_ERR_INVALID_ARGUMENT, "infer: expected one spec for each output"),
        ("forward", ET_ERR_PANIC, "thrown in forward"),
        ("backward", ET_ERR_PANIC, "thrown in backward"),
        ("backward: none", ET_ERR_INVALID_ARGUMENT, "backward: expected a gradient for each input"),
    ] {
        let error = run(fault).expect_err(fault);
        assert_eq!(error.code(), code, "{fault}: {error}");
        assert!(error.message().contains(text), "{fault}: {error}");
        assert_eq!(live_handles(), before, "{fault} left handles behind");
    }
    assert_eq!(run("").unwrap(), 2.0);
}
