//! Labels: from the values of a column to targets and back.

use easytransfer_plugin::{Error, Result, Row};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// One class per row.
    MultiClass,
    /// Any number of classes per row.
    MultiLabel,
    /// A number per row.
    Regression,
}

/// The classes of a data set.
pub struct Labels {
    problem: Problem,
    separator: String,
    names: Vec<String>,
    index: BTreeMap<String, usize>,
    fixed: bool,
    seen: BTreeSet<String>,
}

impl Labels {
    /// With `names` the classes are fixed; without, they are learned from the training records.
    pub fn new(problem: Problem, names: Vec<String>, separator: &str) -> Result<Self> {
        let mut labels = Self {
            problem,
            separator: separator.to_owned(),
            fixed: !names.is_empty(),
            names: Vec::new(),
            index: BTreeMap::new(),
            seen: BTreeSet::new(),
        };
        labels.set(names)?;
        Ok(labels)
    }

    fn set(&mut self, names: Vec<String>) -> Result<()> {
        self.index = names.iter().cloned().enumerate().map(|(i, n)| (n, i)).collect();
        if self.index.len() != names.len() {
            return Err(Error::bad_input("labels: a name occurs twice"));
        }
        self.names = names;
        Ok(())
    }

    /// Names of the classes in the order of the logits; empty for regression.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of logits.
    pub fn outputs(&self) -> usize {
        if self.problem == Problem::Regression { 1 } else { self.names.len() }
    }

    pub fn observe(&mut self, value: &Value) -> Result<()> {
        match self.problem {
            Problem::Regression => number(value).map(|_| ()),
            _ if self.fixed => self.indices(value).map(|_| ()),
            Problem::MultiClass => {
                self.seen.insert(name(value)?);
                Ok(())
            }
            Problem::MultiLabel => {
                self.seen.extend(self.split(value)?);
                Ok(())
            }
        }
    }

    pub fn observed(&mut self) -> Result<()> {
        if self.problem == Problem::Regression || self.fixed {
            return Ok(());
        }
        let mut names: Vec<String> = std::mem::take(&mut self.seen).into_iter().collect();
        // "10" comes after "2" when all labels are whole numbers.
        if names.iter().all(|n| n.parse::<i64>().is_ok()) {
            names.sort_unstable_by_key(|n| n.parse::<i64>().unwrap_or(0));
        }
        if names.len() < 2 && self.problem == Problem::MultiClass {
            return Err(Error::bad_input(format!(
                "label: expected at least two classes in the training data, found {names:?}; is this the right column?"
            )));
        }
        if names.len() > 100_000 {
            return Err(Error::bad_input(format!(
                "label: {} different values; is this the right column, or is it a regression (app.problem = \"regression\")?",
                names.len()
            )));
        }
        self.set(names)
    }

    fn split(&self, value: &Value) -> Result<Vec<String>> {
        match value {
            Value::Array(values) => values.iter().map(name).collect(),
            Value::Null => Ok(Vec::new()),
            // No label at all is a set of labels too.
            Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
            value => Ok(name(value)?
                .split(self.separator.as_str())
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect()),
        }
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.index.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.names.iter().take(12).map(String::as_str).collect();
            let more = if self.names.len() > 12 { ", ..." } else { "" };
            let expected = format!("one of [{}{more}]", known.join(", "));
            Error::record("label", expected, format!("{name:?}"))
        })
    }

    fn indices(&self, value: &Value) -> Result<Vec<usize>> {
        match self.problem {
            Problem::MultiLabel => self.split(value)?.iter().map(|n| self.find(n)).collect(),
            _ => Ok(vec![self.find(&name(value)?)?]),
        }
    }

    /// Adds the target of a record to its features.
    pub fn put(&self, value: &Value, row: &mut Row) -> Result<()> {
        match self.problem {
            Problem::MultiClass => row.put_i64("labels", &[self.indices(value)?[0] as i64]),
            Problem::MultiLabel => {
                let mut target = vec![0.0; self.names.len()];
                for index in self.indices(value)? {
                    target[index] = 1.0;
                }
                row.put_f32("labels", &target)
            }
            Problem::Regression => row.put_f32("labels", &[number(value)? as f32]),
        }
    }
}

fn name(value: &Value) -> Result<String> {
    match value {
        Value::String(text) if text.trim().is_empty() => {
            Err(Error::record("label", "a usable value", "the cell is empty"))
        }
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(Error::record("label", "a text or a number", other.to_string())),
    }
}

fn number(value: &Value) -> Result<f64> {
    let parsed = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match parsed {
        Some(number) if number.is_finite() => Ok(number),
        _ => Err(Error::record("label", "a finite number", value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Labels, Problem};
    use serde_json::json;

    #[test]
    fn labels_that_are_numbers_sort_as_numbers() {
        let mut labels = Labels::new(Problem::MultiClass, Vec::new(), ",").unwrap();
        for label in ["10", "2", "1", "2"] {
            labels.observe(&json!(label)).unwrap();
        }
        labels.observed().unwrap();
        assert_eq!(labels.names(), ["1", "2", "10"]);
        assert_eq!(labels.indices(&json!(10)).unwrap(), [2]);
    }

    #[test]
    fn unknown_label_names_the_known_ones() {
        let labels =
            Labels::new(Problem::MultiClass, vec!["a".to_owned(), "b".to_owned()], ",").unwrap();
        let error = labels.indices(&json!("c")).unwrap_err();
        assert_eq!(error.message(), "label: expected one of [a, b], found \"c\"");
    }

    #[test]
    fn nan_is_not_a_regression_target() {
        let mut labels = Labels::new(Problem::Regression, Vec::new(), ",").unwrap();
        assert!(labels.observe(&json!("NaN")).is_err());
        assert!(labels.observe(&json!("inf")).is_err());
        assert!(labels.observe(&json!(" 2.5 ")).is_ok());
    }

    #[test]
    fn one_class_is_an_error() {
        let mut labels = Labels::new(Problem::MultiClass, Vec::new(), ",").unwrap();
        labels.observe(&json!("same")).unwrap();
        assert!(labels.observed().is_err());
    }

    #[test]
    fn multi_label_cells_are_split() {
        let mut labels = Labels::new(Problem::MultiLabel, Vec::new(), ",").unwrap();
        labels.observe(&json!("b, a")).unwrap();
        labels.observe(&json!(" ")).unwrap();
        labels.observe(&json!(["c"])).unwrap();
        labels.observed().unwrap();
        assert_eq!(labels.names(), ["a", "b", "c"]);
        assert_eq!(labels.indices(&json!("c,a")).unwrap(), [2, 0]);
    }
}
