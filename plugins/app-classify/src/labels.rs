//! Labels: from the values of a column to targets and back.

use super::cells;
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
    /// Whether a cell of several labels is a row of 0 and 1 even where it could be a list of names.
    multi_hot: bool,
    /// Whether the user gave the classes, and so their order.
    ordered: bool,
    rows: Rows,
}

/// What the cells of several labels were so far.
#[derive(Default)]
struct Rows {
    /// Length of rows of 0 and 1.
    length: Option<usize>,
    /// Whether there were others, or rows of other lengths.
    mixed: bool,
    /// A cell that is hardly a list of names.
    repeating: Option<String>,
}

impl Labels {
    /// With `names` the classes are fixed; without, they are learned from the training records.
    pub fn new(problem: Problem, names: Vec<String>, separator: &str) -> Result<Self> {
        if separator.is_empty() {
            return Err(Error::bad_input("separator: expected at least one character"));
        }
        let mut labels = Self {
            problem,
            separator: separator.to_owned(),
            fixed: !names.is_empty(),
            names: Vec::new(),
            index: BTreeMap::new(),
            seen: BTreeSet::new(),
            multi_hot: false,
            ordered: !names.is_empty(),
            rows: Rows::default(),
        };
        labels.set(names)?;
        Ok(labels)
    }

    /// Classes of a trained app: whether cells are rows of 0 and 1, as [`Labels::is_multi_hot`] said while training,
    /// and whether the user gave the classes then.
    pub fn trained(mut self, multi_hot: bool, ordered: bool) -> Self {
        (self.multi_hot, self.ordered) = (multi_hot, ordered);
        self
    }

    /// Whether the training data had rows of 0 and 1, whose places are the classes.
    pub fn is_multi_hot(&self) -> bool {
        self.multi_hot
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
                let parts = self.split(value)?;
                self.watch(&parts);
                self.seen.extend(parts);
                Ok(())
            }
        }
    }

    /// Whether cells are rows of 0 and 1 is known when all were seen.
    fn watch(&mut self, parts: &[String]) {
        let rows = &mut self.rows;
        match cells::flags(parts) {
            Some(flags) => {
                rows.mixed |= *rows.length.get_or_insert(flags.len()) != flags.len();
                if rows.repeating.is_none() && cells::repeats(parts) {
                    rows.repeating = Some(parts.join(", "));
                }
            }
            None => rows.mixed |= !parts.is_empty(),
        }
    }

    pub fn observed(&mut self) -> Result<()> {
        if self.problem == Problem::Regression || self.fixed {
            return Ok(());
        }
        let mut names: Vec<String> = std::mem::take(&mut self.seen).into_iter().collect();
        if let Some(length) = self.rows.length.filter(|_| !self.rows.mixed) {
            self.multi_hot = true;
            names = (0..length).map(|place| place.to_string()).collect();
        } else if let Some(cell) = &self.rows.repeating {
            return Err(Error::bad_input(format!(
                "label: [{cell}] looks like a row of 0 and 1 with a place for every class, but other cells are names or have another length; write all cells in one way"
            )));
        }
        if names.is_empty() {
            return Err(Error::bad_input(
                "label: all cells of the training data are empty; is this the right column?",
            ));
        }
        let same = names.iter().find_map(|name| {
            let whole = cells::whole(name)?;
            names.iter().any(|other| other == whole).then_some((whole, name))
        });
        if let Some((whole, name)) = same {
            return Err(Error::bad_input(format!(
                "label: `{whole}` and `{name}` are the same number; write it in one way"
            )));
        }
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
            Value::Array(values) => values
                .iter()
                .map(|value| {
                    cells::plain(value).ok_or_else(|| {
                        Error::record("label", "texts or numbers in a list", value.to_string())
                    })
                })
                .collect(),
            Value::Null => Ok(Vec::new()),
            // No label at all is a set of labels too.
            Value::String(text) => cells::parts(text, &self.separator),
            value => Ok(vec![name(value)?]),
        }
    }

    fn find(&self, name: &str) -> Result<usize> {
        let twin = || self.index.get(cells::whole(name)?);
        let float = || self.index.get(&format!("{name}.0"));
        if let Some(index) = self.index.get(name).or_else(twin).or_else(float) {
            return Ok(*index);
        }
        let known: Vec<&str> = self.names.iter().take(12).map(String::as_str).collect();
        let more = if self.names.len() > 12 { ", ..." } else { "" };
        let expected = format!("one of [{}{more}]", known.join(", "));
        Err(Error::record("label", expected, format!("{name:?}")))
    }

    /// The classes of a cell of several labels.
    fn classes(&self, value: &Value) -> Result<Vec<usize>> {
        let parts = self.split(value)?;
        let by_name = |part: &str| self.index.contains_key(part);
        let flags = cells::flags(&parts).filter(|_| {
            // Names come first, but no list of names repeats itself.
            self.multi_hot || cells::repeats(&parts) || !parts.iter().all(|part| by_name(part))
        });
        let Some(flags) = flags else { return parts.iter().map(|part| self.find(part)).collect() };
        if !self.multi_hot && !self.ordered {
            return Err(Error::record(
                "label",
                "names, from which the classes were learned, or their order in app.labels",
                format!("the row of 0 and 1 [{}]", parts.join(", ")),
            ));
        }
        if flags.len() != self.names.len() {
            let expected =
                format!("a row of 0 and 1 with a place for each of {} classes", self.names.len());
            return Err(Error::record("label", expected, format!("{} places", flags.len())));
        }
        Ok((0..flags.len()).filter(|&place| flags[place]).collect())
    }

    fn indices(&self, value: &Value) -> Result<Vec<usize>> {
        match self.problem {
            Problem::MultiLabel => self.classes(value),
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
        Value::String(text) if cells::is_quoted_list(text) => Err(Error::record(
            "label",
            "one label, or app.problem = \"multi-label\"",
            format!("the list {}", text.trim()),
        )),
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

    fn learned(cells: &[serde_json::Value]) -> easytransfer_plugin::Result<Labels> {
        let mut labels = Labels::new(Problem::MultiLabel, Vec::new(), ",")?;
        cells.iter().try_for_each(|cell| labels.observe(cell))?;
        labels.observed()?;
        Ok(labels)
    }

    #[test]
    fn rows_of_zeros_and_ones_have_a_class_for_every_place() {
        let rows = [json!([1, 0, 1]), json!("[0, 0, 1]"), json!("0,1,0"), json!([0.0, 1.0, 0.0])];
        let labels = learned(&rows).unwrap();
        assert!(labels.is_multi_hot());
        assert_eq!(labels.names(), ["0", "1", "2"]);
        let found = rows.map(|row| labels.indices(&row).unwrap());
        assert_eq!(found, [vec![0, 2], vec![2], vec![1], vec![1]]);
        let error = labels.indices(&json!([1, 0])).unwrap_err();
        assert!(error.message().contains("3 classes, found 2 places"), "{}", error.message());
        // Two places could be lists of the names 0 and 1; a bundle remembers that they are not.
        let labels = learned(&[json!([0, 1]), json!([1, 0]), json!([1, 1])]).unwrap();
        assert_eq!(labels.indices(&json!([0, 1])).unwrap(), [1]);
        let names = || vec!["0".to_owned(), "1".to_owned()];
        let labels = Labels::new(Problem::MultiLabel, names(), ",").unwrap();
        assert_eq!(labels.indices(&json!([0, 1])).unwrap(), [0, 1]);
        assert_eq!(labels.trained(true, false).indices(&json!([0, 1])).unwrap(), [1]);
    }

    #[test]
    fn rows_of_zeros_and_ones_fit_given_names() {
        let names = ["x", "y", "z"].map(str::to_owned).to_vec();
        let labels = Labels::new(Problem::MultiLabel, names, ",").unwrap();
        assert_eq!(labels.indices(&json!([1, 0, 1])).unwrap(), [0, 2]);
        assert_eq!(labels.indices(&json!([true, false, false])).unwrap(), [0]);
        assert_eq!(labels.indices(&json!(["z", "x"])).unwrap(), [2, 0]);
        assert!(labels.indices(&json!([1, 0])).is_err());
        // Numbers that are names stay names.
        let labels = learned(&[json!([1, 0]), json!([2]), json!([])]).unwrap();
        assert_eq!((labels.is_multi_hot(), labels.names().len()), (false, 3));
        assert_eq!(labels.indices(&json!([1, 0])).unwrap(), [1, 0]);
        let error = labels.indices(&json!([1, 0, 1])).unwrap_err();
        assert!(error.message().contains("app.labels"), "{}", error.message());
    }

    #[test]
    fn mixed_and_empty_cells_are_refused() {
        for (cells, part) in [
            (vec![json!([1, 0, 1]), json!([0, 1])], "[1, 0, 1] looks like a row of 0 and 1"),
            (vec![json!([1, 0, 1]), json!("a")], "write all cells in one way"),
            (vec![json!(""), json!([])], "all cells of the training data are empty"),
            (vec![json!("1.0"), json!(1)], "`1` and `1.0` are the same number"),
            (vec![json!([["a"]])], "expected texts or numbers in a list"),
        ] {
            let error = learned(&cells).err().expect(part);
            assert!(error.message().contains(part), "{}", error.message());
        }
    }

    #[test]
    fn a_whole_number_is_the_same_class_with_and_without_a_point() {
        for (names, cell) in [(["0", "1"], json!("1.0")), (["0.0", "1.0"], json!(1))] {
            let names = names.map(str::to_owned).to_vec();
            let labels = Labels::new(Problem::MultiClass, names, ",").unwrap();
            assert_eq!(labels.indices(&cell).unwrap(), [1]);
            assert!(labels.indices(&json!("01")).is_err());
        }
    }

    #[test]
    fn a_list_is_not_one_label() {
        let mut labels = Labels::new(Problem::MultiClass, Vec::new(), ",").unwrap();
        let error = labels.observe(&json!("['a', 'b']")).unwrap_err();
        assert!(error.message().contains("multi-label"), "{}", error.message());
        assert!(labels.observe(&json!([1, 0])).is_err());
        assert!(labels.observe(&json!("[x]")).is_ok());
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
