//! The JSON of headers and indices, read without keeping more of it than tensors need: a header of a hundred
//! megabytes may come from anybody. A key that stands twice is refused, because readers differ in which of the two
//! they take.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::error::excerpt;

/// The most numbers of a list: the most dimensions of a tensor.
const MOST_NUMBERS: usize = 64;
const METADATA: &str = "__metadata__";

fn insert<V, E: Error>(entries: &mut BTreeMap<String, V>, key: String, value: V) -> Result<(), E> {
    if entries.contains_key(&key) {
        return Err(E::custom(format!("the key `{}` twice", excerpt(&key))));
    }
    entries.insert(key, value);
    Ok(())
}

/// The entries of an object by key.
pub(super) struct Unique<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    insert(&mut entries, key, value)?;
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A header as it is written.
pub(super) struct HeaderText {
    pub metadata: BTreeMap<String, String>,
    pub entries: BTreeMap<String, EntryText>,
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = HeaderText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderText, A::Error> {
                let mut header = HeaderText { metadata: BTreeMap::new(), entries: BTreeMap::new() };
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        let Unique(texts) = map.next_value()?;
                        header.metadata = texts;
                    } else {
                        insert(&mut header.entries, key, map.next_value()?)?;
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// What a header says about one tensor, unchecked.
#[derive(serde::Deserialize)]
pub(super) struct EntryText {
    pub dtype: Option<String>,
    pub shape: Option<Numbers>,
    pub data_offsets: Option<Numbers>,
}

/// A short list of numbers.
pub(super) struct Numbers(Vec<Number>);

impl Numbers {
    /// The numbers, if all are whole and not negative.
    pub fn whole(&self) -> Option<Vec<usize>> {
        self.0.iter().map(|number| usize::try_from(number.as_u64()?).ok()).collect()
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Number::to_string).collect();
        write!(f, "[{}]", texts.join(","))
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST_NUMBERS} numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while numbers.len() < MOST_NUMBERS {
                    match list.next_element()? {
                        Some(number) => numbers.push(number),
                        None => return Ok(Numbers(numbers)),
                    }
                }
                match list.next_element::<IgnoredAny>()? {
                    Some(_) => Err(A::Error::invalid_length(MOST_NUMBERS + 1, &self)),
                    None => Ok(Numbers(numbers)),
                }
            }
        }
        deserializer.deserialize_seq(List)
    }
}
