//! The directory of a zip archive whose entries are stored, not compressed, which is what `torch.save` writes.
//! Archives above 4 GiB (zip64) are understood.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::error::{Result, WeightError, excerpt};

/// The most entries that are believed; `torch.save` writes one for each storage and a handful besides.
const MOST_ENTRIES: u64 = 1_000_000;
const DAMAGED: &str = "the file is damaged; fetch or save it again";

/// Little-endian numbers at an offset; none outside the bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(width)?)?;
    Some(part.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Where each entry's bytes are in `bytes`, a whole archive that messages call `path`; by name. Errors: no directory,
/// an entry outside the file, a compressed or encrypted entry, a name twice.
pub fn entries(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>> {
    let fault = |found: &str| WeightError::new(path, "a zip archive", found, DAMAGED);
    let (count, start) =
        directory(bytes).ok_or_else(|| fault("no directory at its end; it may be cut off"))?;
    if count > MOST_ENTRIES {
        return Err(fault(&format!("a directory of {count} entries")).into());
    }
    let mut entries = BTreeMap::new();
    let mut at = start;
    for _ in 0..count {
        let (name, range, next) = entry(path, bytes, at)?;
        if entries.insert(name.clone(), range).is_some() {
            let found = format!("the entry `{}` twice", excerpt(&name));
            return Err(fault(&found).into());
        }
        at = next;
    }
    Ok(entries)
}

/// The number of entries and the offset of the first in the central directory.
fn directory(bytes: &[u8]) -> Option<(u64, usize)> {
    // The end record has 22 bytes and a comment of at most 65535.
    let lowest = bytes.len().saturating_sub(22 + 65_535);
    let end = (lowest..=bytes.len().checked_sub(22)?)
        .rev()
        .find(|&at| bytes[at..].starts_with(b"PK\x05\x06"))?;
    let (mut count, mut start) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
    if count == 0xffff || start == 0xffff_ffff {
        let locator = end.checked_sub(20)?;
        if bytes[locator..].starts_with(b"PK\x06\x07") {
            let record = usize::try_from(number(bytes, locator + 8, 8)?).ok()?;
            if !bytes.get(record..)?.starts_with(b"PK\x06\x06") {
                return None;
            }
            count = number(bytes, record.checked_add(32)?, 8)?;
            start = number(bytes, record.checked_add(48)?, 8)?;
        }
    }
    Some((count, usize::try_from(start).ok()?))
}

/// The name, the bytes and the offset of the next entry of the directory's entry at `at`.
fn entry(path: &Path, bytes: &[u8], at: usize) -> Result<(String, Range<usize>, usize)> {
    let fault = |found: String| WeightError::new(path, "a sound zip directory", found, DAMAGED);
    let outside = || fault(format!("an entry at offset {at} that leads out of the file"));
    let field = |offset: usize, width| number(bytes, at.saturating_add(offset), width);
    if field(0, 4) != Some(0x0201_4b50) {
        return Err(fault(format!("no entry at offset {at}")).into());
    }
    let short = |offset| field(offset, 2).map(|value| value as usize).ok_or_else(outside);
    let (flags, method) = (short(8)?, short(10)?);
    let (name_len, extra_len, comment_len) = (short(28)?, short(30)?, short(32)?);
    let long = |offset| field(offset, 4).ok_or_else(outside);
    let (mut packed, mut size, mut local) = (long(20)?, long(24)?, long(42)?);
    let name_at = at + 46;
    let name = bytes.get(name_at..name_at + name_len).ok_or_else(outside)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let extra =
        bytes.get(name_at + name_len..name_at + name_len + extra_len).ok_or_else(outside)?;
    // The zip64 extra field (id 1) holds, in this order, those of the three that did not fit.
    let mut position = 0;
    while let (Some(id), Some(len)) = (number(extra, position, 2), number(extra, position + 2, 2)) {
        if id == 1 {
            let mut inside = position + 4;
            for value in [&mut size, &mut packed, &mut local] {
                if *value == 0xffff_ffff {
                    *value = number(extra, inside, 8).ok_or_else(outside)?;
                    inside += 8;
                }
            }
        }
        position += 4 + len as usize;
    }
    if method != 0 || flags & 1 != 0 || packed != size {
        return Err(WeightError::new(
            path,
            "a zip archive without compression, as `torch.save` writes it",
            format!("the entry `{}`, which is compressed or encrypted", excerpt(&name)),
            "save the model again with `torch.save`",
        )
        .into());
    }
    let local = usize::try_from(local).map_err(|_| outside())?;
    if number(bytes, local, 4) != Some(0x0403_4b50) {
        return Err(outside().into());
    }
    let name_len_there = number(bytes, local + 26, 2).ok_or_else(outside)? as usize;
    let extra_len_there = number(bytes, local + 28, 2).ok_or_else(outside)? as usize;
    let begin = local + 30 + name_len_there + extra_len_there;
    let end = usize::try_from(size).ok().and_then(|size| begin.checked_add(size));
    let end = end.filter(|&end| end <= bytes.len()).ok_or_else(outside)?;
    Ok((name, begin..end, name_at + name_len + extra_len + comment_len))
}
