use std::io::{Read, Write};

use serde_json::json;

use super::*;

fn open(name: &str, bytes: &[u8]) -> Result<Reader> {
    Reader::from_bytes(Path::new(name), bytes.to_vec(), ReadOptions::default())
}

fn rows(name: &str, bytes: &[u8]) -> Vec<Vec<String>> {
    let records = open(name, bytes).unwrap().read_all().unwrap();
    let text = |record: &FileRow, i| record.text(i).unwrap().into_owned();
    records.iter().map(|r| (0..r.fields.len()).map(|i| text(r, i)).collect()).collect()
}

fn message(name: &str, bytes: &[u8]) -> String {
    match open(name, bytes) {
        Err(error) => error.to_string(),
        Ok(mut reader) => reader.read_all().unwrap_err().to_string(),
    }
}

#[test]
fn tsv_mark_crlf_and_quotes_are_handled() {
    let bytes = b"\xef\xbb\xbflabel\ttext\r\n1\tsay \"hi\", all\r\n\r\n0\t\r\n";
    assert_eq!(rows("a.tsv", bytes), [["1", "say \"hi\", all"], ["0", ""]]);
    let last = open("a.tsv", bytes).unwrap().last().unwrap().unwrap();
    assert_eq!(last.line, 4);
}

#[test]
fn csv_quotes_follow_rfc_4180() {
    let bytes = b"text,label\n\"a, \"\"b\"\"\nc\",1\nplain \"q\",2\r\n\"\",3\n,4";
    let expected = [["a, \"b\"\nc", "1"], ["plain \"q\"", "2"], ["", "3"], ["", "4"]];
    assert_eq!(rows("a.csv", bytes), expected);
    let lines: Vec<u64> = open("a.csv", bytes).unwrap().map(|r| r.unwrap().line).collect();
    assert_eq!(lines, [2, 4, 5, 6]);
}

#[test]
fn json_values_keep_their_types() {
    let bytes = b"{\"text\":\"a\",\"n\":1.5}\n\n{\"n\":null,\"text\":\"b\",\"l\":[1,\"x\"]}\n";
    let records = open("a.jsonl", bytes).unwrap().read_all().unwrap();
    assert_eq!(records[0].header.columns(), ["text", "n", "l"]);
    assert_eq!(records[0].fields, [Some(json!("a")), Some(json!(1.5)), None]);
    assert_eq!(records[1].fields, [Some(json!("b")), None, Some(json!([1, "x"]))]);
    assert_eq!(records[1].list(2).unwrap(), ["1", "x"]);
    assert_eq!(records[0].number(1).unwrap(), 1.5);
    let missing = records[1].number(1).unwrap_err().to_string();
    assert!(missing.contains("line 3, column `n`"), "{missing}");
}

#[test]
fn text_keeps_empty_lines() {
    assert_eq!(rows("a.txt", b"one\n\nthree"), [["one"], [""], ["three"]]);
}

#[test]
fn gzip_is_recognised_by_its_content() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"text\tlabel\na\t1\n").unwrap();
    let bytes = gzip.finish().unwrap();
    assert_eq!(rows("a.tsv.gz", &bytes), [["a", "1"]]);
    assert_eq!(rows("a.tsv", &bytes), [["a", "1"]]);
    let twice: Vec<u8> = [&bytes[..], &bytes[..]].concat();
    assert_eq!(rows("a.tsv", &twice).len(), 3);
    let cut = message("a.tsv.gz", &bytes[..bytes.len() - 6]);
    assert!(cut.contains("intact gzip file"), "{cut}");
}

#[test]
fn faults_name_file_and_line() {
    for (name, bytes, needles) in [
        ("a.tsv", &b"a\tb\n1\t2\n1\t2\t3\n"[..], &["a.tsv`, line 3", "2 columns", "found 3"][..]),
        ("a.csv", b"a,b\n1\n", &["line 2", "2 columns", "found 1"]),
        ("a.csv", b"a,b\n1,\"x\n", &["line 2", "closing quote", "end of the file"]),
        ("a.csv", b"a,b\n1,\"x\"y\n", &["line 2", "after a closing quote", "`y`"]),
        ("a.tsv", b"a\tb\n1\t\xff\n", &["line 2", "UTF-8", "0xff at position 3"]),
        ("a.jsonl", b"{\"a\":1}\n{\"a\":\n", &["line 2", "a JSON object"]),
        ("a.jsonl", b"[1]\n", &["line 1", "an array", "jq"]),
        ("a.jsonl", b"{}\n", &["at least one key"]),
        ("a.tsv", b"", &["an empty file"]),
        ("a.tsv", b"\n\n", &["blank lines only"]),
        ("a.tsv", b"a\tb\n", &["at least one row"]),
        ("a.csv", b"a;b\n1;\"x\"y\n", &["line 2", "`;` or the end of the line", "`y`"]),
        ("a.csv", b"sep=ab\na,b\n", &["line 1", "one character behind `sep=`", "`ab`"]),
        ("a.csv", b"a,b\n1,2,3,\n", &["line 2", "2 columns", "found 3"]),
        ("a.csv", b"a,b\n0,1,2\n", &["line 2", "if each row begins with its number"]),
        ("a.tsv", b"a\tb\r1\t2\r", &["carriage returns alone", "position 4"]),
        ("a.json", b"[{\"a\":1}", &["line 1", "a comma or `]`", "the end of the file"]),
        ("a.json", b"[{\"a\":1},\n]", &["line 2", "an object behind the comma", "`]`"]),
        ("a.json", b"[{\"a\":1}]\n[", &["line 2", "nothing behind the array", "`[`"]),
        ("a.json", b"[{\"a\":1},\n {\"a\":", &["line 2", "the end of an object"]),
        ("a.json", b"{\n\"a\": 1\n", &["the end of an object", "the end of the file"]),
        ("a.json", b"[[\"x\", 1]]", &["line 1", "a JSON object", "`[\"x\", 1]` in an array"]),
        ("a.json", b"[]", &["at least one key", "none"]),
        ("a.jsonl", b"{\"a\":1,\"a\":2}\n", &["line 1, column `a`", "it twice"]),
        ("a.jsonl", b"{\"a\":NaN}\n", &["line 1", "write null"]),
        ("a.jsonl", b"{\"a\":1e999}\n", &["line 1, column `a`", "number out of range"]),
        (
            "a.json",
            b"{\"text\": [\"x\", \"y\"], \"label\": [1, 2]}",
            &["one JSON object per row", "under each key: `text`, `label`", "orient=\"records\""],
        ),
        ("a.json", b"{\"data\": [{\"text\": 1}]}", &["all under `data`", "jq -c '.data[]'"]),
        ("a.json", b"{\"text\": {\"0\": \"x\"}}", &["one JSON object per row"]),
        ("a.csv", b"PK\x03\x04....", &["text in UTF-8", "a ZIP archive or a spreadsheet"]),
        ("a.csv", b"PAR1\x15....", &["a Parquet file"]),
        ("a.csv", b"t\0e\0x\0t\0", &["a zero byte", "UTF-16LE"]),
        ("a.tsv", b"\xff\xfea\0", &["UTF-16"]),
    ] {
        let message = message(name, bytes);
        for needle in needles {
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let directory = std::env::temp_dir();
    let open = |path: &Path| Reader::open(path, ReadOptions::default()).err().unwrap();
    let error = open(&directory);
    assert!(error.is_user_error() && error.to_string().contains("a directory"), "{error}");
    #[cfg(unix)]
    for (path, found) in [("/dev/zero", "a device or a socket"), ("/dev/null", "a device")] {
        let error = open(Path::new(path));
        assert!(error.is_user_error() && error.to_string().contains(found), "{error}");
    }
    let error = open(&directory.join("surely-not-here.tsv"));
    assert!(error.is_user_error() && error.to_string().contains("nothing"), "{error}");
}

#[test]
fn bad_rows_are_skipped_and_counted() {
    let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let bytes = b"a\tb\n1\n1\t2\n\xff\t2\n3\t4\n".to_vec();
    let mut reader = Reader::from_bytes(Path::new("a.tsv"), bytes, options.clone()).unwrap();
    assert_eq!(reader.read_all().unwrap().len(), 2);
    assert_eq!(reader.skipped(), 2);
    assert!(reader.skipped_faults()[1].to_string().contains("line 4"));
    let bytes = b"nonsense\n{\"a\":1}\n5\n".to_vec();
    let mut reader = Reader::from_bytes(Path::new("a.jsonl"), bytes, options).unwrap();
    assert_eq!(reader.read_all().unwrap().len(), 1);
    assert_eq!(reader.skipped(), 2);
}

#[test]
fn schema_replaces_the_header() {
    let schema = Some(Schema::parse("content:str:1,label:int:1").unwrap());
    let options = ReadOptions { schema, ..ReadOptions::default() };
    let bytes = b"good\t1\nbad\tx\n".to_vec();
    let mut reader = Reader::from_bytes(Path::new("train.csv"), bytes, options).unwrap();
    assert_eq!(reader.format(), Format::Tsv);
    assert_eq!(reader.next().unwrap().unwrap().fields, [Some(json!("good")), Some(json!(1))]);
    let message = reader.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("line 2, column `label`: expected an integer"), "{message}");
    assert!(reader.next().is_none());
}

#[test]
fn wanted_columns_are_picked_in_order() {
    let want = |names: &[&str]| ReadOptions {
        wanted: Some(names.iter().map(|name| name.to_string()).collect()),
        ..ReadOptions::default()
    };
    let bytes = b"id\ttext\tlabel\n1\ta\tx\n".to_vec();
    let open = |names| Reader::from_bytes(Path::new("a.tsv"), bytes.clone(), want(names));
    let record = open(&["label", "text", "text"]).unwrap().next().unwrap().unwrap();
    assert_eq!(record.fields, [Some(json!("x")), Some(json!("a")), Some(json!("a"))]);
    let message = open(&["lable"]).err().unwrap().to_string();
    assert!(message.contains("`id`, `text`, `label`; did you mean `label`?"), "{message}");
}

#[test]
fn format_follows_name_and_first_line() {
    for (name, bytes, format) in [
        ("a.TSV.gz", &b"a\n1\n"[..], Format::Tsv),
        ("a.csv", b"a,b\n1,2\n", Format::Csv),
        ("a.csv", b"a\tb\n1\t2\n", Format::Tsv),
        ("a.csv", b"{\n", Format::Csv),
        ("-", b"a\tb\n", Format::Tsv),
        ("-", b"{\"a\":1}\n", Format::JsonLines),
        ("-", b"[{\"a\":1}]\n", Format::JsonLines),
        ("-", b"[\n  {\"a\":1}]\n", Format::JsonLines),
        ("-", b"[laughs] a text\n", Format::Text),
        ("a.json", b"[{\"a\":1}]\n", Format::JsonLines),
        ("a.csv", b"sep=\t\na\tb\n", Format::Csv),
        ("-", b"just a text\n", Format::Text),
        ("a.txt", b"a\tb\n", Format::Text),
    ] {
        assert_eq!(open(name, bytes).unwrap().format(), format, "{name}");
    }
}

#[test]
fn numbers_must_be_finite() {
    let records = open("a.tsv", b"label\nnan\n1e3\n").unwrap().read_all().unwrap();
    let message = records[0].number(0).unwrap_err().to_string();
    assert!(message.contains("a finite number, found `nan`"), "{message}");
    assert_eq!(records[1].number(0).unwrap(), 1000.0);
}

/// The columns and rows of a file with missing cells as "-".
fn table(name: &str, bytes: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = open(name, bytes).unwrap();
    let records = reader.read_all().unwrap();
    let cell = |cell: &Option<Value>| match cell {
        None => "-".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let rows = records.iter().map(|record| record.fields.iter().map(cell).collect()).collect();
    (reader.columns().columns().to_vec(), rows)
}

#[test]
fn columns_that_nobody_asked_for_are_nobodys_fault() {
    for (name, bytes, columns, rows) in [
        // An index of pandas, and trailing separators of spreadsheets.
        ("a.csv", ",text\n0,x\n", &["Unnamed: 0", "text"][..], &[&["0", "x"][..]][..]),
        (
            "a.csv",
            "v1,v2,,\na,b,,\n",
            &["v1", "v2", "Unnamed: 2", "Unnamed: 3"],
            &[&["a", "b", "", ""]],
        ),
        (
            "a.tsv",
            "\ttext\t\r\n0\tx\t\r\n1\ty\r\n",
            &["Unnamed: 0", "text", "Unnamed: 2"],
            &[&["0", "x", ""], &["1", "y", "-"]],
        ),
        ("a.csv", "a,b\n1,2,,\n", &["a", "b"], &[&["1", "2"]]),
        ("a.csv", "id,id,text\n1,2,x\n", &["id", "id", "text"], &[&["1", "2", "x"]]),
        ("a.csv", "\u{feff}\"text\",b\r\n\"x\r\ny\",1\r\n", &["text", "b"], &[&["x\r\ny", "1"]]),
        ("a.csv", "sep=;\r\na;b\r\n1,5;\"x;y\"\r\n", &["a", "b"], &[&["1,5", "x;y"]]),
        ("a.csv", "a;b\n1,5;2\n", &["a", "b"], &[&["1,5", "2"]]),
    ] {
        let (found, cells) = table(name, bytes.as_bytes());
        assert_eq!(
            (found.as_slice(), cells.as_slice()),
            (
                &columns.iter().map(|c| c.to_string()).collect::<Vec<_>>()[..],
                &rows
                    .iter()
                    .map(|row| row.iter().map(|c| c.to_string()).collect::<Vec<_>>())
                    .collect::<Vec<_>>()[..]
            ),
            "{bytes}"
        );
    }
    let want = |name: &str, bytes: &str, column: &str| {
        let wanted = Some(vec![column.to_string()]);
        let options = ReadOptions { wanted, ..ReadOptions::default() };
        let mut reader = Reader::from_bytes(Path::new(name), bytes.as_bytes().to_vec(), options)?;
        reader.read_all().map(|records| records[0].text(0).unwrap().into_owned())
    };
    // A row may end before what nobody asked for, but not in TSV, where a line break in a text looks like that.
    assert_eq!(want("a.csv", "text,note\nx\n", "text").unwrap(), "x");
    assert!(want("a.csv", "note,text\nx\n", "text").is_err());
    assert!(want("a.tsv", "text\tnote\nx\n", "text").is_err());
    let error = want("a.csv", "id,id\n1,2\n", "id").unwrap_err().to_string();
    assert!(error.contains("`id` twice"), "{error}");
}

#[test]
fn json_is_read_in_lines_arrays_and_over_lines() {
    let expected = (
        vec!["text".to_string(), "n".to_string()],
        vec![vec!["a ]}\\\"".to_string(), "1".to_string()], vec!["b".to_string(), "-".to_string()]],
    );
    let (one, two) = (r#"{"text": "a ]}\\\"", "n": 1}"#, r#"{"text": "b"}"#);
    for (name, text) in [
        ("a.jsonl", format!("{one}\n\n{two}\n")),
        ("a.jsonl", format!("[{one},\n{two}]\n")),
        ("a.json", format!("[{one},{two}]")),
        ("a.json", format!("\n\n[\n  {one} ,\n  {two}\n]\n\n")),
        ("a.json", format!("{one}\n{two}")),
        ("a.json", format!("{}\n{two}", one.replace(',', ",\n"))),
        ("-", format!("[ {one}, {two} ]")),
    ] {
        assert_eq!(table(name, text.as_bytes()), expected, "{text}");
    }
    let lines = |text: &str| -> Vec<u64> {
        open("a.json", text.as_bytes()).unwrap().map(|row| row.unwrap().line).collect()
    };
    assert_eq!(lines("[\n{\"a\":\n1},\n\n{\"a\":2}]"), [2, 5]);
    assert_eq!(lines("{\n\"a\": 1\n}\n{\n\"a\": 2}\n"), [1, 4]);
}

#[test]
fn keys_that_first_appear_late_are_seen() {
    let mut text: String = (0..1000).map(|i| format!("{{\"text\":\"{i}\"}}\n")).collect();
    text.push_str("{\"note\":1,\"text\":\"last\"}\n");
    let mut reader = open("a.jsonl", text.as_bytes()).unwrap();
    let last = reader.by_ref().last().unwrap().unwrap();
    assert_eq!((last.get("note"), last.fields.len()), (Some(&json!(1)), 2));
    assert_eq!(reader.columns().columns(), ["text", "note"]);
}

#[test]
fn bad_elements_of_an_array_are_skipped() {
    let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let bytes = b"[{\"a\":1}, 5, {\"a\" 2}, [{}], {\"a\":3}]".to_vec();
    let mut reader = Reader::from_bytes(Path::new("a.json"), bytes, options).unwrap();
    assert_eq!(reader.read_all().unwrap().len(), 2);
    assert_eq!(reader.skipped(), 3);
}

#[test]
fn deep_json_is_refused_where_it_is_asked_for_only() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!("{{\"a\":1,\"deep\":{deep}}}\n");
    let message = message("a.jsonl", text.as_bytes());
    assert!(message.contains("column `deep`") && message.contains("recursion"), "{message}");
    let wanted = Some(vec!["a".to_string()]);
    let options = ReadOptions { wanted, ..ReadOptions::default() };
    let mut reader = Reader::from_bytes(Path::new("a.jsonl"), text.into(), options).unwrap();
    assert_eq!(reader.read_all().unwrap()[0].fields, [Some(json!(1))]);
}

#[test]
fn a_row_over_many_lines_has_a_limit() {
    // Every cell is short, and no row ends.
    let endless = std::io::Cursor::new(b"text,b\n\"a".to_vec())
        .chain(std::io::Cursor::new("\n\",\"a".repeat(5 << 20).into_bytes()));
    let source = Source::new("a.csv".into(), Box::new(endless)).unwrap();
    let mut reader = Reader::with_source(source, ReadOptions::default()).unwrap();
    let message = reader.next().unwrap().unwrap_err().to_string();
    assert!(message.contains("line 2") && message.contains("4194304 cells"), "{message}");
}

#[test]
fn formats_honour_an_option_or_refuse_it_by_name() {
    let bytes = |format| match format {
        Format::Tsv => "text\tn\nx\t1\n",
        Format::Csv => "text,n\nx,1\n",
        Format::Text => "x\n",
        _ => "{\"text\":\"x\",\"n\":1}\n",
    };
    let plain = ReadOptions::default();
    let schema = Some(Schema::parse("text:str:1,n:str:1").unwrap());
    let read = |format, options: ReadOptions| {
        let options = ReadOptions { format, ..options };
        let bytes = format!("{}\n", bytes(format)).into_bytes();
        let mut reader = Reader::from_bytes(Path::new("-"), bytes, options)?;
        let records = reader.by_ref().collect::<Result<Vec<_>>>()?;
        Ok::<_, Error>((reader.header().columns().to_vec(), records.len()))
    };
    for format in Format::ALL {
        let without = read(format, plain.clone()).unwrap();
        for (option, options) in [
            ("schema", ReadOptions { schema: schema.clone(), ..plain.clone() }),
            ("wanted", ReadOptions { wanted: Some(vec!["text".into(); 2]), ..plain.clone() }),
        ] {
            let with = read(format, options);
            if format.honours().contains(&option) {
                assert_ne!(with.unwrap(), without, "{format:?} ignores {option}");
            } else {
                let error = with.unwrap_err().to_string();
                assert!(error.contains(option), "{format:?}: {error}");
            }
        }
        assert!(format.honours().contains(&"on_bad_row"));
    }
}
