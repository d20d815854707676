//! The format of `torch.save` before PyTorch 1.6 (and today with `_use_new_zipfile_serialization=False`): five
//! pickles end to end, which hold a magic number, a version, facts about the machine, the object, and the storages'
//! keys; then, in the order of the keys, each storage's number of elements (i64, little-endian) and its bytes.

use std::path::Path;

use super::{CONVERT, Places};
use crate::error::{Result, WeightError, excerpt};
use crate::files::pickle::{self, Heap, Item};

/// The first pickle: the magic number 0x1950a86a20f9469cfc6c.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// The only version that there has been.
const VERSION: i64 = 1001;

/// Reads the pickles, and where each storage's bytes are. Errors: another version or byte order, a file that ends
/// early or goes on behind the last storage, keys of storages that the object does not use.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<(Heap, Places)> {
    let fault = |expected: &str, found: String| WeightError::new(path, expected, found, CONVERT);
    let mut at = MAGIC.len();
    let mut next = || -> Result<Heap> {
        let heap =
            pickle::run(path, bytes.get(at..).unwrap_or_default()).map_err(|mut error| {
                error.expected.push_str(" in the format before PyTorch 1.6");
                error
            })?;
        at += heap.length;
        Ok(heap)
    };
    let version = next()?.result;
    if !matches!(version, Item::Int(VERSION)) {
        let expected = format!("version {VERSION} of the format before PyTorch 1.6");
        return Err(fault(&expected, format!("{version:?}")).into());
    }
    let machine = next()?;
    let mut facts = machine.pairs(&machine.result).into_iter().flatten();
    let is_big = |(key, value): (&Item, &Item)| matches!((key, value), (Item::Text(key), Item::Bool(false)) if &**key == "little_endian");
    if facts.any(is_big) {
        let found = "the byte order `big`".to_owned();
        return Err(fault("numbers in little-endian order", found).into());
    }
    let heap = next()?;
    let keys = next()?;
    let mut places = Places::new();
    for key in keys.list(&keys.result).unwrap_or_default() {
        let storage = match key {
            Item::Text(key) => heap.storages.get(key),
            _ => None,
        };
        let Some(storage) = storage else {
            let found = format!("{key:?}");
            return Err(fault("keys of the storages of the object", found).into());
        };
        let cut = || {
            let expected = format!(
                "{} elements of {} for the storage `{}`",
                storage.elements,
                storage.dtype,
                excerpt(&storage.key)
            );
            fault(&expected, format!("the end of the file at {} bytes", bytes.len()))
        };
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = i64::from_le_bytes(*count);
        if usize::try_from(count) != Ok(storage.elements) {
            let expected =
                format!("{} elements in storage `{}`", storage.elements, excerpt(&storage.key));
            return Err(fault(&expected, count.to_string()).into());
        }
        let begin = at + 8;
        let end = storage.dtype.bytes(&[storage.elements]).and_then(|size| begin.checked_add(size));
        let end = end.filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        if places.insert(storage.key.to_string(), begin..end).is_some() {
            let found = format!("`{}` twice", excerpt(&storage.key));
            return Err(fault("each storage once", found).into());
        }
        at = end;
    }
    if at != bytes.len() {
        let found = format!("{} bytes behind it", bytes.len() - at);
        return Err(fault("the end of the file behind the last storage", found).into());
    }
    Ok((heap, places))
}
