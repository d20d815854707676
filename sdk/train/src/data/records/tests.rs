use std::io::Write;

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
        ("a.tsv", b"a\ta\n", &["`a` twice"]),
        ("a.tsv", b"a\t\n", &["no name for column 2"]),
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
