//! The element types of weight files.

use std::fmt;

/// An element type, as files of weights name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each name says all: kind and bits")]
pub enum WeightType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

const NAMES: [(WeightType, &str, usize); 13] = [
    (WeightType::Bool, "BOOL", 1),
    (WeightType::U8, "U8", 1),
    (WeightType::I8, "I8", 1),
    (WeightType::U16, "U16", 2),
    (WeightType::I16, "I16", 2),
    (WeightType::F16, "F16", 2),
    (WeightType::BF16, "BF16", 2),
    (WeightType::U32, "U32", 4),
    (WeightType::I32, "I32", 4),
    (WeightType::F32, "F32", 4),
    (WeightType::U64, "U64", 8),
    (WeightType::I64, "I64", 8),
    (WeightType::F64, "F64", 8),
];

impl WeightType {
    /// The type that safetensors calls `name`.
    pub fn from_name(name: &str) -> Option<WeightType> {
        NAMES.iter().find(|(_, known, _)| *known == name).map(|(kind, _, _)| *kind)
    }

    /// Its name in safetensors.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        NAMES[self as usize].2
    }

    /// The bytes of `shape` elements; none if that overflows.
    pub fn bytes(self, shape: &[usize]) -> Option<usize> {
        shape.iter().try_fold(self.size(), |bytes, &length| bytes.checked_mul(length))
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, (kind, name, _)) in NAMES.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(WeightType::from_name(name), Some(kind));
        }
        assert_eq!(WeightType::F32.bytes(&[2, 3]), Some(24));
        assert_eq!(WeightType::F32.bytes(&[usize::MAX, 2]), None);
    }
}
