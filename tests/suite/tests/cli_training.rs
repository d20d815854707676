//! The command line: what the options of a training run do.

use std::collections::BTreeSet;

use easytransfer_tests::command::Place;

/// Names of the tensors that differ between two bundles of the same shapes.
fn changed(place: &Place, before: &str, after: &str) -> BTreeSet<String> {
    let (before, after) = (place.tensors(before), place.tensors(after));
    assert!(before.keys().eq(after.keys()), "{:?} and {:?}", before.keys(), after.keys());
    before
        .iter()
        .filter(|(name, bytes)| after[*name] != **bytes)
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn steps_follow_epochs_batches_and_accumulation() {
    let place = Place::new("steps");
    // 480 rows in batches of at most 32, and short enough for the limit of tokens: 15 batches.
    for (settings, steps) in [
        (&["max_steps=0", "epochs=1"][..], 15),
        (&["max_steps=0", "epochs=2", "batch.rows=48"], 20),
        (&["max_steps=0", "epochs=1", "accumulate=4"], 4),
        (&["max_steps=7", "accumulate=2"], 7),
    ] {
        let more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let said = place.train("run", &more).good(&format!("{settings:?}"));
        assert!(said.starts_with(&format!("trained {steps} steps")), "{settings:?}: {said}");
        assert_eq!(place.curve("run", "train/loss").len(), steps, "{settings:?}");
    }
}

#[test]
fn accumulated_small_batches_are_one_large_batch() {
    let place = Place::new("accumulate");
    let rows: Vec<String> =
        place.read_text("train.tsv").lines().take(33).map(str::to_owned).collect();
    place.write("few.tsv", format!("{}\n", rows.join("\n")));
    // All 32 rows make the one step, whatever their order.
    let run = |output: &str, batches: &[&str]| {
        let mut more = vec!["--train", "few.tsv", "--valid", "few.tsv"];
        let settings = ["max_steps=1", "schedule.warmup=0", "clip=0", "optimizer.name=sgd"];
        let no_dropout =
            ["encoder.hidden_dropout_prob=0", "encoder.attention_probs_dropout_prob=0"];
        more.extend(
            settings
                .iter()
                .chain(&no_dropout)
                .chain(batches)
                .flat_map(|setting| ["--set", setting]),
        );
        place.train(output, &more).good(output);
        (place.curve(output, "train/loss")[0], place.tensors(output))
    };
    let (large, large_weights) = run("large", &["batch.rows=32"]);
    let (small, small_weights) = run("small", &["batch.rows=8", "accumulate=4"]);
    // The bundle says what its encoder was trained with.
    let config = place.read_text("large/config.json");
    assert!(!config.contains("0.1"), "{config}");
    assert!((large - small).abs() < 1e-5, "{large} {small}");
    for (name, bytes) in &large_weights {
        for (a, b) in bytes.chunks(4).zip(small_weights[name].chunks(4)) {
            let [a, b] = [a, b].map(|four| f32::from_le_bytes(four.try_into().unwrap()));
            assert!((a - b).abs() < 1e-6, "{name}: {a} {b}");
        }
    }
}

#[test]
fn training_stops_when_nothing_improves() {
    let place = Place::new("early");
    let settings = ["max_steps=15", "evaluate_every=1", "patience=3", "lr=1e-12"];
    let more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let said = place.train("run", &more).good("train");
    // The first evaluation is the best there is; three more bring nothing.
    assert!(said.starts_with("trained 4 steps") && said.contains("kept step 1"), "{said}");
    assert_eq!(place.curve("run", "valid/accuracy").len(), 4);
}

#[test]
fn schedules_have_their_shapes() {
    let place = Place::new("schedule");
    for name in ["constant", "linear", "polynomial", "cosine"] {
        let schedule = format!("schedule.name={name}");
        let settings = [&schedule, "schedule.warmup=3", "schedule.power=2"];
        let more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        place.train("run", &more).good(name);
        let rates = place.curve("run", "train/lr");
        assert_eq!(rates.len(), 12);
        assert!(rates[..4].windows(2).all(|pair| pair[0] < pair[1]), "{name}: {rates:?}");
        assert_eq!(rates[3], 1e-3, "{name}: the peak is after the warm-up");
        let down = rates[4..].windows(2).all(|pair| pair[0] > pair[1]);
        let flat = rates[4..].iter().all(|rate| *rate == 1e-3);
        assert!(if name == "constant" { flat } else { down }, "{name}: {rates:?}");
    }
}

#[test]
fn every_optimizer_lowers_the_loss() {
    let place = Place::new("optimizer");
    for (name, lr, more) in [
        ("adamw", "lr=3e-3", "optimizer.weight_decay=0.01"),
        ("adam", "lr=3e-3", "optimizer.epsilon=1e-8"),
        ("sgd", "lr=0.1", "optimizer.momentum=0.9"),
        ("lamb", "lr=3e-2", "optimizer.weight_decay=0.01"),
        ("adafactor", "lr=1e-2", "optimizer.clip_threshold=1"),
    ] {
        let optimizer = format!("optimizer.name={name}");
        let settings = [&optimizer, lr, more, "max_steps=0", "epochs=8"];
        let mut more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        if name == "sgd" {
            // From random weights plain gradients need thousands of steps to leave the plateau.
            more.extend(["--encoder", "adamw"]);
        }
        place.train(name, &more).good(name);
        let losses = place.curve(name, "train/loss");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..15]), mean(&losses[105..]));
        assert!(last < first - 0.3, "{name}: from {first} to {last}");
    }
}

#[test]
fn frozen_weights_stay_as_they_are() {
    let place = Place::new("freeze");
    place.train("start", &[]).good("start");
    let run = |output: &str, settings: &[&str]| {
        let mut more = vec!["--encoder", "start"];
        more.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        place.train(output, &more).good(output);
        changed(&place, "start", output)
    };
    let all = run("all", &[]);
    assert!(all.iter().any(|name| name.contains("word_embeddings")), "{all:?}");
    let head = run(
        "head",
        &["strategy.finetune.freeze=[\"*\"]", "strategy.finetune.unfreeze=[\"classifier\"]"],
    );
    assert!(
        !head.is_empty() && head.iter().all(|name| name.starts_with("classifier.")),
        "{head:?}"
    );
    let top = run("top", &["strategy.finetune.freeze_layers=1"]);
    assert!(
        top.iter().all(|name| name.starts_with("classifier.") || name.contains("pooler")),
        "{top:?}"
    );
    let lora = run("lora", &["strategy.finetune.lora_rank=4", "lr=1e-2"]);
    let merged = ["query.weight", "value.weight"];
    for part in merged {
        assert!(lora.iter().any(|name| name.ends_with(part)), "{part} did not change: {lora:?}");
    }
    let is_target = |name: &str| merged.iter().any(|part| name.ends_with(part));
    assert!(lora.iter().all(|name| is_target(name) || name.starts_with("classifier.")), "{lora:?}");
    // The merged bundle answers as the run measured.
    let kept = place.read_json("lora/easytransfer.json")["metrics"]["accuracy"].clone();
    let arguments = ["evaluate", "--model", "lora", "--data", "dev.tsv", "--json"];
    let found: serde_json::Value =
        serde_json::from_str(&place.easytransfer(&arguments).good("evaluate")).unwrap();
    assert_eq!(found["metrics"]["accuracy"], kept);
    let typo = ["--encoder", "start", "--set", "strategy.finetune.freeze=[\"bert.encoder.*\"]"];
    let typo = place.train("typo", &typo);
    assert!(typo.code == 2 && typo.stderr.contains("bert.encoder.*"), "{}", typo.stderr);
    assert!(!place.at("typo").exists());
}

#[test]
fn a_student_learns_from_a_teacher() {
    let place = Place::new("distill");
    place.train("teacher", &["--set", "max_steps=30"]).good("teacher");
    let distill =
        ["--set", "strategy.distill.teacher=teacher", "--set", "strategy.distill.alpha=0.25"];
    place.train("student", &distill).good("student");
    let parts = ["train/loss", "train/loss/loss", "train/loss/distill"];
    let [whole, own, soft] = parts.map(|name| place.curve("student", name));
    assert_eq!((whole.len(), own.len(), soft.len()), (12, 12, 12));
    for ((whole, own), soft) in whole.iter().zip(&own).zip(&soft) {
        assert!((whole - (0.75 * own + 0.25 * soft)).abs() < 1e-4, "{whole} {own} {soft}");
        assert!(*soft >= 0.0);
    }
    place.write("two.tsv", "text\tlabel\na\tx\nb\ty\nc\tx\nd\ty\n");
    let other = place
        .train("other", &[&distill[..], &["--train", "two.tsv", "--valid", "two.tsv"]].concat());
    assert_eq!(other.code, 2, "{}", other.stderr);
    assert!(
        other.stderr.contains("teacher") && other.stderr.contains("labels"),
        "{}",
        other.stderr
    );
    assert!(!place.at("other").exists());
}

#[test]
fn a_student_learns_each_label_by_itself() {
    let place = Place::new("distill-labels");
    let none: String = ["a", "b", "d", "e", "f"]
        .map(|text| format!("{{\"text\":\"{text}\",\"label\":[]}}\n"))
        .concat();
    let all = "{\"text\":\"c c\",\"label\":[\"x\",\"y\",\"z\"]}\n";
    place.write("teacher.jsonl", format!("{none}{all}"));
    place.write(
        "student.jsonl",
        "{\"text\":\"a\",\"label\":[\"x\"]}\n{\"text\":\"b\",\"label\":[\"z\"]}\n",
    );
    let labels = "app.labels=[\"x\",\"y\",\"z\"]";
    // No validation data: the last parameters are kept, not those with the best labels.
    let run = |output: &str, file: &str, more: &[&str]| {
        let start = ["train", "--encoder", "encoder", "--from-scratch", "--quiet"];
        let data = ["--output", output, "--train", file, "--set", "app.problem=multi-label"];
        let long = ["--set", labels, "--set", "lr=5e-3", "--set", "epochs=60"];
        place.easytransfer(&[&start[..], &data, &long, more].concat())
    };
    run("teacher", "teacher.jsonl", &[]).good("teacher");
    let distill =
        ["--set", "strategy.distill.teacher=teacher", "--set", "strategy.distill.alpha=1"];
    run("student", "student.jsonl", &distill).good("student");
    let probabilities = |model: &str| -> Vec<f64> {
        let said = place
            .easytransfer(&["predict", "--model", model, "--data", "student.jsonl"])
            .good(model);
        let rows =
            said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        rows.flat_map(|row| {
            ["x", "y", "z"].map(|label| row["probabilities"][label].as_f64().unwrap())
        })
        .collect()
    };
    let (teacher, student) = (probabilities("teacher"), probabilities("student"));
    // The softmax of three like logits would say a third, whatever they are.
    assert!(teacher.iter().all(|p| *p < 0.25), "{teacher:?}");
    for (a, b) in teacher.iter().zip(&student) {
        assert!((a - b).abs() < 0.05, "{teacher:?} {student:?}");
    }
    place.write("classes.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n{\"text\":\"c\",\"label\":\"z\"}\n");
    let data = ["--train", "classes.jsonl", "--valid", "classes.jsonl"];
    let refused = place.train("other", &[&data[..], &distill].concat());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("app.problem"), "{}", refused.stderr);
}

#[test]
fn a_run_that_trains_nothing_says_so() {
    let place = Place::new("nothing");
    let said = place.train("run", &["--set", "max_steps=1"]);
    let warning = said.stderr.clone();
    said.good("one step");
    for part in ["nothing is trained", "schedule.warmup = 0.1", "schedule.warmup=0"] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    for more in [
        ["--set", "max_steps=2", "--set", "seed=1"],
        ["--set", "max_steps=1", "--set", "schedule.warmup=0"],
    ] {
        let said = place.train("run", &more);
        assert!(!said.stderr.contains("nothing is trained"), "{more:?}: {}", said.stderr);
    }
}

#[test]
fn numbers_lists_and_pairs_are_learned_too() {
    let place = Place::new("problems");
    let rows = |row: fn(usize) -> String| (0..40).map(row).collect::<String>();
    place.write(
        "number.tsv",
        format!("text\tscore\n{}", rows(|i| format!("refund {i}\t{}\n", i as f64 / 40.0))),
    );
    place.write(
        "lists.tsv",
        format!(
            "text\tlabels\n{}",
            rows(|i| format!("order {i}\t{}\n", ["a", "a,b", "b,c", "c"][i % 4]))
        ),
    );
    place.write(
        "pairs.tsv",
        format!("text\ttext_pair\tlabel\n{}", rows(|i| format!("a {i}\tb {}\t{}\n", i / 2, i % 2))),
    );
    for (file, problem, key) in [
        ("number.tsv", "app.problem=regression", "value"),
        ("lists.tsv", "app.problem=multi-label", "labels"),
        ("pairs.tsv", "app.problem=multi-class", "score"),
    ] {
        let data = ["--train", file, "--valid", file, "--set", problem, "--set", "max_steps=2"];
        place.train("app", &data).good(file);
        let said = place.easytransfer(&["predict", "--model", "app", "--data", file]).good(file);
        assert_eq!(said.lines().count(), 40);
        assert!(said.lines().all(|line| line.contains(&format!("\"{key}\":"))), "{said}");
    }
}

#[test]
fn best_must_be_a_figure_before_the_first_step() {
    let place = Place::new("best");
    let refused = place.train("run", &["--set", "best=acuracy"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for part in ["best", "\"acuracy\"", "\"macro_f1\"", "`accuracy`"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!place.at("run/logs").exists(), "training had begun");
    place.train("run", &["--set", "best=loss"]).good("loss is a figure too");
    let arguments: Vec<&str> = vec![
        "train",
        "--encoder",
        "encoder",
        "--output",
        "alone",
        "--quiet",
        "--train",
        "train.tsv",
        "--from-scratch",
        "--set",
        "best=accuracy",
    ];
    let refused = place.easytransfer(&arguments);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--valid"), "{}", refused.stderr);
}

#[test]
fn best_goes_the_way_that_the_metric_says() {
    let place = Place::new("best-way");
    let rows: String = (0..40).map(|i| format!("word {i}\t{}\n", f64::from(i % 7) / 7.0)).collect();
    place.write("number.tsv", format!("text\tlabel\n{rows}"));
    for (name, lower) in [("mse", true), ("loss", true), ("pearson", false)] {
        let best = format!("best={name}");
        // A rate at which figures go up and down.
        let settings = [
            "app.problem=regression",
            &best,
            "epochs=4",
            "max_steps=8",
            "evaluate_every=1",
            "lr=0.03",
        ];
        let mut more = vec!["--train", "number.tsv", "--valid", "number.tsv"];
        more.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let said = place.train("run", &more).good(name);
        let figures = place.curve("run", &format!("valid/{name}"));
        assert_eq!(figures.len(), 8);
        let better = |a: f64, b: f64| if lower { a < b } else { a > b };
        let mut kept = 0;
        for (step, figure) in figures.iter().enumerate() {
            if better(*figure, figures[kept]) {
                kept = step;
            }
        }
        assert!(said.contains(&format!("kept step {}", kept + 1)), "{name}: {figures:?}: {said}");
    }
}

#[test]
fn set_completes_and_corrects_the_configuration_file() {
    let place = Place::new("complete");
    place.write("open.toml", "[loss]\nlabel_smoothing = 0.1\n");
    let config = ["--config", "open.toml"];
    let refused = place.train("run", &config);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("open.toml") && refused.stderr.contains("loss"),
        "{}",
        refused.stderr
    );
    place
        .train("run", &[&config[..], &["--set", "loss.name=cross-entropy"]].concat())
        .good("completed by --set");
    place.write("wrong.toml", "epochs = 0\n");
    let config = ["--config", "wrong.toml"];
    let refused = place.train("run", &config);
    assert!(refused.code == 2 && refused.stderr.contains("wrong.toml"), "{}", refused.stderr);
    place.train("run", &[&config[..], &["--set", "epochs=1"]].concat()).good("corrected by --set");
    // What `--set` spoils is told of `--set`.
    let refused = place.train(
        "run",
        &["--config", "open.toml", "--set", "loss.name=cross-entropy", "--set", "epochs=0"],
    );
    assert!(refused.code == 2 && refused.stderr.contains("epochs"), "{}", refused.stderr);
}

#[test]
fn bf16_trains_nearly_as_f32_does_and_repeats_to_the_byte() {
    let place = Place::new("bf16");
    // Layers of fewer than 128 outputs stay in f32.
    let config = place.read_text("encoder/config.json");
    let config = config.replace(r#""hidden_size":32"#, r#""hidden_size":128"#);
    place.write("encoder/config.json", config.replace("_size\":64", "_size\":256"));
    let run = |output: &str, precision: &str| {
        place.train(output, &["--precision", precision]).good(output);
        (place.curve(output, "train/loss"), place.tensors(output))
    };
    let ((exact, weights), (rounded, first), (_, second)) =
        (run("f32", "f32"), run("first", "bf16"), run("second", "bf16"));
    assert!(first == second, "two runs differ");
    assert!(first != weights, "nothing was rounded");
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!((exact - rounded).abs() < 1e-2, "{exact} {rounded}");
    }
}
