//! Files of word vectors: word2vec's text and binary formats (Mikolov et al. 2013), GloVe's (Pennington et al. 2014)
//! and fastText's `.vec` (Bojanowski et al. 2017). They are read entry by entry, and only vectors of wanted words stay.

use easytransfer_plugin::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// What a file has of a vocabulary.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Places in the vocabulary with their vectors, in the order of the places.
    pub vectors: Vec<(usize, Vec<f32>)>,
    /// How many of these words stand in the file in other case only ("Paris" for "paris").
    pub other_case: usize,
}

/// Bytes of the longest word, and of the longest number in a text.
const LONGEST_WORD: usize = 1 << 16;
const LONGEST_NUMBER: usize = 64;

/// Reads the vectors of `words`, of `width` numbers each, from a regular file: word2vec's binary format where its name
/// ends in `.bin`, else text. A word that the file has twice has its first vector. Errors name the file and the line
/// (of a binary file the vector), what was expected and found.
pub fn read(path: &str, words: &[String], width: usize) -> Result<Found> {
    let failed = |error: std::io::Error| {
        Error::bad_input(format!("word_vectors: expected a readable file `{path}`: {error}"))
    };
    // What is no file (a pipe, a device) is not opened: it might never answer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        let message = format!("word_vectors: `{path}`: expected a file, found something else");
        return Err(Error::bad_input(message));
    }
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let is_binary = path.ends_with(".bin");
    parse(&mut file, is_binary, words, width)
        .map_err(|fault| Error::bad_input(format!("word_vectors: `{path}`{fault}")))
}

/// The vectors of wanted words so far.
struct Wanted<'a> {
    exact: HashMap<&'a [u8], usize>,
    /// The vector of each word, and whether it is of another case.
    vectors: Vec<Option<(Vec<f32>, bool)>>,
}

impl<'a> Wanted<'a> {
    fn new(words: &'a [String]) -> Self {
        let exact = words.iter().enumerate().map(|(place, word)| (word.as_bytes(), place));
        Self { exact: exact.collect(), vectors: vec![None; words.len()] }
    }

    /// The place of a word of the file whose vector is wanted, and whether its case differs.
    fn place(&self, word: &[u8]) -> Option<(usize, bool)> {
        if let Some(&place) = self.exact.get(word) {
            let is_open = self.vectors[place].as_ref().is_none_or(|(_, other_case)| *other_case);
            return is_open.then_some((place, false));
        }
        if word.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
            return None;
        }
        let lower = std::str::from_utf8(word).ok()?.to_lowercase();
        let place = *self.exact.get(lower.as_bytes())?;
        self.vectors[place].is_none().then_some((place, true))
    }

    fn found(self) -> Found {
        let mut found = Found::default();
        for (place, vector) in self.vectors.into_iter().enumerate() {
            if let Some((vector, other_case)) = vector {
                found.vectors.push((place, vector));
                found.other_case += usize::from(other_case);
            }
        }
        found
    }
}

/// What is wrong with a file, as it follows its name.
type Fault = String;

/// Reads a file of one of the formats.
fn parse(
    file: &mut impl BufRead,
    is_binary: bool,
    words: &[String],
    width: usize,
) -> std::result::Result<Found, Fault> {
    let broken = |error: std::io::Error| format!(": {error}");
    let begin = file.fill_buf().map_err(broken)?;
    for (magic, what) in [
        (&b"\x1f\x8b"[..], "a file that gzip has compressed; unpack it first"),
        (b"PK\x03\x04", "a zip archive; unpack it first"),
        (b"BZh", "a file that bzip2 has compressed; unpack it first"),
        (b"\xba\x16\x4f\x2f", "a model of fastText; its vectors are in the file that ends in .vec"),
    ] {
        if begin.starts_with(magic) {
            return Err(format!(": expected word vectors, found {what}"));
        }
    }
    if begin.starts_with(b"\xef\xbb\xbf") {
        file.consume(3);
    }
    let mut wanted = Wanted::new(words);
    if is_binary {
        binary(file, &mut wanted, width)?;
    } else {
        text(file, &mut wanted, width)?;
    }
    Ok(wanted.found())
}

/// The number of vectors and their width, if a line is a header.
fn header(line: &[u8]) -> Option<(u64, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace();
    let header = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(header)
}

fn wrong_width(found: usize, width: usize) -> Fault {
    format!(
        ": expected vectors of {width} numbers (encoder.embedding_size), found {found}; say --set \
         encoder.embedding_size={found}, or name another file"
    )
}

/// Lines of a word and its numbers; a first line of two whole numbers says how many lines follow, and their width.
fn text(
    file: &mut impl BufRead,
    wanted: &mut Wanted<'_>,
    width: usize,
) -> std::result::Result<(), Fault> {
    let longest = LONGEST_WORD + width.saturating_mul(LONGEST_NUMBER);
    let (mut line, mut number, mut promised) = (Vec::new(), 0u64, None);
    loop {
        line.clear();
        number += 1;
        let at = |fault: &str| format!(", line {number}: {fault}");
        let mut limited = file.take(longest as u64 + 1);
        limited.read_until(b'\n', &mut line).map_err(|error| at(&error.to_string()))?;
        if line.is_empty() {
            break;
        }
        if line.len() > longest {
            return Err(at(&format!(
                "expected a word and {width} numbers, found more than {longest} bytes; word2vec's binary format is \
                 read from files that end in .bin"
            )));
        }
        let trimmed = line.trim_ascii_end();
        if number == 1
            && let Some((count, found)) = header(trimmed)
        {
            if found != width {
                return Err(format!(", line {number}{}", wrong_width(found, width)));
            }
            promised = Some(count);
            continue;
        }
        let (word, fields) = split(trimmed, width).ok_or_else(|| {
            let found = trimmed.split(is_blank).filter(|field| !field.is_empty()).count();
            at(&format!("expected a word and {width} numbers, found {found} fields"))
        })?;
        let word = word.trim_ascii_end();
        let is_more = |field: &&[u8]| is_number(field) && (number == 1 || field.contains(&b'.'));
        let more = word.split(is_blank).skip(1).filter(is_more).count();
        if more > 0 {
            return Err(format!(", line {number}{}", wrong_width(width + more, width)));
        }
        let place = wanted.place(word);
        if let Some(field) = fields.iter().find(|field| !may_be_number(field)) {
            return Err(at(&not_a_number(field)));
        }
        let Some((place, other_case)) = place else { continue };
        let numbers = fields.iter().map(|field| finite(field).ok_or(field));
        let vector = numbers.collect::<std::result::Result<Vec<f32>, _>>();
        let vector = vector.map_err(|field| at(&not_a_number(field)))?;
        wanted.vectors[place] = Some((vector, other_case));
    }
    let lines = number - 1 - u64::from(promised.is_some());
    match promised {
        Some(promised) if promised != lines => Err(format!(
            ": expected {promised} vectors, as its first line says, found {lines}; the file is not whole"
        )),
        None if lines == 0 => Err(": expected word vectors, found an empty file".to_owned()),
        _ => Ok(()),
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A line as a word, which may have blanks within, and its last `width` fields.
fn split(line: &[u8], width: usize) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut rest = line;
    let mut fields = Vec::with_capacity(width.min(line.len()));
    for _ in 0..width {
        rest = &rest[..rest.len() - rest.iter().rev().take_while(|byte| is_blank(byte)).count()];
        let field = rest.iter().rev().take_while(|byte| !is_blank(byte)).count();
        let (before, field) = rest.split_at(rest.len() - field);
        // A word stands before the first number, though it may be one that is empty but for the blank behind it.
        if field.is_empty() || before.is_empty() {
            return None;
        }
        fields.push(field);
        rest = before;
    }
    fields.reverse();
    Some((rest, fields))
}

/// Whether a field has the bytes of a number. Vectors of words that nobody wants are looked at no closer.
fn may_be_number(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
}

fn finite(field: &[u8]) -> Option<f32> {
    let number: f32 = std::str::from_utf8(field).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// Whether a field before the numbers may be one more of them. Words of several parts ("1/2 cup", ". . .") have none,
/// but for whole numbers, which count in the first line only: there no file has such a word.
fn is_number(field: &[u8]) -> bool {
    may_be_number(field) && finite(field).is_some()
}

fn not_a_number(field: &[u8]) -> Fault {
    let field: String = String::from_utf8_lossy(field).chars().take(40).collect();
    format!("expected a finite number, found {field:?}")
}

/// A line "COUNT WIDTH", then words, each with a blank behind it and its numbers as little-endian floats.
fn binary(
    file: &mut impl BufRead,
    wanted: &mut Wanted<'_>,
    width: usize,
) -> std::result::Result<(), Fault> {
    let mut line = Vec::new();
    let mut limited = file.take(LONGEST_NUMBER as u64);
    limited.read_until(b'\n', &mut line).map_err(|error| format!(": {error}"))?;
    let (count, found) = header(&line).ok_or_else(|| {
        ", line 1: expected the number of vectors and their width, as word2vec's binary format begins".to_owned()
    })?;
    if found != width {
        return Err(format!(", line 1{}", wrong_width(found, width)));
    }
    let (mut word, mut bytes) = (Vec::new(), vec![0u8; width.saturating_mul(4)]);
    for number in 1..=count {
        let ends = || format!(", vector {number} of {count}: the file ends within it");
        word.clear();
        let mut limited = file.take(LONGEST_WORD as u64);
        limited.read_until(b' ', &mut word).map_err(|_| ends())?;
        if word.pop() != Some(b' ') {
            return Err(if word.len() + 1 < LONGEST_WORD {
                ends()
            } else {
                format!(
                    ", vector {number} of {count}: expected a word with a blank behind it, found {LONGEST_WORD} bytes without one"
                )
            });
        }
        file.read_exact(&mut bytes).map_err(|_| ends())?;
        // Some writers end an entry with a line's end, which then precedes the next word.
        let word = word.strip_prefix(b"\n").unwrap_or(&word);
        let Some((place, other_case)) = wanted.place(word) else { continue };
        let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let vector: Vec<f32> = numbers.collect();
        if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
            return Err(format!(
                ", vector {number} of {count}: expected finite numbers, found {value}"
            ));
        }
        wanted.vectors[place] = Some((vector, other_case));
    }
    line.clear();
    file.take(2).read_to_end(&mut line).map_err(|error| format!(": {error}"))?;
    if line.is_empty() || line == b"\n" {
        Ok(())
    } else {
        Err(format!(
            ": expected {count} vectors, as its first line says, found more bytes behind them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn parsed(bytes: &[u8], is_binary: bool, width: usize) -> std::result::Result<Found, Fault> {
        let vocabulary = words(&["[PAD]", "[UNK]", "the", "paris", ". .", "Ünit"]);
        parse(&mut &*bytes, is_binary, &vocabulary, width)
    }

    fn binary_file() -> Vec<u8> {
        let mut bytes = b"3 2\n".to_vec();
        for (word, vector) in [("Paris", [1.5f32, -2.0]), ("\nthe", [0.25, 8.0]), ("x", [9.0, 9.0])]
        {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(b' ');
            bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn formats_give_the_vectors_of_the_vocabulary() {
        let expected = vec![(2, vec![0.25, 8.0]), (3, vec![1.5, -2.0])];
        for text in [
            "Paris 1.5 -2\nthe 0.25 8e0\nother 1 2\n",
            "3 2\nParis 1.5 -2 \nthe 0.25 8 \nother 1 2 \n",
            "3 2\r\nParis\t1.5\t-2\r\nthe\t.25\t8.\r\nother 1 2",
            "\u{feff}the 0.25 8\nPARIS 1.5 -2\nthe 1 1\nParis 3 3\n",
        ] {
            let found = parsed(text.as_bytes(), false, 2).unwrap();
            assert_eq!(found, Found { vectors: expected.clone(), other_case: 1 }, "{text:?}");
        }
        for end in ["", "\n"] {
            let mut bytes = binary_file();
            bytes.extend_from_slice(end.as_bytes());
            let found = parsed(&bytes, true, 2).unwrap();
            assert_eq!(found, Found { vectors: expected.clone(), other_case: 1 });
        }
        // The word as it is written wins, wherever it stands; blanks within a word are GloVe's; bytes that are no
        // UTF-8 are nobody's word.
        let text = b"Paris 1 1\nparis 2 2\n\xff\xfe 5 5\n. . 3 3\n\xc3\x9cNIT 4 4\n 6 6\n";
        let found = parsed(text, false, 2).unwrap();
        assert_eq!(found.vectors, [(3, vec![2.0, 2.0]), (4, vec![3.0, 3.0])]);
        assert_eq!(found.other_case, 0);
    }

    #[test]
    fn bad_files_are_refused_by_line() {
        for (text, expected) in [
            ("", "an empty file"),
            ("the 1 2\nparis 1\n", ", line 2: expected a word and 2 numbers, found 2 fields"),
            ("the 1 x\n", ", line 1: expected a finite number, found \"x\""),
            ("the 1 2\nother 1 2;\n", ", line 2: expected a finite number, found \"2;\""),
            ("the 1 1e99\n", ", line 1: expected a finite number, found \"1e99\""),
            ("the 1 --2\n", ", line 1: expected a finite number, found \"--2\""),
            ("1 2\n", "expected 1 vectors, as its first line says, found 0"),
            ("2 2\nthe 1 2\n", "expected 2 vectors, as its first line says, found 1"),
            ("1 2\nthe 1 2\nparis 1 2\n", "expected 1 vectors, as its first line says, found 2"),
            (
                "4 3\nthe 1 2 3\n",
                ", line 1: expected vectors of 2 numbers (encoder.embedding_size), found 3",
            ),
            (
                "the 0.1 0.2 0.3\n",
                ", line 1: expected vectors of 2 numbers (encoder.embedding_size), found 3",
            ),
            ("the 1 2\n\nparis 1 2\n", ", line 2: expected a word and 2 numbers, found 0 fields"),
            ("\u{1f}\u{8b}", "found 1 fields"),
            ("PK\u{3}\u{4}", "zip archive"),
        ] {
            let fault = parsed(text.as_bytes(), false, 2).unwrap_err();
            assert!(fault.contains(expected), "{text:?}: {fault}");
        }
        let long = "x".repeat(LONGEST_WORD + 2 * LONGEST_NUMBER + 1);
        assert!(parsed(long.as_bytes(), false, 2).unwrap_err().contains("end in .bin"));
        assert!(parsed(b"\x1f\x8b\x08", false, 2).unwrap_err().contains("gzip"));
        assert!(parsed(b"\xba\x16\x4f\x2f\x0c", true, 2).unwrap_err().contains(".vec"));
        let whole = binary_file();
        for (bytes, expected) in [
            (&whole[..whole.len() - 1], ", vector 3 of 3: the file ends within it"),
            (&whole[..10], ", vector 1 of 3: the file ends within it"),
            (&[&whole[..], b"xy"].concat(), "found more bytes behind them"),
            (b"the 1 2\n", ", line 1: expected the number of vectors"),
            (b"3 4\n", ", line 1: expected vectors of 2 numbers"),
            (b"18446744073709551615 2\n", "vector 1 of 18446744073709551615: the file ends"),
        ] {
            let fault = parsed(bytes, true, 2).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        let mut endless = b"1 2\nthe ".to_vec();
        endless.extend([f32::NAN, 1.0].iter().flat_map(|value| value.to_le_bytes()));
        assert!(parsed(&endless, true, 2).unwrap_err().contains("found NaN"));
    }

    /// Damaged files are read or refused, and nothing that is not finite comes out of them.
    #[test]
    fn damage_is_no_panic() {
        let text = "4 2\nParis 1.5 -2\nthe 0.25 8e0\n. . 3 3\nother 1 2\n".as_bytes().to_vec();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below.max(1)
        };
        let mut counts = [0; 2];
        for round in 0..20_000 {
            let is_binary = round % 2 == 1;
            let mut bytes = if is_binary { binary_file() } else { text.clone() };
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(5) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.truncate(at + 1),
                    2 => bytes.insert(at, b" \n\t\xff.-e09"[random(9)]),
                    3 => drop(bytes.drain(at..(at + random(6)).min(bytes.len()))),
                    _ => bytes[at] ^= 1 << random(8),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let outcome = parsed(&bytes, is_binary, 2);
            counts[usize::from(outcome.is_ok())] += 1;
            for (_, vector) in outcome.unwrap_or_default().vectors {
                assert!(vector.len() == 2 && vector.iter().all(|value| value.is_finite()));
            }
        }
        assert!(counts[0] > 1000 && counts[1] > 1000, "{counts:?}");
    }
}
