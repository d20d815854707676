//! Small inputs that losses, metrics and operations are tried on, and the comparisons that all kinds share.

use easytransfer::plugin::abi::ET_ERR_PANIC;
use easytransfer::plugin::{self, DType, Map, Tensor};

use crate::report::{Outcome, failed};

/// Rows of every form of inputs.
pub const ROWS: usize = 4;
/// Numbers of rows that are tried: around the sizes of buffers and of vectors.
pub const COUNTS: [usize; 14] = [1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65, 129, 257, 1000];

/// Logits with targets of one form.
#[derive(Clone, Copy)]
pub struct Form {
    /// For the report.
    pub name: &'static str,
    /// Columns of the logits.
    pub width: usize,
    targets: Targets,
}

#[derive(Clone, Copy)]
enum Targets {
    Classes,
    Numbers,
    Sets,
}

/// One class per row, one number per row, a set of classes per row.
pub const FORMS: [Form; 3] = [
    Form { name: "classes", width: 3, targets: Targets::Classes },
    Form { name: "numbers", width: 1, targets: Targets::Numbers },
    Form { name: "sets of classes", width: 3, targets: Targets::Sets },
];

/// Makes the engine start its threads and open its files, with a product and an activation of some size.
pub fn warm_up() -> plugin::Result<()> {
    crate::app::tokenizer()?;
    let x = Tensor::full(0.5, DType::F32, &[512, 512])?;
    for _ in 0..2 {
        let x = x.leaf()?;
        x.matmul(&x)?.exp()?.sum(&[], false)?.backward()?;
    }
    Ok(())
}

/// Irregular numbers of moderate size, far from each other and from zero, so that no kink is near.
pub fn number(index: usize) -> f64 {
    let x = (index as f64 * 0.754_877_666 + 0.31).fract() * 2.0 - 1.0;
    x * 1.4 + if x < 0.0 { -0.05 } else { 0.05 }
}

/// A tensor of the given type from f64s.
pub fn tensor(values: &[f64], shape: &[usize], dtype: DType) -> plugin::Result<Tensor> {
    Tensor::from_slice(values, shape)?.cast(dtype)
}

impl Form {
    /// Values of the logits of `count` rows from the first, row-major [rows, width].
    pub fn logits(&self, count: usize) -> Vec<f64> {
        self.logits_of(&(0..count).collect::<Vec<_>>())
    }

    /// Values of the logits of the rows with these numbers.
    pub fn logits_of(&self, rows: &[usize]) -> Vec<f64> {
        let row = |row: &usize| row * self.width..(row + 1) * self.width;
        rows.iter().flat_map(row).map(number).collect()
    }

    /// Map "logits" of the rows with these numbers.
    pub fn outputs_of(&self, rows: &[usize], dtype: DType) -> plugin::Result<Map> {
        let mut outputs = Map::new()?;
        let logits = tensor(&self.logits_of(rows), &[rows.len(), self.width], dtype)?;
        outputs.put("logits", &logits)?;
        Ok(outputs)
    }

    /// Map "labels" for rows `begin..end`.
    pub fn batch(&self, begin: usize, end: usize, dtype: DType) -> plugin::Result<Map> {
        self.batch_of(&(begin..end).collect::<Vec<_>>(), dtype)
    }

    /// Map "labels" for the rows with these numbers.
    pub fn batch_of(&self, rows: &[usize], dtype: DType) -> plugin::Result<Map> {
        let mut batch = Map::new()?;
        let count = rows.len();
        let labels = match self.targets {
            Targets::Classes => {
                let classes: Vec<i64> = rows.iter().map(|row| (row * 2 % 3) as i64).collect();
                Tensor::from_slice(&classes, &[count])?
            }
            Targets::Numbers => {
                let values: Vec<f64> = rows.iter().map(|row| number(row + 50)).collect();
                tensor(&values, &[count], dtype)?
            }
            Targets::Sets => {
                let row = |row: &usize| row * self.width..(row + 1) * self.width;
                let values: Vec<f64> = rows
                    .iter()
                    .flat_map(row)
                    .map(|index| f64::from(u8::from(index % 2 == 0)))
                    .collect();
                tensor(&values, &[count, self.width], dtype)?
            }
        };
        batch.put("labels", &labels)?;
        Ok(batch)
    }
}

/// Logits of one size in every sign, which sums and exponentials of them may not survive: all 0, of a saturated
/// model, and far beyond.
pub const EXTREMES: [f64; 3] = [0.0, 50.0, 1e4];

/// Values of the extreme logits of a form.
pub fn extreme(form: Form, rows: usize, size: f64) -> Vec<f64> {
    // Signs do not follow the rows, so that every class has both.
    (0..rows * form.width).map(|at| if at % 5 < 3 { size } else { -size }).collect()
}

/// All elements as f64.
pub fn values(tensor: &Tensor) -> plugin::Result<Vec<f64>> {
    tensor.cast(DType::F64)?.contiguous()?.to_vec::<f64>()
}

/// Everything in maps: names, types, shapes and bits.
pub type Snapshot = Vec<Vec<(String, DType, Vec<usize>, Vec<u64>)>>;

/// What the maps hold now.
pub fn snapshot(maps: &[&Map]) -> Outcome<Snapshot> {
    let of = |map: &&Map| -> Outcome<Vec<_>> {
        let mut entries = Vec::new();
        for name in map.names() {
            let tensor = map.get(&name)?;
            let bits = values(&tensor)?.into_iter().map(f64::to_bits).collect();
            entries.push((name, tensor.dtype(), tensor.shape().to_vec(), bits));
        }
        Ok(entries)
    };
    maps.iter().map(of).collect()
}

/// Fails where maps that a call may only read are not as they were.
pub fn unchanged(before: &Snapshot, maps: &[&Map], what: &str) -> Outcome {
    for (old, new) in before.iter().zip(&snapshot(maps)?) {
        for entry in old {
            match new.iter().find(|other| other.0 == entry.0) {
                None => return failed(format!("{what}: {:?} is gone from its inputs", entry.0)),
                Some(other) if other != entry => {
                    return failed(format!("{what}: {:?} of its inputs was changed", entry.0));
                }
                Some(_) => {}
            }
        }
        if let Some(more) = new.iter().find(|other| old.iter().all(|entry| entry.0 != other.0)) {
            return failed(format!("{what}: {:?} was added to its inputs", more.0));
        }
    }
    Ok(())
}

/// An error is an answer; a panic is not.
pub fn no_panic<T>(result: plugin::Result<T>) -> Outcome {
    match result {
        Err(error) if error.code() == ET_ERR_PANIC => failed(error.to_string()),
        _ => Ok(()),
    }
}

/// Whether an error tells of a fault of the plugin, and not of inputs that it does not take.
pub fn is_fault(text: &str) -> bool {
    let faults = [
        "NULL",
        "expected a live",
        "one that was released",
        "is not the JSON that it promises",
        "expected a scalar",
        "the plugin has no",
        "panick",
    ];
    faults.iter().any(|fault| text.contains(fault))
}

/// The largest distance of two lists relative to their sizes; infinite for lists of other lengths or without a
/// number.
pub fn apart(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let distance = |(a, b): (&f64, &f64)| match (a - b).abs() / (1.0 + a.abs().max(b.abs())) {
        distance if distance.is_nan() => f64::INFINITY,
        distance => distance,
    };
    a.iter().zip(b).map(distance).fold(0.0, f64::max)
}

/// Numbers 0 to `count` in another order, no number at its place.
pub fn shuffled(count: usize) -> Vec<usize> {
    let step = (2..count).find(|step| gcd(*step, count) == 1).unwrap_or(1);
    (0..count).map(|at| (at * step + count / 2) % count).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Compares a gradient with finite differences of `f` at `at`. `dtype` says in which precision `f` computes.
pub fn compare_gradient(
    at: &[f64],
    gradient: &[f64],
    dtype: DType,
    mut f: impl FnMut(&[f64]) -> Outcome<f64>,
) -> Outcome {
    let (step, tolerance) = if dtype == DType::F64 { (1e-5, 1e-6) } else { (1e-2, 2e-2) };
    if gradient.len() != at.len() {
        return failed(format!("expected {} numbers, found {}", at.len(), gradient.len()));
    }
    let mut point = at.to_vec();
    for index in 0..at.len() {
        point[index] = at[index] + step;
        let above = f(&point)?;
        point[index] = at[index] - step;
        let below = f(&point)?;
        point[index] = at[index];
        let expected = (above - below) / (2.0 * step);
        let difference = (gradient[index] - expected).abs();
        if difference.is_nan() || difference > tolerance * (1.0 + expected.abs()) {
            return failed(format!(
                "element {index}: expected {expected:.6e} by differences, found {:.6e}",
                gradient[index]
            ));
        }
    }
    Ok(())
}
