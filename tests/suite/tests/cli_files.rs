//! The command line: data files as their writers mean them, whatever tool wrote them, in every command.

use easytransfer_tests::command::Place;
use serde_json::Value;

/// A short run on a small file, which is its own validation data.
fn train(
    place: &Place,
    output: &str,
    file: &str,
    more: &[&str],
) -> easytransfer_tests::hosts::Outcome {
    let data = ["--train", file, "--valid", file, "--set", "max_steps=2"];
    place.train(output, &[&data[..], more].concat())
}

fn refused(outcome: &easytransfer_tests::hosts::Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
}

#[test]
fn files_of_other_tools_are_the_same_data() {
    let place = Place::new("files-tools");
    place.write("plain.tsv", "text\tlabel\ngood, film\tpos\nbad film\tneg\n");
    train(&place, "plain", "plain.tsv", &[]).good("plain.tsv");
    let json = [
        r#"{"text": "good, film", "label": "pos"}"#,
        r#"{"label": "neg", "text": "bad film", "id": 7}"#,
    ];
    for (file, content) in [
        ("index.csv", ",text,label\n0,\"good, film\",pos\n1,bad film,neg\n".to_owned()),
        (
            "twice.csv",
            "x,,,x,text,label\n0,,,0,\"good, film\",pos\n1,,,1,bad film,neg\n".to_owned(),
        ),
        ("trailing.csv", "text,label,,\r\n\"good, film\",pos,,\r\nbad film,neg,,,\r\n".to_owned()),
        ("semicolon.csv", "\u{feff}text;label\r\ngood, film;pos\r\nbad film;neg\r\n".to_owned()),
        ("separator.csv", "sep=;\r\ntext;label\r\ngood, film;pos\r\nbad film;neg\r\n".to_owned()),
        ("short.csv", "text,label,note\n\"good, film\",pos\nbad film,neg,x\n".to_owned()),
        ("tabs.tsv", "\ttext\tlabel\t\n0\tgood, film\tpos\t\n1\tbad film\tneg\n".to_owned()),
        ("lines.jsonl", json.join("\n")),
        ("array.json", format!("[{},\n{}]", json[0], json[1])),
        ("spread.json", json.join("\n").replace(", ", ",\n ").replace("good,\n", "good,")),
    ] {
        place.write(file, content);
        train(&place, "run", file, &[]).good(file);
        assert!(place.tensors("run") == place.tensors("plain"), "{file}: other weights");
        assert_eq!(
            place.read_json("run/easytransfer.json")["labels"],
            serde_json::json!(["neg", "pos"])
        );
    }
    let path = place.at("plain.tsv").display().to_string();
    let piped = place
        .command(&place.train_arguments(
            "run",
            &["--train", "/dev/stdin", "--valid", "plain.tsv", "--set", "max_steps=2"],
        ))
        .stdin(std::fs::File::open(path).unwrap())
        .output()
        .unwrap();
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert!(place.tensors("run") == place.tensors("plain"), "/dev/stdin: other weights");
}

#[test]
fn what_is_no_table_is_refused_by_name() {
    let place = Place::new("files-refused");
    for (file, content, parts) in [
        (
            "columns.json",
            r#"{"text": ["a", "b"], "label": [1, 0]}"#,
            &["a column under each key", "`text`, `label`"][..],
        ),
        ("twice.csv", "text,text,label\na,b,1\n", &["one column `text`", "`text` twice"]),
        ("empty.csv", "text,label\n,1\n,0\n", &["text: all cells of the training data are empty"]),
        ("nothing.csv", "text,label\na,\n", &["line 2, column `label`", "the cell is empty"]),
        (
            "null.jsonl",
            "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":null}\n",
            &["line 2, column `label`", "found nothing"],
        ),
        (
            "same.jsonl",
            "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":1.0}\n",
            &["`1` and `1.0` are the same number"],
        ),
        ("list.csv", "text,label\na,\"['x', 'y']\"\n", &["column `label`", "multi-label"]),
    ] {
        place.write(file, content);
        refused(&train(&place, "run", file, &[]), parts);
        assert!(!place.at("run").exists(), "{file}");
    }
    place.write("dots.csv", "text,label\na,x\nb,y\n");
    refused(
        &train(&place, "run", "dots.csv", &["--label", "lable"]),
        &["`lable`", "--label label"],
    );
    place.train("run", &[]).good("train");
    let predict = |data: &str| place.easytransfer(&["predict", "--model", "run", "--data", data]);
    refused(&predict("."), &["a directory"]);
    refused(&predict("/dev/zero"), &["a device or a socket"]);
    make_pipe(&place.at("pipe"));
    refused(&predict("pipe"), &["a pipe with a name", "standard input", "- < pipe"]);
}

/// Makes a pipe with a name.
fn make_pipe(path: &std::path::Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path is a C string that lives during the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn keys_that_first_appear_late_are_columns_too() {
    let place = Place::new("files-late");
    let rows =
        |count: usize, row: &dyn Fn(usize) -> String| (0..count).map(row).collect::<String>();
    let unlabelled = rows(300, &|i| format!("{{\"text\":\"a {i}\"}}\n"));
    let labelled = rows(4, &|i| format!("{{\"text\":\"b {i}\",\"label\":{}}}\n", i % 2));
    place.write("late.jsonl", format!("{unlabelled}{labelled}"));
    place.write("only.jsonl", &labelled);
    refused(&train(&place, "run", "late.jsonl", &[]), &["a column for `label`", "`text`"]);
    let said = train(&place, "late", "late.jsonl", &["--on-bad-row", "skip"]).good("late");
    // Training and validation data.
    assert!(said.contains("rows left out: 600"), "{said}");
    train(&place, "only", "only.jsonl", &[]).good("only");
    assert!(place.tensors("late") == place.tensors("only"), "other weights");
    // A pair that comes late makes a pair; a text by another name is refused, since the rows before had one as usual.
    let single = rows(300, &|i| format!("{{\"sentence\":\"a {i}\",\"label\":{}}}\n", i % 2));
    place.write(
        "pair.jsonl",
        format!("{single}{{\"sentence\":\"c\",\"label\":0,\"text_pair\":\"d\"}}\n"),
    );
    train(&place, "pair", "pair.jsonl", &[]).good("pair");
    assert_eq!(place.read_json("pair/easytransfer.json")["columns"]["text_pair"], "text_pair");
    place.write("other.jsonl", format!("{single}{{\"text\":\"c\",\"label\":0}}\n"));
    refused(
        &train(&place, "run", "other.jsonl", &[]),
        &["line 301", "`sentence`", "`text`", "--text COLUMN"],
    );
    refused(
        &train(&place, "run", "pair.jsonl", &["--text-pair", "pair"]),
        &["`pair`", "--text-pair"],
    );
}

/// Predictions of a file as JSON Lines.
fn predictions(place: &Place, model: &str, file: &str) -> Vec<Value> {
    let said = place.easytransfer(&["predict", "--model", model, "--data", file]).good(file);
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn texts_that_are_numbers_are_the_same_texts_in_every_format_and_command() {
    let place = Place::new("files-numbers");
    let texts = ["1.0", "1e5", "-7", "1.50", "123456789012345678901234567890", "true"];
    let lines =
        |row: &dyn Fn(&str) -> String| texts.iter().map(|text| row(text)).collect::<String>();
    let label = |text: &str| text.len() % 2;
    place.write(
        "n.tsv",
        format!("text\tlabel\n{}", lines(&|text| format!("{text}\t{}\n", label(text)))),
    );
    place.write(
        "n.csv",
        format!("label,text\n{}", lines(&|text| format!("{},{text}\n", label(text)))),
    );
    place.write(
        "n.jsonl",
        lines(&|text| format!("{{\"label\":{},\"text\":{text}}}\n", label(text))),
    );
    place.write(
        "s.jsonl",
        lines(&|text| format!("{{\"label\":\"{}\",\"text\":\"{text}\"}}\n", label(text))),
    );
    train(&place, "tsv", "n.tsv", &[]).good("tsv");
    for file in ["n.csv", "n.jsonl", "s.jsonl"] {
        train(&place, "other", file, &[]).good(file);
        assert!(place.tensors("other") == place.tensors("tsv"), "{file}: other weights");
    }
    let expected = predictions(&place, "tsv", "n.tsv");
    assert_eq!(expected.iter().map(|row| row["text"].as_str().unwrap()).collect::<Vec<_>>(), texts);
    place
        .easytransfer(&["embed", "--encoder", "tsv", "--data", "n.tsv", "--output", "tsv.npy"])
        .good("embed");
    let figures = |file: &str| {
        place.easytransfer(&["evaluate", "--model", "tsv", "--data", file, "--json"]).good(file)
    };
    for file in ["n.csv", "n.jsonl", "s.jsonl"] {
        assert_eq!(predictions(&place, "tsv", file), expected, "{file}");
        assert_eq!(figures(file), figures("n.tsv"), "{file}");
        place
            .easytransfer(&["embed", "--encoder", "tsv", "--data", file, "--output", "other.npy"])
            .good(file);
        assert!(place.read("other.npy") == place.read("tsv.npy"), "{file}: other vectors");
    }
    // Whole numbers with a point, as a data frame with gaps has them, are the classes that they were.
    place.write(
        "points.csv",
        format!("label,text\n{}", lines(&|text| format!("{}.0,{text}\n", label(text)))),
    );
    assert_eq!(figures("points.csv"), figures("n.tsv"));
}

#[test]
fn an_app_asks_for_the_columns_that_it_was_trained_with() {
    let place = Place::new("files-pairs");
    place.write("pairs.tsv", "text\ttext_pair\tlabel\na\tb\tx\nc\td\ty\n");
    place.write("single.tsv", "text\thypothesis\tlabel\na\tb\tx\nc\td\ty\n");
    train(&place, "pairs", "pairs.tsv", &[]).good("pairs");
    train(&place, "single", "single.tsv", &[]).good("single");
    let predict = |model: &str, data: &str, more: &[&str]| {
        place.easytransfer(&[&["predict", "--model", model, "--data", data][..], more].concat())
    };
    refused(&predict("pairs", "single.tsv", &[]), &["`text_pair`", "`hypothesis`", "--text-pair"]);
    let named = predict("pairs", "single.tsv", &["--text-pair", "hypothesis"]).good("named");
    assert_eq!(named, predict("pairs", "pairs.tsv", &[]).good("pairs"));
    let evaluated = place.easytransfer(&["evaluate", "--model", "pairs", "--data", "single.tsv"]);
    refused(&evaluated, &["`text_pair`"]);
    let piped = place.with_input(&["predict", "--model", "pairs"], "{\"text\":\"a\"}\n");
    refused(&piped, &["standard input", "`text_pair`"]);
    // The other way round: what the training had not is not looked for, and refused when it is named.
    let alone = predict("single", "pairs.tsv", &[]).good("alone");
    assert_eq!(alone, predict("single", "single.tsv", &[]).good("single"));
    refused(
        &predict("single", "pairs.tsv", &["--text-pair", "text_pair"]),
        &["`text_pair`", "trained without it"],
    );
    let valid = ["--train", "pairs.tsv", "--valid", "single.tsv", "--set", "max_steps=2"];
    refused(&place.train("run", &valid), &["single.tsv", "`text_pair`", "--valid-text-pair"]);
    let embed = [
        "embed",
        "--encoder",
        "single",
        "--data",
        "pairs.tsv",
        "--output",
        "v.npy",
        "--text-pair",
        "text_pair",
    ];
    refused(&place.easytransfer(&embed), &["`text_pair`"]);
}

#[test]
fn texts_are_written_as_they_were_read() {
    let place = Place::new("files-written");
    place.train("run", &[]).good("train");
    let texts = ["C:\\new\\file", "say \"hi\"", "a,b;c", " blank ", "", "[1, 2]"];
    place
        .write("in.tsv", format!("text\tx\n{}", texts.map(|text| format!("{text}\t1\n")).concat()));
    let mut data = "in.tsv".to_owned();
    for output in ["out.tsv", "out.csv", "out.jsonl", "again.tsv"] {
        place
            .easytransfer(&["predict", "--model", "run", "--data", &data, "--output", output])
            .good(output);
        let read = predictions(&place, "run", output);
        assert_eq!(
            read.iter().map(|row| row["text"].as_str().unwrap()).collect::<Vec<_>>(),
            texts,
            "{output}"
        );
        data = output.to_owned();
    }
    place.write("breaks.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\\nlines\"}\n");
    let predict = |output| {
        place.easytransfer(&[
            "predict",
            "--model",
            "run",
            "--data",
            "breaks.jsonl",
            "--output",
            output,
        ])
    };
    refused(&predict("breaks.tsv"), &["row 2", "column `text`", "a line break", "CSV"]);
    assert!(!place.at("breaks.tsv").exists());
    predict("breaks.csv").good("csv");
    assert_eq!(predictions(&place, "run", "breaks.csv")[1]["text"], "two\nlines");
}

#[test]
fn sets_of_labels_are_read_as_they_are_meant() {
    let place = Place::new("files-sets");
    let write = |name: &str, cells: [&str; 3]| {
        let rows: String =
            cells.iter().enumerate().map(|(i, cell)| format!("t {i}\t{cell}\n")).collect();
        place.write(name, format!("text\tlabel\n{rows}"));
    };
    write("names.tsv", ["0,2", "2", "1"]);
    write("hot.tsv", ["[1, 0, 1]", "[0, 0, 1]", "[0, 1, 0]"]);
    write("numpy.tsv", ["[1. 0. 1.]", "[0. 0. 1.]", "[0. 1. 0.]"]);
    write("python.tsv", ["['0', '2']", "['2']", "['1']"]);
    write("even.tsv", ["[1, 0]", "[0, 1]", "[1, 0, 1]"]);
    let problem = ["--set", "app.problem=multi-label"];
    for file in ["names.tsv", "hot.tsv", "numpy.tsv", "python.tsv"] {
        let output = file.trim_end_matches(".tsv");
        train(&place, output, file, &problem).good(file);
        assert!(place.tensors(output) == place.tensors("names"), "{file}: other weights");
        let evaluate = ["evaluate", "--model", output, "--data", file, "--json"];
        let figures = place.easytransfer(&evaluate).good(file);
        let names =
            place.easytransfer(&["evaluate", "--model", "names", "--data", "names.tsv", "--json"]);
        assert_eq!(figures, names.good("names"), "{file}");
    }
    refused(
        &train(&place, "run", "even.tsv", &problem),
        &["[1, 0, 1] looks like a row of 0 and 1"],
    );
}
