//! A plugin written and compiled against the header of a released version, found by its manifest and run on the engine
//! of today; one whose slots meant something else is refused and told what to do.

use std::fs;
use std::path::{Path, PathBuf};

use easytransfer::plugin::abi::{ET_ABI_MAJOR, ET_ABI_MINOR, ET_ABI_MINOR_OLDEST};
use easytransfer::plugin::{Call, Map, Tensor, live_handles};
use easytransfer::{Runtime, RuntimeOptions};
use easytransfer_tests::hosts::{Scratch, build_plugin, command, demo, install_loss, run};
use easytransfer_tests::places;

/// The versions that are frozen, and whether a host of today takes their plugins.
fn versions() -> Vec<(PathBuf, bool)> {
    let folders = fs::read_dir(places::root().join("tests/abi/frozen")).unwrap();
    let mut versions: Vec<(PathBuf, bool)> = folders
        .map(|folder| {
            let path = folder.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let (major, minor) = name.split_once('.').unwrap();
            let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
            let oldest = (ET_ABI_MAJOR, ET_ABI_MINOR_OLDEST);
            let is_taken = (oldest..=(ET_ABI_MAJOR, ET_ABI_MINOR)).contains(&(major, minor));
            (path, is_taken)
        })
        .collect();
    versions.sort();
    versions
}

/// The frozen loss of a version, built with the header of that version; its manifest says `minor`.
fn installed(place: &Path, version: &Path, minor: &str) -> PathBuf {
    fs::create_dir_all(place).unwrap();
    let library = build_plugin(place, &version.join("loss.c"), "libfrozen_loss.so");
    let requires = ["et.tensor/1", "et.data/1"];
    let plugins = install_loss(&place.join("plugins"), "frozen-loss", &requires, &library);
    let manifest = plugins.join("frozen-loss/frozen-loss.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text.replace("name = \"frozen-loss\"", "name = \"frozen-mse\"");
    let present = format!("minor = {ET_ABI_MINOR}\n");
    assert!(text.contains(&present), "{text}");
    fs::write(&manifest, text.replace(&present, &format!("minor = {minor}\n"))).unwrap();
    plugins
}

#[test]
fn plugins_of_versions_whose_slots_changed_are_refused_with_what_to_do() {
    let scratch = Scratch::new("frozen-refused");
    let mut count = 0;
    for (version, _) in versions().into_iter().filter(|(_, is_taken)| !is_taken) {
        let name = version.file_name().unwrap().to_str().unwrap().to_owned();
        let old = name.split_once('.').unwrap().1.to_owned();
        // By the manifest, before the library is opened; and by the record, where the manifest says something else.
        for minor in [old, ET_ABI_MINOR.to_string()] {
            let place = scratch.path().join(format!("{name}-{minor}"));
            let plugins = installed(&place, &version, &minor);
            let options = RuntimeOptions { only_these: true, ..RuntimeOptions::default() };
            let runtime = Runtime::new(options).unwrap();
            let error = runtime.load_plugin(&plugins.join("frozen-loss")).unwrap_err().to_string();
            let oldest = format!("abi {ET_ABI_MAJOR}.{ET_ABI_MINOR_OLDEST}");
            let rebuild =
                "rebuild the plugin against this host's header (CHANGELOG.md says what changed)";
            for part in ["frozen-loss", &format!("abi {name}"), &oldest, rebuild] {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
            assert!(runtime.loss("frozen-mse", "").is_err());
            count += 1;
        }
    }
    assert!(count > 0, "no frozen version that is refused");
}

#[test]
fn frozen_plugins_compute_and_train_on_todays_engine() {
    let scratch = Scratch::new("frozen");
    let mut count = 0;
    for (version, _) in versions().into_iter().filter(|(_, is_taken)| *is_taken) {
        let place = scratch.path().join(version.file_name().unwrap());
        let minor = version.extension().unwrap().to_str().unwrap();
        let plugins = installed(&place, &version, minor);

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
    assert!(count > 0, "no frozen version that is taken");
}
