//! The command line: bad input ends in exit code 2 and a message that names the culprit, and leaves no file behind.

use std::fs;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::Outcome;

/// Checks an outcome: exit code 2, one error line that has all `needles`, and nothing in the folder that was not
/// there before.
fn refused(place: &Place, before: &[String], what: &str, outcome: &Outcome, needles: &[&str]) {
    assert_eq!(outcome.code, 2, "{what}: {}", outcome.stderr);
    let lines: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.starts_with("easytransfer: error: ")).collect();
    let [line] = lines[..] else { panic!("{what}: expected one error, found {}", outcome.stderr) };
    for needle in needles {
        assert!(line.contains(needle), "{what}: {needle:?} is not in {line}");
    }
    assert!(outcome.stdout.is_empty(), "{what}: {}", outcome.stdout);
    assert_eq!(place.listing(""), before, "{what}: something is left behind or gone");
}

/// A file, its content, further arguments, and what the message names.
type Case<'a> = (&'a str, &'a [u8], &'a [&'a str], &'a [&'a str]);

/// Makes one training file after the other and trains on it.
#[test]
fn bad_training_data_is_refused() {
    let place = Place::new("bad-data");
    let regression = ["--set", "app.problem=regression"];
    let cases: [Case<'_>; 16] = [
        ("empty.tsv", b"", &[], &["empty.tsv", "an empty file"]),
        ("header.tsv", b"text\tlabel\n", &[], &["header.tsv", "at least one row"]),
        ("one.tsv", b"text\tlabel\na\tx\nb\tx\n", &[], &["one.tsv", "two classes", "x"]),
        ("utf8.tsv", b"text\tlabel\na\tx\nb\xff\ty\n", &[], &["utf8.tsv", "line 3", "UTF-8"]),
        ("cells.tsv", b"text\tlabel\na\tx\nb\n", &[], &["cells.tsv", "line 3", "2 columns"]),
        (
            "columns.tsv",
            b"a\tlabel\nb\tx\n",
            &[],
            &["columns.tsv", "`text`", "`a`, `label`", "--text"],
        ),
        ("nolabel.tsv", b"text\tb\na\tx\n", &[], &["nolabel.tsv", "label", "`text`, `b`"]),
        (
            "named.tsv",
            b"text\tlabel\na\tx\n",
            &["--label", "lable"],
            &["named.tsv", "--label label"],
        ),
        ("twice.tsv", b"text\ttext\na\tx\n", &[], &["twice.tsv", "line 1", "`text` twice"]),
        (
            "nolabels.tsv",
            b"text\tlabel\na\tx\nb\t\n",
            &[],
            &["nolabels.tsv", "line 3, column `label`", "found the cell is empty"],
        ),
        ("quote.csv", b"text,label\na,x\n\"b,y\n", &[], &["quote.csv", "line 3", "quote"]),
        (
            "broken.jsonl",
            b"{\"text\":\"a\",\"label\":\"x\"}\n{\"text\"\n",
            &[],
            &["broken.jsonl", "line 2"],
        ),
        (
            "list.jsonl",
            b"{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":[1],\"label\":\"y\"}\n",
            &[],
            &["list.jsonl", "line 2", "text"],
        ),
        ("nan.tsv", b"text\tlabel\na\t0.5\nb\tNaN\n", &regression, &["nan.tsv", "line 3", "NaN"]),
        (
            "word.tsv",
            b"text\tlabel\na\t0.5\nb\tgood\n",
            &regression,
            &["word.tsv", "line 3", "good"],
        ),
        ("cut.tsv.gz", b"\x1f\x8b\x08\x00\x00", &[], &["cut.tsv.gz"]),
    ];
    for (name, content, more, needles) in cases {
        place.write(name, content);
        let before = place.listing("");
        let outcome = place.train("out", &[&["--train", name][..], more].concat());
        refused(&place, &before, name, &outcome, needles);
    }
    let before = place.listing("");
    for (more, needles) in [
        (&["--train", "missing.tsv"][..], &["missing.tsv"][..]),
        (&["--train", "encoder"], &["encoder", "directory"]),
        (&["--valid", "missing.tsv"], &["missing.tsv"]),
        (&["--schema", "content:str"], &["schema", "name:type:length"]),
    ] {
        refused(&place, &before, needles[0], &place.train("out", more), needles);
    }
    place.write("valid.tsv", "text\tlabel\nhello\tgreeting\nhello\tgreetings\n");
    let before = place.listing("");
    let outcome = place.train("out", &["--valid", "valid.tsv"]);
    refused(
        &place,
        &before,
        "unknown label",
        &outcome,
        &["valid.tsv", "line 3", "greetings", "greeting"],
    );
    // Values that look like a message do not change what is said of them.
    for label in ["text: x", "x, found y", "text_pair: expected a, found b"] {
        place.write("valid.tsv", format!("text\tlabel\nhello\tgreeting\nhello\t{label}\n"));
        let before = place.listing("");
        let outcome = place.train("out", &["--valid", "valid.tsv"]);
        let found = format!("found \"{label}\"; correct the row");
        let needles = ["line 3, column `label`: expected one of [", &found];
        refused(&place, &before, label, &outcome, &needles);
    }
}

#[test]
fn bad_rows_can_be_skipped() {
    let place = Place::new("skip");
    place.write("rows.tsv", b"text\tlabel\na\tx\nb\nc\t\nd\xff\tx\ne\ty\n");
    let skip = [
        "--train",
        "rows.tsv",
        "--valid",
        "rows.tsv",
        "--on-bad-row",
        "skip",
        "--set",
        "max_steps=1",
    ];
    let said = place.train("out", &skip).good("skip");
    assert!(said.contains("rows left out: 6"), "three in each of two files: {said}");
}

#[test]
fn bad_options_are_refused() {
    let place = Place::new("bad-options");
    place.write("run.toml", "seed = 1\nepoch = 3\n");
    place.write("broken.toml", "seed = 1\nlr = = 3\n");
    place.write("type.toml", "[batch]\nrows = \"many\"\n");
    let before = place.listing("");
    let cases: [(&[&str], &[&str]); 22] = [
        (&["--set", "epoch=3"], &["--set", "`epoch`", "did you mean `epochs`?"]),
        (&["--set", "batch.row=3"], &["`batch.row`", "did you mean `rows`?"]),
        (&["--set", "epochs"], &["--set", "epochs", "no `=`"]),
        (&["--set", "epochs=0"], &["epochs", "0"]),
        (&["--set", "lr=fast"], &["lr", "fast"]),
        (&["--set", "schedule.name=linea"], &["schedule.name", "linea"]),
        (&["--set", "schedule.warmup=1.5"], &["schedule.warmup", "1.5"]),
        (&["--set", "app.max_len=9"], &["app.max_len", "did you mean `max_length`?"]),
        (
            &["--set", "encoder.hidden_dropout=0"],
            &["encoder.hidden_dropout", "did you mean `hidden_dropout_prob`?"],
        ),
        (&["--set", "encoder.hidden_dropout_prob=none"], &["encoder.hidden_dropout_prob", "none"]),
        (
            &["--set", "optimizer.weight_deca=0"],
            &["optimizer.weight_deca", "did you mean `weight_decay`?"],
        ),
        (
            &["--set", "strategy.finetune.freez=[]"],
            &["strategy.finetune.freez", "did you mean `freeze`?"],
        ),
        (&["--set", "optimizer.name=adamv"], &["adamv", "adamw"]),
        (&["--set", "loss.name=cross-entrop"], &["cross-entrop", "cross-entropy"]),
        (&["--set", "strategy.finetun={}"], &["finetun", "finetune"]),
        (&["--app", "text-clasify"], &["text-clasify", "text-classify"]),
        (&["--config", "run.toml"], &["run.toml", "`epoch`", "did you mean `epochs`?"]),
        (&["--config", "broken.toml"], &["broken.toml", "line 2"]),
        (&["--config", "type.toml"], &["type.toml", "batch.rows", "many"]),
        (&["--config", "missing.toml"], &["missing.toml"]),
        (&["--config", "encoder"], &["encoder", "directory"]),
        (&["--device", "gpu"], &["--device", "`gpu`", "`cuda:N`"]),
    ];
    for (more, needles) in cases {
        refused(&place, &before, &format!("{more:?}"), &place.train("out", more), needles);
    }
    for arguments in
        [&["trian"][..], &["train"], &["train", "--bogus"], &["predict", "--format", "xml"]]
    {
        let outcome = place.easytransfer(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.stderr.starts_with("easytransfer: error: "), "{}", outcome.stderr);
    }
}

#[test]
fn bad_models_are_refused() {
    let place = Place::new("bad-models");
    place.train("app", &["--set", "max_steps=1"]).good("train");
    // Variants of the trained bundle, each with one fault.
    let weights = place.read("app/model.safetensors");
    let config = place.read_text("app/config.json");
    let manifest = place.read_text("app/easytransfer.json");
    let mut cut_header = weights.clone();
    cut_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let wider = config.replace("\"hidden_size\": 32", "\"hidden_size\": 64");
    assert_ne!(wider, config);
    let variants: [(&str, &str, &[u8], &[&str]); 9] = [
        ("cut", "model.safetensors", &weights[..weights.len() / 2], &["cut/model.safetensors"]),
        ("short", "model.safetensors", b"abc", &["short/model.safetensors"]),
        ("huge", "model.safetensors", &cut_header, &["huge/model.safetensors"]),
        ("shape", "config.json", wider.as_bytes(), &["shape", "32", "64"]),
        ("broken", "config.json", b"{\"model_type\": ", &["broken/config.json"]),
        ("typeless", "config.json", b"{}", &["typeless/config.json", "model_type"]),
        ("unknown", "config.json", b"{\"model_type\": \"bertt\"}", &["bertt", "bert"]),
        (
            "manifest",
            "easytransfer.json",
            &manifest.as_bytes()[..manifest.len() / 2],
            &["manifest/easytransfer.json"],
        ),
        ("format", "easytransfer.json", b"{\"format\": 99}", &["format/easytransfer.json", "99"]),
    ];
    for (name, file, content, _) in &variants {
        fs::create_dir(place.at(name)).unwrap();
        for entry in fs::read_dir(place.at("app")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, place.at(name).join(path.file_name().unwrap())).unwrap();
            }
        }
        place.write(&format!("{name}/{file}"), content);
    }
    let before = place.listing("");
    for (name, file, _, needles) in &variants {
        for output in ["out.tsv", "out.jsonl"] {
            let predict = ["predict", "--model", name, "--data", "dev.tsv", "--output", output];
            refused(
                &place,
                &before,
                &format!("predict {name}"),
                &place.easytransfer(&predict),
                needles,
            );
        }
        let evaluate = ["evaluate", "--model", name, "--data", "dev.tsv", "--report", "out.html"];
        refused(
            &place,
            &before,
            &format!("evaluate {name}"),
            &place.easytransfer(&evaluate),
            needles,
        );
        if *file != "easytransfer.json" {
            let train = place.train("out", &["--encoder", name]);
            refused(&place, &before, &format!("train {name}"), &train, needles);
            let embed = ["embed", "--encoder", name, "--data", "dev.tsv", "--output", "out.npy"];
            refused(
                &place,
                &before,
                &format!("embed {name}"),
                &place.easytransfer(&embed),
                needles,
            );
        }
    }
    for (arguments, needles) in [
        (&["predict", "--model", "nowhere", "--data", "dev.tsv"][..], &["nowhere"][..]),
        (
            &["predict", "--model", "dev.tsv", "--data", "dev.tsv"],
            &["dev.tsv", "easytransfer.json"],
        ),
        (
            &["predict", "--model", "encoder", "--data", "dev.tsv"],
            &["encoder", "easytransfer.json", "train"],
        ),
        (&["predict", "--model", "app", "--data", "nowhere.tsv"], &["nowhere.tsv"]),
        (
            &["predict", "--model", "app", "--data", "dev.tsv", "--output", "encoder"],
            &["encoder", "directory"],
        ),
        (
            &["predict", "--model", "app", "--data", "dev.tsv", "--output", "no/out.tsv"],
            &["no/out.tsv"],
        ),
        (
            &["predict", "--model", "app", "--data", "dev.tsv", "--output", "out.parquet"],
            &["out.parquet", "found .parquet", "--output-format"],
        ),
        (
            &["embed", "--encoder", "nowhere", "--data", "dev.tsv", "--output", "v.npy"],
            &["nowhere", "found nothing"],
        ),
        (
            &["embed", "--encoder", ".", "--data", "dev.tsv", "--output", "v.npy"],
            &["without config.json"],
        ),
        (
            &["embed", "--encoder", "encoder", "--data", "dev.tsv", "--output", "v.npy"],
            &["encoder"],
        ),
    ] {
        refused(
            &place,
            &before,
            &format!("{arguments:?}"),
            &place.easytransfer(arguments),
            needles,
        );
    }
    let missing = place.easytransfer(&[
        "train",
        "--encoder",
        "encoder",
        "--train",
        "train.tsv",
        "--output",
        "out",
    ]);
    refused(
        &place,
        &before,
        "encoder without weights",
        &missing,
        &["encoder", "model.safetensors"],
    );
    let file = place.train("dev.tsv", &[]);
    refused(&place, &before, "output is a file", &file, &["dev.tsv"]);
}
