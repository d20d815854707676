//! NumPy's array files: vectors as f32 matrices, written row by row and read whole.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, WeightError, excerpt};

/// The bytes before the data: magic, version, length and the padded description. Enough for any two lengths.
const HEADER: usize = 128;
const MAGIC: &[u8] = b"\x93NUMPY";

fn header(rows: u64, columns: usize) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&((HEADER - 10) as u16).to_le_bytes());
    let text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(HEADER - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Writes a matrix of f32 in format version 1.0, row by row; the number of rows need not be known before.
pub struct NpyWriter<W: Write + Seek> {
    path: PathBuf,
    out: W,
    columns: usize,
    rows: u64,
}

impl<W: Write + Seek> NpyWriter<W> {
    /// Starts a matrix of `columns` columns on `out`, which messages call `path`.
    pub fn new(path: &Path, mut out: W, columns: usize) -> Result<NpyWriter<W>> {
        out.write_all(&header(0, columns)).map_err(|error| Error::io("write", path, error))?;
        Ok(NpyWriter { path: path.to_path_buf(), out, columns, rows: 0 })
    }

    /// Adds a row. Errors: another number of columns.
    pub fn row(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.columns {
            let expected = format!("a vector of {} numbers", self.columns);
            return Err(WeightError::new(&self.path, expected, row.len().to_string(), "").into());
        }
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.rows += 1;
        self.out.write_all(&bytes).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Writes the number of rows into the header and gives the output back, positioned at its end.
    pub fn finish(mut self) -> Result<W> {
        let mut patch = || {
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(&header(self.rows, self.columns))?;
            self.out.seek(SeekFrom::End(0))?;
            self.out.flush()
        };
        patch().map_err(|error| Error::io("write", &self.path, error))?;
        Ok(self.out)
    }
}

/// An array of f32 in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Vec<f32>,
}

/// Reads an array of `<f4` or `<f8` (rounded to f32) in row-major order from the whole file `bytes`, which messages
/// call `path`. Errors: another type or order, a damaged header, a length that does not fit the shape.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Array> {
    let fault = |expected: &str, found: String| {
        let remedy = "save it with `numpy.save` as float32 in C order";
        Error::from(WeightError::new(path, expected, found, remedy))
    };
    if !bytes.starts_with(MAGIC) || bytes.len() < 12 {
        return Err(fault("an array file of NumPy", "something else".to_string()));
    }
    let (length, start) = match bytes[6] {
        1 => (usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), 10),
        2 | 3 => (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12),
        version => return Err(fault("format version 1 to 3", version.to_string())),
    };
    let Some(text) = bytes.get(start..start + length) else {
        return Err(fault("a whole header", format!("{} bytes in the file", bytes.len())));
    };
    let text = String::from_utf8_lossy(text);
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let width = match value("descr") {
        Some(rest) if rest.starts_with("'<f4'") => 4,
        Some(rest) if rest.starts_with("'<f8'") => 8,
        other => {
            let found = excerpt(other.and_then(|rest| rest.split(',').next()).unwrap_or("nothing"));
            return Err(fault("elements of type '<f4' or '<f8'", found));
        }
    };
    if !value("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(fault("row-major (C) order", "another".to_string()));
    }
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let shape: Option<Vec<usize>> = shape.and_then(|(inside, _)| {
        let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().ok()).collect()
    });
    let Some(shape) = shape else {
        return Err(fault("a shape of whole numbers", "another".to_string()));
    };
    let data = &bytes[start + length..];
    let needed = shape.iter().try_fold(width, |bytes: usize, &size| bytes.checked_mul(size));
    if needed != Some(data.len()) {
        let expected = format!("the data of the shape {shape:?}");
        return Err(fault(&expected, format!("{} bytes", data.len())));
    }
    let values = if width == 4 {
        let four = data.as_chunks::<4>().0;
        four.iter().map(|four| f32::from_le_bytes(*four)).collect()
    } else {
        let eight = data.as_chunks::<8>().0;
        eight.iter().map(|eight| f64::from_le_bytes(*eight) as f32).collect()
    };
    Ok(Array { shape, values })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::*;

    pub(crate) fn sample() -> Vec<u8> {
        let out = Cursor::new(Vec::new());
        let mut writer = NpyWriter::new(Path::new("v.npy"), out, 3).unwrap();
        writer.row(&[1.0, 2.0, 3.0]).unwrap();
        writer.row(&[4.0, 5.0, 6.5]).unwrap();
        assert!(writer.row(&[1.0]).is_err());
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn rows_read_back() {
        let bytes = sample();
        assert_eq!(bytes.len(), HEADER + 24);
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(bytes[HEADER - 1], b'\n');
        let array = read(Path::new("v.npy"), &bytes).unwrap();
        assert_eq!(array, Array { shape: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5] });
    }

    #[test]
    fn other_arrays_are_refused() {
        let change = |from: &str, to: &str| {
            let bytes = sample();
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
        };
        for (bytes, needle) in [
            (change("<f4", "<i4"), "found '<i4'"),
            (change("False", "True "), "row-major"),
            (change("(2, 3)", "(9, 3)"), "found 24 bytes"),
            (change("(2, 3)", "(2, x)"), "whole numbers"),
            (sample()[..50].to_vec(), "whole header"),
            (b"PK".to_vec(), "something else"),
        ] {
            let message = read(Path::new("v"), &bytes).unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }
}
