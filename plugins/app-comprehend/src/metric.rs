//! Exact match and F1 of words, as SQuAD's official scorers compute them (evaluate-v1.1.py and evaluate-v2.0.py).

use std::collections::HashMap;
use std::ffi::CStr;

use easytransfer_plugin::{Counts, Metric, MetricInfo, NoOptions, Record, Result, Stream};
use serde_json::{Map as Json, Value, json};

use super::record::answers_of;

/// "exact_match" and "f1" in percent: means over the records of the best value among a record's gold answers. A
/// record without an answer counts as right if nothing was answered (SQuAD 2.0).
pub struct Squad {
    exact: f64,
    f1: f64,
    count: u64,
}

impl Metric for Squad {
    const NAME: &'static CStr = c"squad";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self { exact: 0.0, f1: 0.0, count: 0 })
    }

    fn info(&self) -> MetricInfo {
        MetricInfo { of: Counts::Answers, ..MetricInfo::default() }
    }

    fn answers(&mut self, answers: &[Record], records: &[Record]) -> Result<()> {
        for (answer, record) in answers.iter().zip(records) {
            let said = answer.get("answer").and_then(Value::as_str).unwrap_or_default();
            let gold = answers_of(record)?.unwrap_or_default();
            let mut gold: Vec<String> = gold.into_iter().map(|answer| answer.text).collect();
            if gold.is_empty() {
                gold.push(String::new());
            }
            let best = |of: fn(&str, &str) -> f64| {
                gold.iter().map(|gold| of(said, gold)).fold(0.0, f64::max)
            };
            self.exact += best(exact);
            self.f1 += best(f1);
            self.count += 1;
        }
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let mean =
            |sum: f64| if self.count == 0 { f64::NAN } else { 100.0 * sum / self.count as f64 };
        Ok(Json::from_iter([
            ("exact_match".to_owned(), json!(mean(self.exact))),
            ("f1".to_owned(), json!(mean(self.f1))),
        ]))
    }

    fn save(&self, stream: &mut Stream) -> Result<()> {
        stream.write_u64(self.exact.to_bits())?;
        stream.write_u64(self.f1.to_bits())?;
        stream.write_u64(self.count)
    }

    fn merge(&mut self, stream: &mut Stream) -> Result<()> {
        self.exact += f64::from_bits(stream.read_u64()?);
        self.f1 += f64::from_bits(stream.read_u64()?);
        self.count += stream.read_u64()?;
        Ok(())
    }
}

/// Lower case, without punctuation (that of ASCII) and articles, words apart by one space.
fn normalized(text: &str) -> String {
    let lower = text.to_lowercase();
    let plain: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    words.collect::<Vec<_>>().join(" ")
}

fn exact(said: &str, gold: &str) -> f64 {
    f64::from(normalized(said) == normalized(gold))
}

fn f1(said: &str, gold: &str) -> f64 {
    let (said, gold) = (normalized(said), normalized(gold));
    let (said, gold): (Vec<&str>, Vec<&str>) =
        (said.split_whitespace().collect(), gold.split_whitespace().collect());
    if said.is_empty() || gold.is_empty() {
        return f64::from(said == gold);
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &gold {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in &said {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) =
        (f64::from(common) / said.len() as f64, f64::from(common) / gold.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_punctuation_and_case_do_not_count() {
        assert_eq!(normalized("  The U.S.  a \"Test\" "), "us test");
        assert_eq!(exact("the Cat.", "cat"), 1.0);
        assert_eq!(exact("cats", "cat"), 0.0);
    }

    #[test]
    fn f1_counts_common_words_once_each() {
        // Two of three and two of two words in common.
        assert!((f1("big black cat", "black cat") - 0.8).abs() < 1e-12);
        assert!((f1("cat cat", "cat") - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((f1("", ""), f1("x", ""), f1("", "x"), f1("the", "")), (1.0, 0.0, 0.0, 1.0));
    }
}
