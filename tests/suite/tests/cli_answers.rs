//! The command line: train, evaluate, predict and embed agree with each other, whichever way data goes in and out.

use easytransfer_tests::command::Place;
use serde_json::Value;

const TEXTS: [&str; 4] = ["where is my parcel", "我要退款", "cancel \"my\" order, please", "hello"];

/// Label and probabilities of each line of JSON.
fn answers(text: &str) -> Vec<(Value, Value)> {
    let line =
        |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(line).map(|row| (row["label"].clone(), row["probabilities"].clone())).collect()
}

#[test]
fn every_way_to_predict_gives_the_same_probabilities() {
    let place = Place::new("predict");
    place.train("app", &[]).good("train");
    let tsv = format!("id\ttext\n{}\n", TEXTS.map(|text| format!("7\t{text}")).join("\n"));
    let quoted = TEXTS.map(|text| format!("\"{}\",7", text.replace('"', "\"\"")));
    let csv = format!("text,id\n{}\n", quoted.join("\n"));
    let jsonl: String = TEXTS
        .iter()
        .map(|text| format!("{}\n", serde_json::json!({ "text": text, "id": 7 })))
        .collect();
    place.write("in.tsv", &tsv);
    place.write("in.csv", &csv);
    place.write("in.jsonl", &jsonl);
    let predict = |more: &[&str], input: &str| {
        let arguments = [&["predict", "--model", "app"], more].concat();
        place.with_input(&arguments, input).good(&format!("{more:?}"))
    };
    let expected = answers(&predict(&[], &format!("{}\n", TEXTS.join("\n"))));
    assert_eq!(expected.len(), TEXTS.len());
    for (label, probabilities) in &expected {
        let sum: f64 =
            probabilities.as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{probabilities}");
        let best = &probabilities[label.as_str().unwrap()];
        assert!(probabilities.as_object().unwrap().values().all(|p| p.as_f64() <= best.as_f64()));
    }
    assert_eq!(answers(&predict(&[], &jsonl)), expected, "JSON Lines on standard input");
    assert_eq!(answers(&predict(&["--format", "tsv"], &tsv)), expected, "TSV on standard input");
    for file in ["in.tsv", "in.csv", "in.jsonl"] {
        assert_eq!(answers(&predict(&["--data", file], "")), expected, "{file}");
    }
    predict(&["--data", "in.csv", "--output", "out.jsonl"], "");
    assert_eq!(answers(&place.read_text("out.jsonl")), expected);
    predict(&["--data", "in.tsv", "--output", "out.tsv"], "");
    let table = place.read_text("out.tsv");
    let mut rows = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let column =
        |name: &str| header.iter().position(|have| *have == name).expect("the column is there");
    for ((row, text), (label, probabilities)) in rows.zip(TEXTS).zip(&expected) {
        assert_eq!((row[column("text")], row[column("label")]), (text, label.as_str().unwrap()));
        let cell: Value = serde_json::from_str(row[column("probabilities")]).unwrap();
        assert_eq!(&cell, probabilities);
    }
    let named = predict(&["--data", "in.tsv", "--output-format", "csv", "--text", "text"], "");
    assert_eq!(named.lines().next().unwrap(), "text,label,score,probabilities");
    assert_eq!(named.lines().count(), TEXTS.len() + 1);
}

#[test]
fn evaluate_repeats_the_figures_of_training() {
    let place = Place::new("evaluate");
    let said = place.train("app", &["--set", "max_steps=30"]).good("train");
    assert!(said.contains("easytransfer predict --model app"), "{said}");
    let kept = place.read_json("app/easytransfer.json")["metrics"].clone();
    let arguments = ["evaluate", "--model", "app", "--data", "dev.tsv", "--json"];
    let found: Value =
        serde_json::from_str(&place.easytransfer(&arguments).good("evaluate")).unwrap();
    assert_eq!(found["rows"], 60);
    let figures = found["metrics"].as_object().unwrap();
    assert!(figures.contains_key("accuracy"), "{found}");
    for (name, value) in figures {
        assert_eq!(value, &kept[name], "{name}");
    }
    let plain = place.easytransfer(&arguments[..5]).good("evaluate");
    let accuracy = figures["accuracy"].as_f64().unwrap();
    assert!(plain.contains(&format!("accuracy {accuracy:.4}\n")), "{plain}");
    assert!(said.contains(&format!("accuracy {accuracy:.4}")), "{said}");
    // Counting the answers of `predict` gives the same accuracy.
    let predictions =
        place.easytransfer(&["predict", "--model", "app", "--data", "dev.tsv"]).good("predict");
    let dev = place.read_text("dev.tsv");
    let labels = dev.lines().skip(1).map(|line| line.split('\t').nth(1).unwrap());
    let right =
        answers(&predictions).iter().zip(labels).filter(|((label, _), gold)| label == gold).count();
    assert_eq!(right as f64 / 60.0, accuracy);
}

#[test]
fn report_is_escaped_and_needs_no_other_file() {
    let place = Place::new("report");
    place.train("app", &[]).good("train");
    let labels = place.read_json("app/easytransfer.json")["labels"].clone();
    let rows: String = labels
        .as_array()
        .unwrap()
        .iter()
        .map(|label| format!("<script>alert('x')</script> & more\t{}\n", label.as_str().unwrap()))
        .collect();
    place.write("odd.tsv", format!("text\tlabel\n{rows}"));
    let arguments = ["evaluate", "--model", "app", "--data", "odd.tsv", "--report", "odd.html"];
    place.easytransfer(&arguments).good("evaluate");
    for name in ["odd.html", "app/report.html"] {
        let page = place.read_text(name);
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<table"), "{name}");
        for outside in ["src=", "href=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{name} refers to something outside with {outside}");
        }
    }
    let page = place.read_text("odd.html");
    assert!(page.contains("&lt;script&gt;alert(") && !page.contains("<script>alert("));
    assert!(page.contains("refund"), "the confusion matrix names the classes");
}

#[test]
fn vectors_are_the_same_as_npy_and_as_json_lines() {
    let place = Place::new("embed");
    place.train("app", &[]).good("train");
    place.write("texts.txt", format!("{}\n", TEXTS.join("\n")));
    let embed = |more: &[&str]| {
        let arguments =
            [&["embed", "--encoder", "app", "--data", "texts.txt", "--output"], more].concat();
        place.easytransfer(&arguments).good(&format!("{more:?}"))
    };
    let said = embed(&["v.npy"]);
    assert!(said.contains("4 vectors of 32 numbers"), "{said}");
    let array =
        easytransfer_train::files::npy::read(&place.at("v.npy"), &place.read("v.npy")).unwrap();
    assert_eq!(array.shape, [4, 32]);
    let of_lines = |text: &str| -> Vec<f32> {
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.flat_map(|row| row["vector"].as_array().unwrap().clone())
            .map(|value| value.as_f64().unwrap() as f32)
            .collect()
    };
    embed(&["v.jsonl"]);
    assert_eq!(of_lines(&place.read_text("v.jsonl")), array.values);
    assert_eq!(of_lines(&embed(&["-"])), array.values);
    let length = |vector: &[f32]| vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(array.values.chunks(32).all(|vector| (length(vector) - 1.0).abs() < 1e-5));
    let long = of_lines(&embed(&["-", "--no-normalize", "--pooling", "cls"]));
    assert!(long.chunks(32).all(|vector| (length(vector) - 1.0).abs() > 1e-3));
}

#[test]
fn options_come_from_the_file_and_from_set() {
    let place = Place::new("options");
    place.write(
        "run.toml",
        "max_steps = 3\nlr = 2e-4\n[optimizer]\nname = \"sgd\"\nmomentum = 0.5\n",
    );
    let arguments =
        ["train", "--encoder", "encoder", "--from-scratch", "--train", "train.tsv", "--quiet"];
    let both =
        ["--output", "both", "--config", "run.toml", "--set", "max_steps=2", "--set", "seed=9"];
    place.easytransfer(&[&arguments[..], &both].concat()).good("train");
    let training = &place.read_json("both/easytransfer.json")["training"];
    assert_eq!(training["max_steps"], 2);
    assert_eq!(training["seed"], 9);
    assert_eq!(training["lr"], 2e-4);
    assert_eq!(training["optimizer"]["momentum"], 0.5);
    assert_eq!(training["epochs"], 3, "the default of the schema");
    let file = ["--output", "file", "--config", "run.toml"];
    let said = place.easytransfer(&[&arguments[..], &file].concat()).good("train");
    assert!(said.starts_with("trained 3 steps"), "{said}");
}

#[test]
fn each_file_finds_its_columns() {
    let place = Place::new("columns");
    let renamed =
        |name: &str, text: &str| place.read_text(name).replacen("text\t", &format!("{text}\t"), 1);
    place.write("train.tsv", renamed("train.tsv", "sentence"));
    place.write("dev.tsv", renamed("dev.tsv", "content"));
    place.train("usual", &["--set", "max_steps=2"]).good("usual names");
    let half = place.train("half", &["--set", "max_steps=2", "--text", "sentence"]);
    assert_eq!(half.code, 2);
    assert!(half.stderr.contains("--valid-text content"), "{}", half.stderr);
    let full = ["--set", "max_steps=2", "--text", "sentence", "--valid-text", "content"];
    place.train("full", &full).good("both named");
    assert!(place.read("usual/model.safetensors") == place.read("full/model.safetensors"));
    let body = |name: &str| place.read_text(name).split_once('\n').unwrap().1.to_owned();
    place.write("bare.tsv", body("train.tsv"));
    place.write("bare-dev.tsv", body("dev.tsv"));
    let schema =
        ["--train", "bare.tsv", "--valid", "bare-dev.tsv", "--schema", "content:str:1,label:str:1"];
    place.train("schema", &[&schema[..], &["--set", "max_steps=2"]].concat()).good("schema");
    assert!(place.read("usual/model.safetensors") == place.read("schema/model.safetensors"));
}

#[test]
fn the_command_explains_itself() {
    let place = Place::new("help");
    let help = place.easytransfer(&["train", "--help"]).good("help");
    for word in
        ["--valid-text-pair", "batch.tokens", "schedule.warmup", "plugin info text-classify"]
    {
        assert!(help.contains(word), "{word} is not in {help}");
    }
    let list = place.easytransfer(&["plugin", "list"]).good("list");
    assert!(list.contains("app text-classify") && list.contains("optimizer adamw"), "{list}");
    let component = place.easytransfer(&["plugin", "info", "finetune"]).good("info");
    assert!(component.contains("strategy.finetune.lora_rank = an integer"), "{component}");
    let plugin = place.easytransfer(&["plugin", "info", "app-classify"]).good("info");
    assert!(plugin.contains("app.max_length") && plugin.contains("metric"), "{plugin}");
    let near = place.easytransfer(&["plugin", "info", "adamv"]);
    assert_eq!(near.code, 2);
    assert!(near.stderr.contains("did you mean `adam"), "{}", near.stderr);
    let folder = easytransfer_tests::places::staged().join("plugins/loss-basic");
    let check = place.easytransfer(&["plugin", "check", &folder.to_string_lossy()]).good("check");
    assert!(check.contains("loss-basic") && check.contains("loaded"), "{check}");
    let wrong = place.easytransfer(&["plugin", "check", "train.tsv"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("train.tsv"), "{}", wrong.stderr);
    let devices = place.easytransfer(&["device", "list", "--threads", "3"]).good("devices");
    assert!(devices.starts_with("cpu") && devices.contains("3 threads"), "{devices}");
    let version = place.easytransfer(&["--version"]).good("version");
    assert_eq!(version.trim(), concat!("easytransfer ", env!("CARGO_PKG_VERSION")));
}

#[cfg(unix)]
#[test]
fn a_reader_that_went_away_is_no_error() {
    let place = Place::new("pipe");
    place.train("app", &["--set", "max_steps=1"]).good("train");
    place.write("many.txt", "where is my parcel\n".repeat(5000));
    let mut child =
        place.command(&["predict", "--model", "app", "--data", "many.txt"]).spawn().unwrap();
    // The answers are larger than a pipe holds, so that the command meets the closed end.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}
