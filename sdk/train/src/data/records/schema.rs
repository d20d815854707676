//! EasyTransfer's schema grammar, `name:type:length,…`, for files without a header line. Types are `int`, `float`,
//! `str` and `base64` (raw little-endian 32-bit floats). A length above 1 is a list: its parts are separated by commas
//! inside the cell, and for `base64` it is the number of floats.

use serde_json::{Number, Value};

use crate::error::{OptionError, Result, excerpt};
use crate::nearest::nearest;

/// The longest list that a schema may ask for.
const LONGEST: usize = 1 << 24;
const TYPES: [(&str, CellType); 4] = [
    ("int", CellType::Int),
    ("float", CellType::Float),
    ("str", CellType::Str),
    ("base64", CellType::Base64),
];

/// The type of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// A 64-bit integer.
    Int,
    /// A finite number.
    Float,
    /// A text.
    Str,
    /// 32-bit floats, little-endian, in base64.
    Base64,
}

/// One column of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaColumn {
    /// Its name.
    pub name: String,
    /// The type of its cells.
    pub cell: CellType,
    /// How many values a cell holds, at least 1.
    pub length: usize,
}

/// The columns of a file without a header line, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    columns: Vec<SchemaColumn>,
}

impl Schema {
    /// Parses `name:type:length,…`. Errors name the position in `text`, counted in characters from 1.
    pub fn parse(text: &str) -> Result<Schema> {
        let mut columns: Vec<SchemaColumn> = Vec::new();
        let mut offset = 0;
        for part in text.split(',') {
            let fault = |inside: usize, expected: String, found: &str, near: Option<&str>| {
                let position = text[..offset + inside].chars().count() + 1;
                OptionError {
                    origin: String::new(),
                    key: "schema".to_string(),
                    expected: format!("{expected} at position {position} of `{}`", excerpt(text)),
                    found: if found.is_empty() {
                        "nothing".to_string()
                    } else {
                        format!("`{}`", excerpt(found))
                    },
                    nearest: near.map(str::to_string),
                }
            };
            let pieces: Vec<&str> = part.split(':').collect();
            let [name, kind, length] = pieces[..] else {
                let expected = "`name:type:length`".to_string();
                return Err(fault(0, expected, part, None).into());
            };
            if name.trim().is_empty() {
                return Err(fault(0, "a column's name".to_string(), name, None).into());
            }
            if columns.iter().any(|column| column.name == name.trim()) {
                return Err(fault(0, "a new column name".to_string(), name, None).into());
            }
            let Some((_, cell)) = TYPES.iter().find(|(known, _)| *known == kind.trim()) else {
                let near = nearest(kind.trim(), TYPES.map(|(known, _)| known));
                let expected = "int, float, str or base64".to_string();
                return Err(fault(name.len() + 1, expected, kind, near).into());
            };
            let at = name.len() + kind.len() + 2;
            let count = length.trim().parse::<usize>().ok();
            let Some(length) = count.filter(|count| (1..=LONGEST).contains(count)) else {
                let expected = format!("a length from 1 to {LONGEST}");
                return Err(fault(at, expected, length, None).into());
            };
            columns.push(SchemaColumn { name: name.trim().to_string(), cell: *cell, length });
            offset += part.len() + 1;
        }
        Ok(Schema { columns })
    }

    /// The columns in file order.
    pub fn columns(&self) -> &[SchemaColumn] {
        &self.columns
    }
}

impl SchemaColumn {
    /// The value of a cell: a single value for length 1, an array otherwise, an array of numbers for `base64`. The
    /// error is what was expected and what was found.
    pub(super) fn parse(&self, cell: &str) -> std::result::Result<Value, (String, String)> {
        if self.cell == CellType::Base64 {
            return self.parse_base64(cell);
        }
        if self.length == 1 {
            return self.parse_one(cell);
        }
        let parts: Vec<&str> = cell.split(',').collect();
        if parts.len() != self.length {
            let expected = format!("{} values separated by commas", self.length);
            return Err((expected, parts.len().to_string()));
        }
        Ok(Value::Array(
            parts
                .into_iter()
                .map(|part| self.parse_one(part))
                .collect::<std::result::Result<_, _>>()?,
        ))
    }

    fn parse_one(&self, text: &str) -> std::result::Result<Value, (String, String)> {
        let found = || format!("`{}`", excerpt(text));
        match self.cell {
            CellType::Int => match text.trim().parse::<i64>() {
                Ok(number) => Ok(Value::from(number)),
                Err(_) => Err(("an integer".to_string(), found())),
            },
            CellType::Float => {
                let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
                let number = number.ok_or_else(|| ("a finite number".to_string(), found()))?;
                Ok(Value::Number(number))
            }
            CellType::Str | CellType::Base64 => Ok(Value::String(text.to_string())),
        }
    }

    fn parse_base64(&self, text: &str) -> std::result::Result<Value, (String, String)> {
        let bytes = decode_base64(text.trim()).map_err(|position| {
            ("base64 text".to_string(), format!("something else at its character {}", position + 1))
        })?;
        if bytes.len() != self.length * 4 {
            let expected = format!("{} floats ({} bytes) in base64", self.length, self.length * 4);
            return Err((expected, format!("{} bytes", bytes.len())));
        }
        let mut values = Vec::with_capacity(self.length);
        for four in bytes.chunks_exact(4) {
            let value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            let number = Number::from_f64(f64::from(value))
                .ok_or_else(|| ("finite floats".to_string(), format!("`{value}`")))?;
            values.push(Value::Number(number));
        }
        Ok(Value::Array(values))
    }
}

/// Decodes RFC 4648 base64, standard or URL alphabet, with or without padding; the error is the offending position.
fn decode_base64(text: &str) -> std::result::Result<Vec<u8>, usize> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return Err(digits.len());
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for (position, digit) in digits.bytes().enumerate() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err(position),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_grammar_is_read() {
        let schema = Schema::parse("content:str:1,label:int:1,vec:float:3").unwrap();
        assert_eq!(schema.columns().len(), 3);
        assert_eq!(schema.columns()[2].cell, CellType::Float);
        assert_eq!(schema.columns()[2].length, 3);
    }

    #[test]
    fn schema_errors_name_the_position() {
        for (text, needle) in [
            ("content:strr:1", "int, float, str or base64 at position 9"),
            ("a:str:1,b", "`name:type:length` at position 9"),
            ("é:str:0", "a length from 1 to 16777216 at position 7"),
            ("a:str:1,a:str:1", "a new column name at position 9"),
            (":str:1", "a column's name at position 1"),
            ("", "`name:type:length` at position 1"),
        ] {
            let message = Schema::parse(text).unwrap_err().to_string();
            assert!(message.contains(needle), "{text}: {message}");
        }
        assert!(Schema::parse("a:strr:1").unwrap_err().to_string().contains("did you mean `str`"));
    }

    #[test]
    fn base64_decodes_every_remainder() {
        assert_eq!(decode_base64("").unwrap(), b"");
        assert_eq!(decode_base64("Zg==").unwrap(), b"f");
        assert_eq!(decode_base64("Zm8=").unwrap(), b"fo");
        assert_eq!(decode_base64("Zm9vYmFy").unwrap(), b"foobar");
        assert_eq!(decode_base64("Zm9*"), Err(3));
        assert!(decode_base64("Z").is_err());
    }

    #[test]
    fn cells_are_parsed_by_type() {
        let column = |text| Schema::parse(text).unwrap().columns()[0].clone();
        assert_eq!(column("a:int:1").parse("7").unwrap(), Value::from(7));
        assert_eq!(column("a:float:2").parse("1,2.5").unwrap(), serde_json::json!([1.0, 2.5]));
        assert_eq!(column("a:base64:1").parse("AACAPw==").unwrap(), serde_json::json!([1.0]));
        assert!(column("a:float:1").parse("nan").is_err());
        assert!(column("a:int:2").parse("1").is_err());
        assert!(column("a:base64:2").parse("AACAPw==").is_err());
    }
}
