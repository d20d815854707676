//! The safetensors format: a header's length (u64, little-endian), the header as JSON, then the tensors' bytes.
//! Reading works on bytes that somebody else mapped or read; writing streams borrowed bytes.

mod index;
mod text;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result, WeightError, excerpt};
use crate::files::atomic;
use crate::files::dtype::WeightType;
use crate::nearest::nearest;
pub use index::{ShardIndex, plan_shards};
use text::{EntryText, HeaderText};

/// The longest header that is believed, the limit of the reference implementation.
const LONGEST_HEADER: u64 = 100_000_000;
const DOWNLOAD: &str = "the file is damaged; fetch or save it again";

/// A tensor to write: contiguous bytes in little-endian order.
#[derive(Debug, Clone)]
pub struct TensorBytes<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: WeightType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, as many bytes as type and shape need.
    pub data: &'a [u8],
}

/// Writes `tensors` to `out`, which messages call `path`, with metadata `{"format": "pt"}` as `transformers` wants
/// it. The order is by falling element size and then by name, so each tensor is aligned. Errors: a name twice, bytes
/// that do not fit type and shape, a failed write.
pub fn write(path: &Path, out: &mut dyn Write, tensors: &[TensorBytes<'_>]) -> Result<()> {
    let mut order: Vec<&TensorBytes<'_>> = tensors.iter().collect();
    order.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(b.name)));
    let mut header = Map::new();
    header.insert("__metadata__".to_string(), json!({"format": "pt"}));
    let mut offset = 0usize;
    for tensor in &order {
        let needed = tensor.dtype.bytes(&tensor.shape);
        if needed != Some(tensor.data.len()) {
            let expected = format!("the bytes of {} {:?}", tensor.dtype, tensor.shape);
            return Err(WeightError::new(path, expected, tensor.data.len().to_string(), "")
                .tensor(tensor.name)
                .into());
        }
        let end = offset + tensor.data.len();
        let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape,
            "data_offsets": [offset, end]});
        if tensor.name == "__metadata__" || header.insert(tensor.name.to_string(), entry).is_some()
        {
            return Err(WeightError::new(path, "different names", "the same name again", "")
                .tensor(tensor.name)
                .into());
        }
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let io = |error| Error::io("write", path, error);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(&header).map_err(io)?;
    for tensor in order {
        out.write_all(tensor.data).map_err(io)?;
    }
    Ok(())
}

/// A single precision tensor to write: name, shape and its elements as [`TensorBytes::data`].
pub type F32Bytes = (String, Vec<usize>, Vec<u8>);

/// Writes single precision tensors to a file that is whole or not there. Errors: as [`write()`].
pub fn write_f32(path: &Path, tensors: &[F32Bytes]) -> Result<()> {
    let entries: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, shape, data)| TensorBytes {
            name,
            dtype: WeightType::F32,
            shape: shape.clone(),
            data,
        })
        .collect();
    atomic::write_file(path, |out| write(path, out, &entries))
}

/// What the header says about one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// The type of its elements.
    pub dtype: WeightType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its bytes are in the whole file; inside the file, and as long as type and shape need.
    pub range: Range<usize>,
}

/// A checked header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    path: PathBuf,
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// The texts under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Parses and checks the header of the whole file `bytes`, which messages call `path`. Errors: a header that is
    /// longer than the file or absurd, damaged JSON, unknown types, offsets outside the file, overlaps, gaps, bytes
    /// left over, sizes that do not fit type and shape.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Header> {
        let fault =
            |expected: &str, found: String| WeightError::new(path, expected, found, DOWNLOAD);
        let Some(length) = bytes.first_chunk::<8>() else {
            let found = format!("a file of {} bytes", bytes.len());
            return Err(fault("a safetensors file of at least 8 bytes", found).into());
        };
        let length = u64::from_le_bytes(*length);
        if length > LONGEST_HEADER {
            let found = if bytes.starts_with(b"version https://git-lfs") {
                "a Git LFS pointer instead of the file (fetch it with `git lfs pull`)".to_string()
            } else if bytes.starts_with(b"PK") {
                "a zip archive, perhaps a `pytorch_model.bin` under another name".to_string()
            } else {
                format!("a header of {length} bytes")
            };
            let expected = format!("a safetensors header of at most {LONGEST_HEADER} bytes");
            return Err(fault(&expected, found).into());
        }
        let start = 8 + length as usize;
        let Some(header) = bytes.get(8..start) else {
            let expected = format!("a header of {length} bytes");
            return Err(fault(&expected, format!("{} bytes in the file", bytes.len())).into());
        };
        let HeaderText { metadata, entries } = serde_json::from_slice(header)
            .map_err(|error| fault("a header that is a JSON object", error.to_string()))?;
        let mut parsed = Header { path: path.to_path_buf(), tensors: BTreeMap::new(), metadata };
        for (name, entry) in entries {
            let entry = parse_entry(path, &entry, start, bytes.len())
                .map_err(|error| error.tensor(excerpt(&name)))?;
            parsed.tensors.insert(name, entry);
        }
        parsed.check_cover(start, bytes.len())?;
        Ok(parsed)
    }

    /// Every byte behind the header belongs to exactly one tensor.
    fn check_cover(&self, start: usize, end: usize) -> Result<()> {
        let mut order: Vec<(&String, &TensorEntry)> = self.tensors.iter().collect();
        order.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
        let mut at = start;
        for (name, entry) in order {
            if entry.range.start != at {
                let what = if entry.range.start < at { "an overlap" } else { "a gap" };
                let expected = format!("data at offset {}", at - start);
                let found = format!("{what}: data at offset {}", entry.range.start - start);
                return Err(WeightError::new(&self.path, expected, found, DOWNLOAD)
                    .tensor(name)
                    .into());
            }
            at = entry.range.end;
        }
        if at != end {
            let expected = format!("{} bytes of data", at - start);
            return Err(WeightError::new(
                &self.path,
                expected,
                (end - start).to_string(),
                DOWNLOAD,
            )
            .into());
        }
        Ok(())
    }

    /// The entry of the tensor `name`. Errors: no such tensor, with the nearest name.
    pub fn entry(&self, name: &str) -> Result<&TensorEntry> {
        self.tensors.get(name).ok_or_else(|| {
            let near = nearest(name, self.tensors.keys().map(String::as_str));
            let remedy = near.map(|near| format!("the nearest is `{near}`")).unwrap_or_default();
            let found = format!("{} others", self.tensors.len());
            WeightError::new(&self.path, "a tensor of this name", found, remedy).tensor(name).into()
        })
    }
}

fn parse_entry(
    path: &Path,
    entry: &EntryText,
    start: usize,
    end: usize,
) -> std::result::Result<TensorEntry, WeightError> {
    let fault = |expected: &str, found: String| WeightError::new(path, expected, found, DOWNLOAD);
    let shown = |text: Option<String>| match text {
        Some(text) => format!("`{}`", excerpt(&text)),
        None => "nothing".to_string(),
    };
    let dtype = entry.dtype.as_deref().and_then(WeightType::from_name).ok_or_else(|| {
        WeightError::new(
            path,
            "a known `dtype` (BOOL, U8 to U64, I8 to I64, F16, BF16, F32, F64)",
            shown(entry.dtype.as_ref().map(|name| format!("{name:?}"))),
            "convert the tensor to one of these types",
        )
    })?;
    let shape = entry.shape.as_ref().and_then(|shape| shape.whole());
    let shape = shape.ok_or_else(|| {
        fault("a `shape` of whole numbers", shown(entry.shape.as_ref().map(ToString::to_string)))
    })?;
    let offsets = entry.data_offsets.as_ref().and_then(|offsets| offsets.whole());
    let Some([from, to]) = offsets.as_deref().and_then(|two| <[usize; 2]>::try_from(two).ok())
    else {
        let found = shown(entry.data_offsets.as_ref().map(ToString::to_string));
        return Err(fault("two `data_offsets`", found));
    };
    let room = end - start;
    if from > to || to > room {
        let expected = format!("`data_offsets` inside the {room} bytes of data");
        return Err(fault(&expected, format!("[{from}, {to}]")));
    }
    match dtype.bytes(&shape) {
        Some(bytes) if bytes == to - from => {
            Ok(TensorEntry { dtype, shape, range: start + from..start + to })
        }
        bytes => {
            let bytes = bytes.map_or("more than the memory".to_string(), |bytes| bytes.to_string());
            let expected = format!("{bytes} bytes for {dtype} {shape:?}");
            Err(fault(&expected, (to - from).to_string()))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Vec<u8> {
        let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let tensors = [
            TensorBytes { name: "flags", dtype: WeightType::U8, shape: vec![3], data: &[1, 2, 3] },
            TensorBytes {
                name: "b.weight",
                dtype: WeightType::F32,
                shape: vec![2, 3],
                data: &floats,
            },
            TensorBytes { name: "a.empty", dtype: WeightType::F32, shape: vec![0, 4], data: &[] },
            TensorBytes {
                name: "scalar",
                dtype: WeightType::I64,
                shape: vec![],
                data: &[7, 0, 0, 0, 0, 0, 0, 0],
            },
        ];
        let mut bytes = Vec::new();
        write(Path::new("m.safetensors"), &mut bytes, &tensors).unwrap();
        bytes
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn written_files_read_back() {
        let bytes = sample();
        let header = Header::parse(Path::new("m"), &bytes).unwrap();
        assert_eq!(header.tensors.len(), 4);
        assert_eq!(header.metadata["format"], "pt");
        let entry = header.entry("b.weight").unwrap();
        assert_eq!((entry.dtype, &entry.shape[..]), (WeightType::F32, &[2, 3][..]));
        assert_eq!(entry.range.start % 4, 0);
        assert_eq!(bytes[entry.range.clone()][20..], 5f32.to_le_bytes());
        assert_eq!(header.entry("scalar").unwrap().range.start % 8, 0);
        let message = header.entry("b.wieght").unwrap_err().to_string();
        assert!(message.contains("the nearest is `b.weight`"), "{message}");
    }

    #[test]
    fn damage_is_named() {
        let whole = sample();
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(
                "{{\"w\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
            )
        };
        let again = "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\
            \"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
        let long = one("F32", &format!("[{}1]", "1,".repeat(64)), "[0,4]");
        let two = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\
            \"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}";
        for (bytes, needle) in [
            (whole[..5].to_vec(), "a file of 5 bytes"),
            (whole[..40].to_vec(), "40 bytes in the file"),
            (whole[..whole.len() - 2].to_vec(), "inside the 33 bytes"),
            ([&whole[..], b"x"].concat(), "expected 35 bytes of data, found 36"),
            (vec![0xff; 16], "a header of 18446744073709551615 bytes"),
            (file("{", 0), "a JSON object"),
            (file(&one("F8", "[1]", "[0,1]"), 1), "tensor `w`: expected a known `dtype`"),
            (file(&one("F32", "[-1]", "[0,4]"), 4), "a `shape` of whole numbers"),
            (file(&one("F32", "[2]", "[0,4]"), 4), "expected 8 bytes for F32 [2], found 4"),
            (file(&one("F32", "[1]", "[4,0]"), 4), "found [4, 0]"),
            (file(&one("F32", "[4611686018427387904,4]", "[0,4]"), 4), "more than the memory"),
            (file(&one("F32", "[1]", "[4,8]"), 8), "a gap"),
            (file(again, 0), "the key `a` twice"),
            (file("{\"w\":[[]]}", 0), "a JSON object"),
            (file(&long, 4), "at most 64 numbers"),
            (file(two, 6), "tensor `b`: expected data at offset 4, found an overlap"),
        ] {
            let error = Header::parse(Path::new("m"), &bytes).unwrap_err();
            assert!(error.is_user_error());
            assert!(error.to_string().contains(needle), "{error} lacks {needle}");
        }
    }

    #[test]
    fn writer_refuses_wrong_sizes_and_names() {
        let tensor = |name, data| TensorBytes { name, dtype: WeightType::U8, shape: vec![1], data };
        let write = |tensors: &[TensorBytes<'_>]| write(Path::new("m"), &mut Vec::new(), tensors);
        assert!(write(&[tensor("a", &[1, 2])]).unwrap_err().to_string().contains("tensor `a`"));
        assert!(write(&[tensor("a", &[1]), tensor("a", &[2])]).is_err());
    }
}
