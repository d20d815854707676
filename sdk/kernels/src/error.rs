//! What kernels refuse, and the checks of lengths and ranges that they share.

use std::fmt;
use std::ops::Range;

/// What a kernel refuses.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice is not as long as the sizes say.
    Length {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Elements that were expected.
        expected: usize,
        /// Elements that were found.
        found: usize,
    },
    /// An id, target or label lies outside its table.
    Index {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Where in the argument the value stands.
        position: usize,
        /// The value.
        value: i64,
        /// Valid values are `0..bound`.
        bound: usize,
    },
    /// A number outside its range.
    Value {
        /// The kernel.
        kernel: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: f64,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { kernel, argument, expected, found } => {
                write!(f, "{kernel}: {argument} must have {expected} elements, found {found}")
            }
            Self::Index { kernel, argument, position, value, bound } => write!(
                f,
                "{kernel}: {argument}[{position}] is {value}, expected 0 to {} (the table has {bound} rows)",
                *bound as i64 - 1
            ),
            Self::Value { kernel, argument, expected, found } => {
                write!(f, "{kernel}: {argument} must be {expected}, found {found}")
            }
        }
    }
}

impl std::error::Error for KernelError {}

/// Result of a kernel.
pub type Result<T = ()> = std::result::Result<T, KernelError>;

/// Fails unless `found == expected`; `kernel` and `argument` name the culprit.
pub fn check_len(
    kernel: &'static str,
    argument: &'static str,
    expected: usize,
    found: usize,
) -> Result {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Length { kernel, argument, expected, found })
    }
}

/// Fails unless `lo <= found < hi` (NaN fails).
pub(crate) fn check_range(
    kernel: &'static str,
    argument: &'static str,
    expected: &'static str,
    range: Range<f64>,
    found: f64,
) -> Result {
    if range.contains(&found) {
        Ok(())
    } else {
        Err(KernelError::Value { kernel, argument, expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_error_names_position_value_and_bound() {
        let text = KernelError::Index {
            kernel: "embedding",
            argument: "ids",
            position: 3,
            value: -1,
            bound: 10,
        }
        .to_string();
        assert_eq!(text, "embedding: ids[3] is -1, expected 0 to 9 (the table has 10 rows)");
    }
}
