//! Weights must be numbers: one that is not makes every answer of the model worthless, and none of them looks it.

use std::path::Path;

use easytransfer_plugin::DType;

use crate::error::{Result, WeightError};

/// The bytes of `N` at a time, as they become a number whose finiteness counts.
fn first_bad<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<usize> {
    /// So many elements are looked at without asking where one is, which is many times as fast.
    const BLOCK: usize = 4096;
    let (elements, _) = bytes.as_chunks::<N>();
    let block = elements
        .chunks(BLOCK)
        .position(|block| block.iter().fold(false, |bad, &element| bad | is_bad(element)))?;
    let start = block * BLOCK;
    elements[start..].iter().position(|&element| is_bad(element)).map(|index| start + index)
}

/// Whether the elements of the tensor `name`, little-endian `bytes` of the file `path`, are finite in single
/// precision. Errors: the first that is not.
pub(super) fn check(path: &Path, name: &str, dtype: DType, bytes: &[u8]) -> Result<()> {
    let bad = match dtype {
        DType::F32 => first_bad(bytes, |b| !f32::from_le_bytes(b).is_finite()),
        DType::F16 => first_bad(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        DType::Bf16 => first_bad(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        DType::F64 => first_bad(bytes, |b| !(f64::from_le_bytes(b) as f32).is_finite()),
        _ => None,
    };
    match bad {
        None => Ok(()),
        Some(index) => {
            let found =
                format!("element {index} is not finite (or too large for single precision)");
            let remedy = "the training that wrote it diverged, or the file is damaged";
            Err(WeightError::new(path, "numbers", found, remedy).tensor(name).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(dtype: DType, bytes: &[u8]) -> Option<String> {
        check(Path::new("m"), "w", dtype, bytes).err().map(|error| error.to_string())
    }

    #[test]
    fn elements_that_are_not_finite_are_named_in_every_type() {
        let mut floats = vec![1f32; 10_000];
        let bytes = |floats: &[f32]| -> Vec<u8> {
            floats.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        assert_eq!(message(DType::F32, &bytes(&floats)), None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            floats[9_001] = bad;
            let said = message(DType::F32, &bytes(&floats)).unwrap();
            assert!(said.contains("tensor `w`") && said.contains("element 9001"), "{said}");
        }
        assert_eq!(message(DType::F16, &[0xff, 0x7b, 0xff, 0xfb]), None);
        assert!(message(DType::F16, &[0, 0, 0, 0xfc]).unwrap().contains("element 1"));
        assert_eq!(message(DType::Bf16, &[0x7f, 0x7f]), None);
        assert!(message(DType::Bf16, &[0xc0, 0x7f]).unwrap().contains("element 0"));
        assert_eq!(message(DType::F64, &1e38f64.to_le_bytes()), None);
        assert!(message(DType::F64, &1e39f64.to_le_bytes()).unwrap().contains("element 0"));
    }
}
