//! The four small programs in Rust, C and C++ do the same, and the library has what its header promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use easytransfer_tests::hosts::{
    Outcome, Scratch, build_program, command, demo, has, in_all_languages, run,
};
use easytransfer_tests::{linked, places};
use easytransfer_train::model::bundle;
use easytransfer_train::model::network::{AppStage, Network, Start};

/// Options of a run of a few steps.
const CONFIG: &str = r#"{"max_steps": 60, "lr": 0.002, "seed": 3, "batch": {"rows": 16}}"#;

/// One folder for all tests of this program, with a bundle that the Rust host trained.
fn scratch() -> &'static Scratch {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    SCRATCH.get_or_init(|| Scratch::within(Path::new(env!("CARGO_TARGET_TMPDIR")), "hosts"))
}

/// Programs are compiled one after the other, because several tests want the same ones.
fn programs(name: &str) -> Vec<(&'static str, PathBuf)> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    in_all_languages(scratch(), name)
}

fn train(program: &Path, output: &Path) -> Outcome {
    let mut command = command(program, &[]);
    command.args(["--scratch", &demo("encoder"), &demo("messages.train.tsv")]);
    command.args([&demo("messages.dev.tsv"), output.to_str().unwrap(), CONFIG]);
    run(&mut command, b"")
}

fn classifier() -> &'static str {
    static BUNDLE: OnceLock<String> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let output = scratch().path().join("bundle");
        train(&places::staged().join("train"), &output).good("train in rust");
        output.to_str().unwrap().to_owned()
    })
}

/// The first 200 texts of the demo, one per line.
fn texts() -> String {
    let table = fs::read_to_string(demo("messages.train.tsv")).unwrap();
    let texts: Vec<&str> =
        table.lines().skip(1).take(200).map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(texts.len(), 200);
    texts.join("\n") + "\n"
}

/// Asserts that all languages print the same for a command line, and answers with it.
fn same(name: &str, arguments: &[&str], input: &str) -> String {
    let mut outputs = Vec::new();
    for (language, program) in programs(name) {
        let outcome = run(command(&program, &[]).args(arguments), input.as_bytes());
        outputs.push((language, outcome.good(&format!("{name} in {language}"))));
    }
    for (language, output) in &outputs[1..] {
        for (index, (a, b)) in outputs[0].1.lines().zip(output.lines()).enumerate() {
            assert_eq!(a, b, "{name}: line {} differs between rust and {language}", index + 1);
        }
        assert_eq!(outputs[0].1, *output, "{name}: rust and {language} differ in length");
    }
    outputs.swap_remove(0).1
}

#[test]
fn predict_is_the_same_in_all_languages() {
    let texts = texts();
    let from_input = same("predict", &[classifier()], &texts);
    assert_eq!(from_input.lines().count(), 200);
    let table = fs::read_to_string(demo("messages.train.tsv")).unwrap();
    let classes: BTreeSet<&str> =
        table.lines().skip(1).map(|line| line.rsplit('\t').next().unwrap()).collect();
    for line in from_input.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 1 + classes.len(), "{line}");
        assert!(classes.contains(fields[0]), "{line}");
        let sum: f64 = fields[1..].iter().map(|p| p.parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{line}");
    }
    let labels: BTreeSet<&str> =
        from_input.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert!(labels.len() > 1, "one answer to everything: {labels:?}");
    let file = scratch().path().join("texts.txt");
    fs::write(&file, &texts).unwrap();
    assert_eq!(same("predict", &[classifier(), file.to_str().unwrap()], ""), from_input);
}

/// A line with a NUL is a text like others: what is behind the NUL counts.
#[test]
fn predict_reads_on_behind_a_nul() {
    let whole = "where is my parcel\0I want my money back";
    let texts = format!("{whole}\nwhere is my parcel\n");
    let answers = same("predict", &[classifier()], &texts);
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_ne!(lines[0], lines[1]);
    let record = serde_json::json!({ "text": whole }).to_string() + "\n";
    let record = same("predict", &["--records", classifier()], &record);
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let fields: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!(record["label"], fields[0]);
    let score: f64 = fields[1..].iter().map(|p| p.parse().unwrap()).fold(0.0, f64::max);
    assert!((record["score"].as_f64().unwrap() - score).abs() < 1e-4, "{record}: {score}");
}

/// The tiny reading model of the goldens as a bundle, and the questions that its goldens are about.
fn reader() -> (String, Vec<(serde_json::Value, serde_json::Value)>) {
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let directory = places::parity().join("apps/comprehend");
    let runtime = linked::runtime();
    let components = runtime.components();
    // As many answers as the goldens have: they compete, so other numbers of them have other scores. The pipeline
    // cuts no question.
    let options = serde_json::json!({"answers": 3, "max_question_length": 300});
    let stage = AppStage::new(components, "comprehend", options, None).unwrap();
    let none = serde_json::Map::new();
    let network = Network::new(components, stage, &directory, &none, Start::Encoder, 0).unwrap();
    let output = scratch().path().join("reader");
    bundle::save(&network, &output, none.clone(), none.clone().into(), none).unwrap();
    let squad = json(&places::shared().join("data/squad-v1.1/dev-v1.1.json"));
    let golden = json(&directory.join("golden.json"));
    let golden: std::collections::HashMap<&str, &serde_json::Value> = golden
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["no_answer"] == false)
        .map(|case| (case["id"].as_str().unwrap(), case))
        .collect();
    let mut asked = Vec::new();
    for article in squad["data"].as_array().unwrap() {
        for paragraph in article["paragraphs"].as_array().unwrap() {
            for question in paragraph["qas"].as_array().unwrap() {
                let Some(case) = golden.get(question["id"].as_str().unwrap()) else { continue };
                let record = serde_json::json!({
                    "question": question["question"], "context": paragraph["context"],
                });
                asked.push((record, case["spans"][0].clone()));
            }
        }
    }
    assert!(asked.len() > 20, "only {} questions", asked.len());
    (output.to_str().unwrap().to_owned(), asked)
}

#[test]
fn predict_of_records_is_what_the_reading_app_says() {
    let (bundle, asked) = reader();
    let records: String = asked.iter().map(|(record, _)| record.to_string() + "\n").collect();
    let answers = same("predict", &["--records", &bundle], &records);
    assert_eq!(answers.lines().count(), asked.len());
    for (answer, (record, span)) in answers.lines().zip(&asked) {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        // What the question answering pipeline of transformers says.
        assert_eq!([&answer["start"], &answer["end"]], [&span[0], &span[1]], "{record}");
        let (score, expected) = (answer["score"].as_f64().unwrap(), span[2].as_f64().unwrap());
        assert!((score - expected).abs() < 1e-4 * expected, "{score}, expected {expected}");
        let [start, end] = ["start", "end"].map(|key| answer[key].as_u64().unwrap() as usize);
        let context = record["context"].as_str().unwrap();
        let text: String = context.chars().skip(start).take(end - start).collect();
        assert_eq!(answer["answer"], text);
        assert_eq!(answer.get("label"), None);
    }
    let lacking = br#"{"question": "who?"}"#;
    refused("predict", &["--records", &bundle], lacking, "context");
    refused("predict", &["--records", &bundle], b"[1]", "expected an object");
    refused("predict", &["--records", &bundle], b"{\"question\": ", "the record is not JSON");
    // A text alone is not what this app needs.
    refused("predict", &[&bundle], b"a text\n", "question");
}

#[test]
fn predict_of_nothing_is_nothing() {
    assert_eq!(same("predict", &[classifier()], ""), "");
}

#[test]
fn embed_is_the_same_in_all_languages() {
    let output = same("embed", &[classifier()], &texts());
    assert_eq!(output.lines().count(), 200);
    assert!(output.lines().all(|line| line.starts_with("128\t") && line.split('\t').count() == 5));
    let different: BTreeSet<&str> = output.lines().collect();
    assert!(different.len() > 100, "only {} different vectors", different.len());
}

#[test]
fn quickstart_is_the_same_in_all_languages_and_learns() {
    let output = same("quickstart", &[&demo("encoder")], "");
    let line = |start: &str| {
        output.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{output}"))
    };
    let numbers = |start: &str| -> Vec<usize> {
        line(start).split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    // The leading number of a line is the step of the walk.
    let (before, after) = (numbers("5 backward"), numbers("6 frozen"));
    assert!(before[2] > 0, "no embedding received a gradient: {output}");
    assert_eq!(after[2], 0, "frozen embeddings received a gradient: {output}");
    assert_eq!(before[1] - before[2], after[1], "{output}");
    let loss = |start: &str| line(start).rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    assert!(loss("7 step 5") < 0.8 * loss("4 loss"), "the loss did not go down: {output}");
}

#[test]
fn train_is_the_same_in_all_languages() {
    let steps = |output: &str| -> Vec<String> {
        output.lines().filter(|line| line.starts_with("step ")).map(str::to_owned).collect()
    };
    let mut all = Vec::new();
    for (language, program) in programs("train") {
        let output = scratch().path().join(format!("trained-{language}"));
        let printed = train(&program, &output).good(language);
        assert!(printed.lines().last().unwrap().contains("\"steps\":60"), "{printed}");
        all.push((language, steps(&printed), fs::read(output.join("model.safetensors")).unwrap()));
    }
    assert_eq!(all[0].1.len(), 60);
    for (language, steps, weights) in &all[1..] {
        assert_eq!(*steps, all[0].1, "rust and {language}");
        assert!(*weights == all[0].2, "weights differ between rust and {language}");
    }
}

/// Asserts code 2 and a message with `part` in every language.
fn refused(name: &str, arguments: &[&str], input: &[u8], part: &str) {
    for (language, program) in programs(name) {
        let outcome = run(command(&program, &[]).args(arguments), input);
        assert_eq!(outcome.code, 2, "{name} in {language} {arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{name} in {language}: {}", outcome.stderr);
    }
}

#[test]
fn predict_bad_input_ends_with_code_2() {
    refused("predict", &[], b"", "usage: predict [--records] BUNDLE");
    refused("predict", &["a", "b", "c"], b"", "usage: predict [--records] BUNDLE");
    refused("predict", &["no-such-bundle"], b"hello\n", "no-such-bundle");
    refused("predict", &[classifier(), "no-such-texts.txt"], b"", "no-such-texts.txt");
    refused("predict", &[classifier()], b"good\nbad \xff byte\n", "UTF-8");
}

#[test]
fn train_bad_input_ends_with_code_2() {
    let output = scratch().path().join("refused");
    let output = output.to_str().unwrap();
    let (encoder, data) = (demo("encoder"), demo("messages.train.tsv"));
    refused("train", &[&encoder], b"", "usage: train");
    refused("train", &["--scratch", &encoder, "no-such.tsv", "-", output], b"", "no-such.tsv");
    let misspelt = r#"{"epoch": 1}"#;
    refused("train", &["--scratch", &encoder, &data, "-", output, misspelt], b"", "`epochs`");
    refused("train", &["--scratch", &encoder, &data, "-", output, "{"], b"", "JSON");
    let table = scratch().path().join("one-column.tsv");
    fs::write(&table, "text\nhello\n").unwrap();
    let table = table.to_str().unwrap();
    refused("train", &["--scratch", &encoder, table, "-", output], b"", "label");
}

#[test]
fn embed_and_quickstart_bad_input_ends_with_code_2() {
    refused("embed", &[], b"", "usage: embed");
    refused("embed", &["no-such-encoder"], b"", "no-such-encoder");
    refused("quickstart", &[], b"", "usage: quickstart");
    refused("quickstart", &["no-such-encoder"], b"", "no-such-encoder");
}

#[test]
fn cxx_service_answers_lines_as_predict_does() {
    let service = places::staged().join("cxx-service");
    assert!(service.exists(), "{}: build easytransfer-cxx-service first", service.display());
    let lines: Vec<String> = texts().lines().take(20).map(str::to_owned).collect();
    let requests: String =
        lines.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    let answers =
        run(command(&service, &[]).arg(classifier()), requests.as_bytes()).good("service");
    let mut app = command(&places::staged().join("predict"), &[]);
    // One text at a time, because the service answers so and batches may differ in the last bit.
    for (answer, text) in answers.lines().zip(&lines) {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let expected = run(app.args([classifier()]), text.as_bytes()).good("predict");
        app = command(&places::staged().join("predict"), &[]);
        assert_eq!(answer["label"].as_str(), expected.split('\t').next(), "{text}");
    }
    assert_eq!(answers.lines().count(), 20);
    let mixed = run(command(&service, &[]).arg(classifier()), b"not JSON\n{\"text\": \"hello\"}\n");
    assert_eq!(mixed.code, 2);
    let answers: Vec<serde_json::Value> =
        mixed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(answers[0]["error"].as_str().unwrap().contains("JSON"), "{}", mixed.stdout);
    assert!(answers[1]["label"].is_string(), "{}", mixed.stdout);
    assert_eq!(run(&mut command(&service, &[]), b"").code, 2);
    assert_eq!(run(command(&service, &[]).arg("no-such-bundle"), b"").code, 2);
}

#[test]
fn header_every_function_links() {
    let header = fs::read_to_string(places::root().join("include/easytransfer.h")).unwrap();
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(');
    let names: BTreeSet<&str> = words
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("et_"))
        .collect();
    assert!(names.len() > 40, "only {} functions found in the header", names.len());
    let entries: String =
        names.iter().map(|name| format!("  functions[len++] = (function){name};\n")).collect();
    let source = format!(
        "#include \"easytransfer.h\"\ntypedef void (*function)(void);\nint main(void) {{\n  function functions[{}];\n  int len = 0, i;\n{entries}  for (i = 0; i < len; ++i)\n    if (functions[i] == NULL) return 1;\n  return 0;\n}}\n",
        names.len()
    );
    let (file, program) = (scratch().path().join("link.c"), scratch().path().join("link"));
    fs::write(&file, source).unwrap();
    build_program(scratch(), &file, &program);
    run(&mut Command::new(program), b"").good("a program that refers to every function");
}

#[test]
fn c_null_arguments_are_errors_and_releases_accept_null() {
    let (file, program) = (scratch().path().join("null.c"), scratch().path().join("null"));
    fs::write(&file, include_str!("hosts/null.c")).unwrap();
    build_program(scratch(), &file, &program);
    run(&mut command(&program, &[]), b"").good("NULL arguments");
}

#[test]
fn c_programs_are_clean_under_valgrind() {
    if !has("valgrind") {
        println!("not run: valgrind is not installed");
        return;
    }
    let encoder = demo("encoder");
    let cases: [(&str, &[&str], &str); 3] = [
        ("predict", &[classifier()], "where is my parcel\nI want my money back\n"),
        ("embed", &[classifier()], "where is my parcel\n"),
        ("quickstart", &[&encoder], ""),
    ];
    for (name, arguments, input) in cases {
        let (_, program) =
            programs(name).into_iter().find(|(language, _)| *language == "c").unwrap();
        let expected = run(command(&program, &[]).args(arguments), input.as_bytes()).good(name);
        let mut valgrind = command(Path::new("valgrind"), &[]);
        valgrind
            .args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite"])
            .args(["--show-leak-kinds=definite", "--error-exitcode=9"])
            .arg(&program)
            .args(arguments);
        let printed = run(&mut valgrind, input.as_bytes()).good(&format!("{name} under valgrind"));
        assert_eq!(printed.lines().count(), expected.lines().count(), "{name}");
    }
}
