//! What a program in Rust asks of the facade: options checked however they were set, records from memory, one callback
//! for events, work on files that can be watched and ended, errors with kinds, typed answers.

use std::sync::{Arc, Mutex};

use easytransfer::train::data::records::{OnBadRow, ReadOptions};
use easytransfer::{
    Answer, Classification, Control, Data, DataSource, EmbedOptions, Error, ErrorKind, Event,
    Record, Runtime, Start, TextSpan, TrainConfig, TrainJob, Watch,
};
use easytransfer_tests::command::Place;
use easytransfer_tests::linked;
use serde_json::{Value, json};

fn small(more: Value) -> Value {
    let mut config = json!({"max_steps": 6, "lr": 1e-3, "log_every": 1, "evaluate_every": 3,
        "batch": {"rows": 64}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The records of a table.
fn records(place: &Place, name: &str) -> Vec<Record> {
    let text = place.read_text(name);
    let mut lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let record = |cells: Vec<&str>| {
        let pairs = names.iter().zip(cells);
        pairs.map(|(name, cell)| ((*name).to_owned(), Value::from(cell))).collect()
    };
    lines.map(record).collect()
}

/// Writes the same records as a file of JSON Lines.
fn as_lines(place: &Place, name: &str, records: &[Record]) {
    let lines: Vec<String> =
        records.iter().map(|record| Value::Object(record.clone()).to_string()).collect();
    place.write(name, lines.join("\n"));
}

#[test]
fn a_run_refuses_options_that_were_set_by_hand() {
    let place = Place::new("by-hand");
    let runtime = linked::runtime();
    type Set = fn(&mut TrainJob);
    let cases: [(Set, &str); 10] = [
        (|job| job.config.accumulate = 0, "option `accumulate`: expected an integer at least 1"),
        (|job| job.config.lr = Some(-1.0), "option `lr`: expected a number or null above 0"),
        (|job| job.config.epochs = 0, "option `epochs`: expected an integer at least 1"),
        (|job| job.config.clip = f64::NAN, "option `clip`: expected a finite number, found `NaN`"),
        (|job| job.config.schedule.warmup = 1.5, "option `schedule.warmup`: expected a part"),
        (|job| job.config.schedule.name = "liner".to_owned(), "did you mean `linear`?"),
        (|job| job.train = Data::default(), "option `train`: expected a file or records"),
        (|job| job.output = "".into(), "option `output`: expected the directory"),
        (
            |job| drop(job.valid_data.named.insert("text".to_owned(), String::new())),
            "option `columns.text`: expected the name of a role and of its column",
        ),
        (|job| job.app = String::new(), "option `app`: expected the name of an app"),
    ];
    for (set, expected) in cases {
        let mut job = place.job("text-classify", "refused", small(json!({})));
        set(&mut job);
        let error = runtime.train(job).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(matches!(error.kind(), ErrorKind::BadInput { place } if place.option.is_some()));
        assert!(!place.at("refused").exists());
    }
    let options = EmbedOptions { max_length: Some(0), ..EmbedOptions::default() };
    let error = runtime.embedder(&place.at("encoder"), options).err().unwrap();
    assert!(error.to_string().contains("`max_length`: expected an integer or null at least 1"));
}

#[test]
fn records_in_memory_train_evaluate_and_predict_to_the_same_bytes() {
    let place = Place::new("memory");
    let runtime = linked::runtime();
    let (train, dev) = (records(&place, "train.tsv"), records(&place, "dev.tsv"));
    as_lines(&place, "train.jsonl", &train);
    as_lines(&place, "dev.jsonl", &dev);
    let job = |output: &str, train: Data, valid: Data| {
        let mut job = place.job("text-classify", output, small(json!({})));
        (job.train, job.valid) = (train, Some(valid));
        job
    };
    let of = |name: &str| Data::from(place.at(name));
    let a = runtime.train(job("files", of("train.jsonl"), of("dev.jsonl"))).unwrap();
    let b = runtime.train(job("memory", train.into(), dev.clone().into())).unwrap();
    assert_eq!((a.steps, &a.metrics, a.tokens), (b.steps, &b.metrics, b.tokens));
    for file in ["model.safetensors", "easytransfer.json", "logs/metrics.jsonl", "config.json"] {
        assert!(place.read(&format!("files/{file}")) == place.read(&format!("memory/{file}")));
    }
    let app = runtime.app(&place.at("memory")).unwrap();
    let (file, memory) = (DataSource::from(of("dev.jsonl")), DataSource::from(dev.clone()));
    let found = app.evaluate(&memory, None).unwrap();
    assert_eq!(found, app.evaluate(&file, None).unwrap());
    assert_eq!(found.rows, dev.len());
    for name in ["file.tsv", "memory.tsv"] {
        let from = if name == "file.tsv" { &file } else { &memory };
        assert_eq!(app.predict_file(from, &place.at(name), None).unwrap(), dev.len());
    }
    assert!(place.read("file.tsv") == place.read("memory.tsv"));
    // And one by one.
    let answers = app.predict_records(&dev).unwrap();
    let labels: Vec<&str> = place.read_text("memory.tsv").leak().lines().skip(1).collect();
    for (line, answer) in labels.iter().zip(&answers) {
        assert_eq!(line.split('\t').nth(1), answer.label().as_deref());
    }
    let embedder = runtime.embedder(&place.at("memory"), EmbedOptions::default()).unwrap();
    embedder.embed_file(&file, &place.at("file.npy")).unwrap();
    embedder.embed_file(&memory, &place.at("memory.npy")).unwrap();
    assert!(place.read("file.npy") == place.read("memory.npy"));
}

#[test]
fn a_bad_record_in_memory_is_named_or_left_out() {
    let place = Place::new("memory-bad");
    let runtime = linked::runtime();
    let mut train = records(&place, "train.tsv");
    train[7].remove("label");
    let job = |on_bad_row| {
        let mut job = place.job("text-classify", "out", small(json!({"overwrite": true})));
        job.train = train.clone().into();
        job.train_data.read = ReadOptions { on_bad_row, ..ReadOptions::default() };
        job
    };
    let error = runtime.train(job(OnBadRow::Stop)).unwrap_err();
    assert!(error.to_string().starts_with("record 7, column `label`: expected"), "{error}");
    let ErrorKind::BadInput { place: at } = error.kind() else { panic!("{error:?}") };
    assert_eq!(
        (at.record, at.line, at.path, at.column.as_deref()),
        (Some(7), None, None, Some("label"))
    );
    assert_eq!(runtime.train(job(OnBadRow::Skip)).unwrap().skipped_rows, 1);
    let none = TrainJob::new(place.at("encoder"), Vec::<Record>::new(), place.at("none"));
    let error = runtime.train(none).unwrap_err().to_string();
    assert!(error.contains("the records in memory: expected at least one, found none"), "{error}");
}

/// Kinds of the events of a run, in order.
fn kinds(events: &[Event]) -> Vec<String> {
    let kind =
        |event: &Event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned();
    events.iter().map(kind).collect()
}

fn watched(
    runtime: &Runtime,
    job: TrainJob,
    stop_at: &str,
) -> (easytransfer::Result<()>, Vec<Event>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (all, stop_at) = (seen.clone(), stop_at.to_owned());
    let result = runtime.train(job.on_event(move |event| {
        all.lock().unwrap().push(event.clone());
        kinds(std::slice::from_ref(event))[0] != stop_at
    }));
    let events = seen.lock().unwrap().clone();
    (result.map(drop), events)
}

#[test]
fn one_callback_is_told_of_everything_and_may_end_the_run_anywhere() {
    let place = Place::new("events");
    let runtime = linked::runtime();
    let config = || {
        small(
            json!({"max_steps": 0, "epochs": 2, "batch": {"rows": 128, "tokens": 65536}, "evaluate_every": 2,
            "checkpoint_every": 3}),
        )
    };
    let job = |output: &str| place.job("text-classify", output, config());
    let (result, events) = watched(&runtime, job("whole"), "never");
    result.unwrap();
    let Event::Start { step: 0, total_steps, epochs: 2, rows } = &events[0] else {
        panic!("{:?}", events[0])
    };
    let count = |kind: &str| kinds(&events).iter().filter(|one| *one == kind).count() as u64;
    assert_eq!(count("step"), *total_steps);
    assert_eq!((count("epoch"), count("start")), (2, 1));
    assert_eq!(*rows, records(&place, "train.tsv").len() as u64);
    let evaluations = events.iter().filter_map(|event| match event {
        Event::Evaluation { step, metrics, .. } => {
            Some((*step, metrics["accuracy"].as_f64().unwrap()))
        }
        _ => None,
    });
    let evaluations: Vec<_> = evaluations.collect();
    let written: Vec<f64> = place.curve("whole", "valid/accuracy");
    assert_eq!(evaluations.iter().map(|(_, accuracy)| *accuracy).collect::<Vec<_>>(), written);
    let losses: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Step(info) => Some(info.loss),
            _ => None,
        })
        .collect();
    assert_eq!(losses, place.curve("whole", "train/loss"));
    // A step is told before what follows from it.
    let at = |kind: &str| kinds(&events).iter().position(|one| one == kind).unwrap();
    assert!(
        at("start") < at("step")
            && at("step") < at("evaluation")
            && at("evaluation") < at("checkpoint")
    );

    let weights = place.read("whole/model.safetensors");
    for stop_at in ["start", "step", "evaluation", "epoch", "checkpoint"] {
        let output = format!("stopped-{stop_at}");
        let (result, events) = watched(&runtime, job(&output), stop_at);
        assert!(matches!(result, Err(Error::Cancelled)), "{stop_at}: {result:?}");
        assert!(kinds(&events).contains(&stop_at.to_owned()));
        assert!(!place.at(&output).join("easytransfer.json").exists());
        runtime.train(job(&output).with_resume()).unwrap();
        assert!(place.read(&format!("{output}/model.safetensors")) == weights, "{stop_at}");
    }
}

#[test]
fn warnings_reach_the_caller() {
    let place = Place::new("warnings");
    let runtime = linked::runtime();
    let job = place.job("text-classify", "cold", small(json!({"max_steps": 1})));
    let (result, events) = watched(&runtime, job, "never");
    result.unwrap();
    let warned = events.iter().any(
        |event| matches!(event, Event::Warning { message } if message.contains("nothing is trained")),
    );
    assert!(warned, "{events:?}");
    let app = runtime.app(&place.at("cold")).unwrap();
    assert!(app.warnings().is_empty());
    // The same weights and one that nothing knows.
    let bytes = place.read("cold/model.safetensors");
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let data = bytes.len() - end;
    header["foreign.weight"] =
        json!({"dtype": "F32", "shape": [1], "data_offsets": [data, data + 4]});
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let weights = [&length[..], header.as_bytes(), &bytes[end..], &[0; 4]].concat();
    place.write("encoder/model.safetensors", weights);
    let embedder = runtime.embedder(&place.at("encoder"), EmbedOptions::default()).unwrap();
    let said = embedder.warnings().join("\n");
    assert!(said.contains("nothing uses") && said.contains("foreign.weight"), "{said}");
    let mut job = place.job("text-classify", "warm", small(json!({"max_steps": 2})));
    job.start = Start::Encoder;
    let (result, events) = watched(&runtime, job, "never");
    result.unwrap();
    assert!(events.contains(&Event::Warning { message: said }), "{events:?}");
}

#[test]
fn work_on_files_is_told_of_and_ends_without_a_trace() {
    let place = Place::new("watch");
    let runtime = linked::runtime();
    runtime.train(place.job("text-classify", "app", small(json!({"max_steps": 2})))).unwrap();
    let dev = records(&place, "dev.tsv");
    let many: Vec<Record> = dev.iter().cycle().take(2000).cloned().collect();
    let (known, file) = (DataSource::from(many.clone()), "many.jsonl");
    as_lines(&place, file, &many);
    let unknown = DataSource::from(place.at(file));
    let app = runtime.app(&place.at("app")).unwrap();
    let embedder = runtime.embedder(&place.at("app"), EmbedOptions::default()).unwrap();
    let mut seen: Vec<(u64, Option<u64>)> = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Rows { done, total } = event {
            seen.push((*done, *total));
        }
        Control::Continue
    };
    app.predict_file_watched(&unknown, &place.at("a.tsv"), None, &mut Watch::new(&mut note))
        .unwrap();
    assert_eq!(seen.last(), Some(&(2000, None)));
    assert!(seen.len() > 2 && seen.is_sorted(), "{seen:?}");
    seen.clear();
    let mut note = |event: &Event| {
        if let Event::Rows { done, total } = event {
            seen.push((*done, *total));
        }
        Control::Continue
    };
    app.evaluate_watched(&known, None, &mut Watch::new(&mut note)).unwrap();
    assert_eq!(seen.last(), Some(&(2000, Some(2000))));

    let mut calls = 0;
    let mut stop = |_: &Event| {
        calls += 1;
        Control::from(calls % 2 != 0)
    };
    let before = place.listing("");
    let ended = |result: easytransfer::Result<()>| {
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert_eq!(place.listing(""), before);
    };
    let mut watch = Watch::new(&mut stop);
    ended(app.predict_file_watched(&known, &place.at("b.csv"), None, &mut watch).map(drop));
    ended(app.predict_file_watched(&unknown, &place.at("b.jsonl"), None, &mut watch).map(drop));
    let page = place.at("page.html");
    ended(app.evaluate_watched(&known, Some(&page), &mut watch).map(drop));
    for name in ["v.npy", "v.jsonl"] {
        ended(embedder.embed_file_watched(&unknown, &place.at(name), &mut watch).map(drop));
    }
    assert_eq!(calls, 10);
}

#[test]
fn errors_have_kinds_and_speak_of_no_flags() {
    let place = Place::new("kinds");
    let runtime = linked::runtime();
    let error = |result: easytransfer::Result<()>| result.unwrap_err();
    let missing = error(runtime.app(&place.at("nowhere")).map(drop));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let component = error(runtime.loss("cross-entropi", "").map(drop));
    assert_eq!(component.kind(), ErrorKind::NotFound);
    assert!(component.to_string().contains("cross-entropy"), "{component}");
    std::fs::create_dir(place.at("broken")).unwrap();
    place.write("broken/plugin.toml", "id = 3");
    let load = error(runtime.load_plugin(&place.at("broken")).map(drop));
    assert!(matches!(load.kind(), ErrorKind::Load { .. }), "{load:?}");
    let no_file = TrainJob::new(place.at("encoder"), place.at("nothing.tsv"), place.at("out"));
    assert_eq!(error(runtime.train(no_file).map(drop)).kind(), ErrorKind::NotFound);
    place.write("short.tsv", "text\tlabel\na\tb\nc\n");
    let row = TrainJob::new(place.at("encoder"), place.at("short.tsv"), place.at("out"));
    let row = error(runtime.train(row).map(drop));
    let ErrorKind::BadInput { place: at } = row.kind() else { panic!("{row:?}") };
    assert_eq!((at.line, at.path), (Some(3), Some(place.at("short.tsv"))));

    // No message of the library knows the command.
    runtime.train(place.job("text-classify", "done", small(json!({"max_steps": 2})))).unwrap();
    let mut named = place.job("text-classify", "more", small(json!({})));
    named.valid_data.named.insert("text".to_owned(), "txt".to_owned());
    let done = || place.job("text-classify", "done", small(json!({})));
    let mut best = place.job("text-classify", "best", small(json!({"best": "accuracy"})));
    best.valid = None;
    let mut encoder = place.job("text-classify", "encoder-less", small(json!({})));
    encoder.start = Start::Encoder;
    let messages = [
        error(runtime.train(named).map(drop)),
        error(runtime.train(done()).map(drop)),
        error(runtime.train(done().with_resume()).map(drop)),
        error(runtime.train(best).map(drop)),
        error(runtime.train(encoder).map(drop)),
        error(runtime.train(TrainJob::new("", place.at("train.tsv"), place.at("x"))).map(drop)),
        row,
        missing,
    ];
    for message in messages.map(|error| format!("{error:#}")) {
        assert!(!message.contains("--"), "{message}");
    }
}

#[test]
fn answers_are_typed_and_results_are_json() {
    let place = Place::new("typed");
    let runtime = linked::runtime();
    let result =
        runtime.train(place.job("text-classify", "app", small(json!({"max_steps": 2})))).unwrap();
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!((&json["steps"], &json["metrics"]), (&json!(2), &json!(result.metrics)));
    let app = runtime.app(&place.at("app")).unwrap();
    let texts = ["where is my parcel", "thank you"];
    let answers: Vec<Answer> = app.predict(&texts).unwrap();
    let typed: Vec<Classification> = app.predict_as(&texts).unwrap();
    for (answer, typed) in answers.iter().zip(&typed) {
        assert_eq!(answer.classification().as_ref(), Some(typed));
        assert_eq!(answer.label().as_deref(), Some(typed.label.as_str()));
        assert_eq!(typed.probabilities.len(), app.labels().len());
        assert_eq!(answer.span(), None);
        assert_eq!(serde_json::to_string(answer).unwrap(), answer.to_string());
    }
    #[derive(serde::Deserialize)]
    struct Own {
        label: String,
    }
    assert_eq!(app.predict_as::<Own>(&texts).unwrap()[0].label, typed[0].label);
    let error = app.predict_as::<TextSpan>(&texts).unwrap_err().to_string();
    assert!(error.contains("missing field `answer`"), "{error}");
    let figures = app.evaluate(&place.at("dev.tsv").into(), None).unwrap();
    assert_eq!(serde_json::to_value(&figures).unwrap()["rows"], figures.rows);
    let plugins = serde_json::to_value(runtime.plugins()).unwrap();
    assert!(plugins[0]["provides"][0]["kind"].is_string(), "{plugins}");
    let config: TrainConfig = serde_json::from_value(json!({"batch": {"rows": 8}})).unwrap();
    assert_eq!((config.batch.rows, config.epochs), (8, 3));
}
