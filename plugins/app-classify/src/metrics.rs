//! Figures over a data set. Definitions are those of scikit-learn; a ratio without a denominator counts as 0.

use easytransfer_plugin::{DType, Error, Map, Metric, MetricInfo, NoOptions, Result};
use serde::Deserialize;
use serde_json::{Map as Json, Value, json};
use std::ffi::CStr;

/// Index of the largest value, the first one of equals.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

fn f1(true_positive: f64, predicted: f64, actual: f64) -> f64 {
    ratio(2.0 * true_positive, predicted + actual)
}

/// Multi-class: accuracy, f1 (of the second of two classes), macro_f1, weighted_f1, matthews (Gorodkin 2004), and the
/// confusion matrix [actual][predicted].
#[derive(Default)]
pub struct Classification {
    confusion: Vec<Vec<u64>>,
}

impl Metric for Classification {
    const NAME: &'static CStr = c"classification";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self::default())
    }

    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        let logits = outputs.get("logits")?;
        let classes = logits.extent(1)?;
        self.confusion.resize(classes, vec![0; classes]);
        let rows = logits.to_vec::<f32>()?;
        for (row, label) in rows.chunks_exact(classes).zip(batch.get("labels")?.to_vec::<i64>()?) {
            let actual = usize::try_from(label).ok().and_then(|i| self.confusion.get_mut(i));
            match actual {
                Some(counts) => counts[argmax(row)] += 1,
                None => {
                    return Err(Error::invalid(format!(
                        "labels: expected 0 to {}, found {label}",
                        classes - 1
                    )));
                }
            }
        }
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let n = self.confusion.len();
        let count = |i: usize, j: usize| self.confusion[i][j] as f64;
        let actual: Vec<f64> = (0..n).map(|i| (0..n).map(|j| count(i, j)).sum()).collect();
        let predicted: Vec<f64> = (0..n).map(|j| (0..n).map(|i| count(i, j)).sum()).collect();
        let total: f64 = actual.iter().sum();
        let correct: f64 = (0..n).map(|i| count(i, i)).sum();
        let scores: Vec<f64> = (0..n).map(|i| f1(count(i, i), predicted[i], actual[i])).collect();
        // Classes that neither occur nor are predicted do not count, as in scikit-learn.
        let present = (0..n).filter(|&i| actual[i] + predicted[i] > 0.0).count() as f64;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let covariance = correct * total - dot(&actual, &predicted);
        let spread =
            (total * total - dot(&predicted, &predicted)) * (total * total - dot(&actual, &actual));
        let mut figures = Json::new();
        figures.insert("accuracy".to_owned(), json!(ratio(correct, total)));
        if n == 2 {
            figures.insert("f1".to_owned(), json!(scores[1]));
        }
        figures.insert("macro_f1".to_owned(), json!(ratio(scores.iter().sum(), present)));
        figures.insert("weighted_f1".to_owned(), json!(ratio(dot(&scores, &actual), total)));
        figures.insert("matthews".to_owned(), json!(ratio(covariance, spread.sqrt())));
        figures.insert("confusion".to_owned(), json!(self.confusion));
        Ok(figures)
    }
}

/// Options of [`MultiLabel`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiLabelOptions {
    threshold: f64,
}

impl Default for MultiLabelOptions {
    fn default() -> Self {
        Self { threshold: 0.5 }
    }
}

/// Multi-label: micro_f1, macro_f1, and exact (share of rows whose label set is right).
pub struct MultiLabel {
    threshold: f64,
    counts: Vec<[f64; 3]>,
    rows: f64,
    exact: f64,
}

impl Metric for MultiLabel {
    const NAME: &'static CStr = c"multi-label";
    const SCHEMA: &'static CStr = cr#"{"type":"object","additionalProperties":false,"properties":{
"threshold":{"type":"number","minimum":0,"maximum":1,"default":0.5}}}"#;
    type Options = MultiLabelOptions;

    fn new(options: MultiLabelOptions) -> Result<Self> {
        Ok(Self { threshold: options.threshold, counts: Vec::new(), rows: 0.0, exact: 0.0 })
    }

    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        let logits = outputs.get("logits")?;
        let classes = logits.extent(1)?;
        self.counts.resize(classes, [0.0; 3]);
        let probabilities = logits.sigmoid()?.to_vec::<f32>()?;
        let targets = batch.get("labels")?;
        if targets.shape() != logits.shape() {
            return Err(Error::bad_input(format!(
                "multi-label: expected labels of shape {:?} as the logits, found {:?}",
                logits.shape(),
                targets.shape()
            )));
        }
        let targets = targets.cast(DType::F32)?.to_vec::<f32>()?;
        for (row, target) in probabilities.chunks_exact(classes).zip(targets.chunks_exact(classes))
        {
            let mut exact = true;
            for ((p, t), [both, predicted, actual]) in
                row.iter().zip(target).zip(self.counts.iter_mut())
            {
                let (p, t) = (f64::from(*p) >= self.threshold, *t >= 0.5);
                exact &= p == t;
                *both += f64::from(u8::from(p && t));
                *predicted += f64::from(u8::from(p));
                *actual += f64::from(u8::from(t));
            }
            self.rows += 1.0;
            self.exact += f64::from(u8::from(exact));
        }
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let sum = |k: usize| self.counts.iter().map(|c| c[k]).sum::<f64>();
        let per_class: f64 = self.counts.iter().map(|c| f1(c[0], c[1], c[2])).sum();
        Ok(Json::from_iter([
            ("micro_f1".to_owned(), json!(f1(sum(0), sum(1), sum(2)))),
            ("macro_f1".to_owned(), json!(ratio(per_class, self.counts.len() as f64))),
            ("exact".to_owned(), json!(ratio(self.exact, self.rows))),
        ]))
    }
}

/// Regression: pearson, spearman (ties get their mean rank) and mse.
#[derive(Default)]
pub struct Regression {
    predicted: Vec<f64>,
    actual: Vec<f64>,
}

impl Metric for Regression {
    const NAME: &'static CStr = c"regression";
    type Options = NoOptions;

    fn new(_: NoOptions) -> Result<Self> {
        Ok(Self::default())
    }

    fn update(&mut self, outputs: &Map, batch: &Map) -> Result<()> {
        let values = |tensor: easytransfer_plugin::Tensor| tensor.cast(DType::F64)?.to_vec::<f64>();
        let (predicted, actual) = (values(outputs.get("logits")?)?, values(batch.get("labels")?)?);
        if predicted.len() != actual.len() {
            return Err(Error::bad_input(format!(
                "regression: expected one number for each label, found {} for {}",
                predicted.len(),
                actual.len()
            )));
        }
        self.predicted.extend(predicted);
        self.actual.extend(actual);
        Ok(())
    }

    fn compute(&self) -> Result<Json<String, Value>> {
        let squares: f64 =
            self.predicted.iter().zip(&self.actual).map(|(p, a)| (p - a) * (p - a)).sum();
        Ok(Json::from_iter([
            ("pearson".to_owned(), json!(pearson(&self.predicted, &self.actual))),
            ("spearman".to_owned(), json!(pearson(&ranks(&self.predicted), &ranks(&self.actual)))),
            ("mse".to_owned(), json!(ratio(squares, self.actual.len() as f64))),
        ]))
    }

    fn info(&self) -> MetricInfo {
        MetricInfo { lower_is_better: vec!["mse".to_owned()], ..MetricInfo::default() }
    }
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (ratio(a.iter().sum(), n), ratio(b.iter().sum(), n));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - mean_a) * (y - mean_b);
        aa += (x - mean_a) * (x - mean_a);
        bb += (y - mean_b) * (y - mean_b);
    }
    ratio(ab, (aa * bb).sqrt())
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    while begin < order.len() {
        let same = |&&i: &&usize| values[i] == values[order[begin]];
        let len = order[begin..].iter().take_while(same).count().max(1);
        for &index in &order[begin..begin + len] {
            ranks[index] = begin as f64 + (len as f64 + 1.0) / 2.0;
        }
        begin += len;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::{Classification, Metric, pearson, ranks};

    // Expected figures: sklearn.metrics of y_true = [0,0,0,1,1,2], y_pred = [0,0,1,1,2,2].
    #[test]
    fn classification_figures_equal_scikit_learn() {
        let metric =
            Classification { confusion: vec![vec![2, 1, 0], vec![0, 1, 1], vec![0, 0, 1]] };
        let figures = metric.compute().unwrap();
        let close = |name: &str, expected: f64| {
            let found = figures[name].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-9, "{name}: {found}");
        };
        close("accuracy", 4.0 / 6.0);
        close("macro_f1", (0.8 + 0.5 + 2.0 / 3.0) / 3.0);
        close("weighted_f1", (3.0 * 0.8 + 2.0 * 0.5 + 2.0 / 3.0) / 6.0);
        // (4*6 - (3*2 + 2*2 + 1*2)) / sqrt((36 - 12) * (36 - 14))
        close("matthews", 12.0 / (24.0f64 * 22.0).sqrt());
    }

    #[test]
    fn ranks_share_ties() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert!((pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
