//! Every parser of foreign bytes against thousands of damaged inputs: none may panic. Inputs follow from a seed, so a
//! failure repeats.

use std::path::Path;

use crate::data::counted::Counted;
use crate::data::records::{Format, OnBadRow, ReadOptions, Reader, Schema};
use crate::files::{npy, safetensors, torch_pickle};
use crate::options;

const ROUNDS: u64 = 4000;

/// One to eight random damages: changed, removed, repeated, inserted and cut bytes.
fn damage(original: &[u8], random: &mut Counted) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"\"",
        b"\t",
        b",",
        b"\r\n",
        b"{",
        b"[",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0",
        b"-1",
        b"99999999999999999999",
        b"\xef\xbb\xbf",
        b"=",
    ];
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let span = (random.below(12) as usize).min(bytes.len() - at);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.next_bits() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.drain(at..at + span)),
            3 => {
                let copy = bytes[at..at + span].to_vec();
                let to = random.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(to..to, copy);
            }
            4 => {
                let token = TOKENS[random.below(TOKENS.len() as u64) as usize];
                bytes.splice(at..(at + span / 4), token.iter().copied());
            }
            _ if random.below(8) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}

/// Runs `parse` on damaged copies of `original`; it returns whether it accepted them. Both must happen, or the damage
/// is too small or too large to show anything.
fn fuzz(stream: u64, original: &[u8], mut parse: impl FnMut(&[u8]) -> bool) {
    let mut random = Counted::new(0xf022, stream);
    assert!(parse(original), "the undamaged input is refused");
    let accepted = (0..ROUNDS).filter(|_| parse(&damage(original, &mut random))).count();
    assert!(accepted > 0 && accepted < ROUNDS as usize, "{accepted} of {ROUNDS} were accepted");
}

fn read_records(bytes: &[u8], options: &ReadOptions) -> bool {
    let Ok(mut reader) = Reader::from_bytes(Path::new("f"), bytes.to_vec(), options.clone()) else {
        return false;
    };
    let columns = reader.header().columns().len();
    match reader.read_all() {
        Ok(records) => {
            for record in &records {
                assert_eq!(record.fields.len(), columns);
                for column in 0..=columns {
                    let _ = (record.text(column), record.number(column), record.list(column));
                }
            }
            true
        }
        Err(error) => {
            assert!(error.is_user_error(), "{error}");
            false
        }
    }
}

fn both(stream: u64, format: Format, original: &[u8]) {
    for on_bad_row in [OnBadRow::Stop, OnBadRow::Skip] {
        let options = ReadOptions { format, on_bad_row, ..ReadOptions::default() };
        fuzz(stream, original, |bytes| read_records(bytes, &options));
    }
}

#[test]
fn tsv_survives_damage() {
    both(1, Format::Tsv, "label\ttext\n1\tgut & schön\n0\t不错\r\n1\t\n".as_bytes());
}

#[test]
fn csv_survives_damage() {
    both(2, Format::Csv, "label,text\n1,\"a, \"\"b\"\"\nc\"\r\n0,不错\n1,\"\"\n".as_bytes());
}

#[test]
fn json_lines_survive_damage() {
    both(
        3,
        Format::JsonLines,
        "{\"a\":\"不\\n\",\"n\":1.5e3}\n{\"a\":[1,\"x\"],\"n\":null}\n".as_bytes(),
    );
}

#[test]
fn json_arrays_and_spread_objects_survive_damage() {
    let array = "[ {\"a\":\"不\\n]\",\"n\":1.5e3},\n{\"a\":[1,\"x\"],\"n\":null} ]\n";
    both(14, Format::JsonLines, array.as_bytes());
    both(15, Format::JsonLines, "{\n\"a\": \"}\",\n\"n\": {}}\n{\"a\": 1}".as_bytes());
}

#[test]
fn separators_of_spreadsheets_survive_damage() {
    both(16, Format::Csv, "sep=;\r\nlabel;text;;\n1;\"a; \"\"b\"\"\nc\";;\n".as_bytes());
}

#[test]
fn gzip_survives_damage() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"label\ttext\n1\tgood good good\n0\tbad bad\n").unwrap();
    let bytes = gzip.finish().unwrap();
    fuzz(4, &bytes, |bytes| read_records(bytes, &ReadOptions::default()));
}

#[test]
fn schema_and_its_cells_survive_damage() {
    let schema = b"content:str:1,label:int:1,vector:float:2,raw:base64:1";
    fuzz(5, schema, |bytes| Schema::parse(&String::from_utf8_lossy(bytes)).is_ok());
    let schema = Schema::parse(std::str::from_utf8(schema).unwrap()).unwrap();
    let options =
        ReadOptions { format: Format::Tsv, schema: Some(schema), ..ReadOptions::default() };
    fuzz(6, b"text\t1\t1.5,2\tAACAPw==\nmore\t-7\t0,1e3\tAAAAAA==\n", |bytes| {
        read_records(bytes, &options)
    });
}

#[test]
fn options_survive_damage() {
    let toml = b"seed = 7\n[optimizer]\nlr = 5e-5\nbetas = [0.9, 0.999]\nname = \"adamw\"\n";
    let schema = serde_json::json!({"properties": {"seed": {"type": "integer", "default": 1},
        "optimizer": {"properties": {"lr": {"type": "number", "minimum": 0}, "betas": {"type":
        "array", "items": {"type": "number"}}, "name": {"enum": ["adamw", "sgd"]}}}}});
    fuzz(7, toml, |bytes| {
        let Ok(mut value) = options::parse_toml(&String::from_utf8_lossy(bytes), "f") else {
            return false;
        };
        options::validate(&schema, &mut value, "f", "").is_ok()
    });
    fuzz(8, b"a.b.c={\"x\": [1, 2.5, null]}", |bytes| {
        let mut value = serde_json::json!({"a": {"b": {}}});
        options::set(&mut value, &String::from_utf8_lossy(bytes), "f").is_ok()
    });
}

#[test]
fn safetensors_survive_damage() {
    let sample = safetensors::tests::sample();
    fuzz(9, &sample, |bytes| match safetensors::Header::parse(Path::new("f"), bytes) {
        Ok(header) => {
            for entry in header.tensors.values() {
                assert_eq!(entry.dtype.bytes(&entry.shape), Some(bytes[entry.range.clone()].len()));
            }
            true
        }
        Err(_) => false,
    });
    let index = b"{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"x\",\"b\":\"y\"}}";
    fuzz(10, index, |bytes| {
        safetensors::ShardIndex::parse(Path::new("f"), &String::from_utf8_lossy(bytes)).is_ok()
    });
}

#[test]
fn torch_files_survive_damage() {
    fuzz(11, &torch_pickle::tests::sample(), |bytes| {
        match torch_pickle::TorchFile::parse(Path::new("f"), bytes) {
            Ok(file) => {
                for tensor in &file.tensors {
                    if let Ok(data) = file.bytes(tensor) {
                        assert_eq!(Some(data.len()), tensor.dtype.bytes(&tensor.shape));
                    }
                }
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn pickles_survive_damage() {
    // Damage inside the pickle only, so that it is not the archive that refuses.
    let pickle = torch_pickle::tests::pickle(4);
    fuzz(12, &pickle, |bytes| {
        let archive = torch_pickle::tests::sample_of(bytes);
        torch_pickle::TorchFile::parse(Path::new("f"), &archive).is_ok()
    });
}

#[test]
fn arrays_survive_damage() {
    fuzz(13, &npy::tests::sample(), |bytes| npy::read(Path::new("f"), bytes).is_ok());
}
