//! What a plugin in C++ throws is an error in the host that names plugin and callback; the process lives and nothing
//! stays behind.

use std::fs;

use easytransfer::plugin::abi::{ET_ERR_PANIC, ET_ERR_SHAPE};
use easytransfer::plugin::{Call, Map, Tensor, live_handles};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::hosts::{Scratch, build_plugin, install_loss};

#[test]
fn exceptions_of_a_plugin_are_errors() {
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
            let expected = "loss throws-create (plugin throws): create: thrown in create";
            assert!(error.contains(expected), "{error}");
            for (name, what) in [
                ("throws-forward", "thrown in forward"),
                ("throws-number", "an exception that is no std::exception"),
            ] {
                let expected =
                    format!("{ET_ERR_PANIC}: loss {name} (plugin throws): forward: {what}");
                assert_eq!(run(name).unwrap_err(), expected);
            }
            // What the engine refused keeps its code.
            let error = run("throws-engine").unwrap_err();
            let start = format!("{ET_ERR_SHAPE}: loss throws-engine (plugin throws): ");
            assert!(error.starts_with(&start) && error.contains("1000003"), "{error}");
            assert_eq!(run("throws-release").unwrap().to_scalar().unwrap(), 5.0);
        }
    }
    assert_eq!(live_handles(), before, "handles were left behind");
}
