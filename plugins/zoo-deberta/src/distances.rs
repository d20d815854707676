//! Rows of the table of positions by distance (He et al. 2021, section 3.1; the logarithms are of version 2).

/// How distances count.
#[derive(Clone, Copy)]
pub struct Distances {
    /// Buckets of one direction; without them each distance up to the furthest has a row.
    pub buckets: Option<usize>,
    /// Greatest distance that is told from greater ones.
    pub furthest: usize,
}

impl Distances {
    /// The most that [`Distances::furthest`] may be, and the reach of any map.
    pub const MOST: usize = 1 << 15;

    /// Rows of one direction; the table has twice as many.
    pub fn span(&self) -> usize {
        self.buckets.unwrap_or(self.furthest)
    }

    /// The row for a query that stands `ahead` tokens after its key.
    fn row(&self, ahead: i64) -> i64 {
        let span = self.span() as i64;
        (self.bucket(ahead) + span).clamp(0, 2 * span - 1)
    }

    fn bucket(&self, ahead: i64) -> i64 {
        let Some(buckets) = self.buckets else { return ahead };
        let middle = (buckets / 2) as i64;
        let far = ahead.abs();
        if far <= middle {
            return ahead;
        }
        // In single precision, because the reference rounds so.
        let ratio = |of: i64| (of as f32 / middle as f32).ln();
        let whole = ((self.furthest as f64 - 1.0) / middle as f64) as f32;
        let steps = (ratio(far) / whole.ln() * (middle - 1) as f32).ceil() as i64;
        (steps + middle) * ahead.signum()
    }

    /// For runs of at most `longest` tokens: the first row that is needed, how many, and the row, counted from the
    /// first, for each distance from -reach to reach of a key from its query.
    pub fn rows(&self, longest: usize) -> (usize, usize, Vec<i64>) {
        let reach = longest.saturating_sub(1).clamp(1, Self::MOST) as i64;
        let (first, last) = (self.row(-reach), self.row(reach));
        let rows = (-reach..=reach).map(|distance| self.row(-distance) - first).collect();
        (first as usize, (last - first + 1) as usize, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::Distances;

    #[test]
    fn rows_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/families/buckets.json");
        let text = std::fs::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        for case in golden.as_array().unwrap() {
            let buckets = case["buckets"].as_u64().map(|buckets| buckets as usize);
            let distances =
                Distances { buckets, furthest: case["furthest"].as_u64().unwrap() as usize };
            let expected: Vec<i64> = serde_json::from_value(case["rows"].clone()).unwrap();
            let (first, count, rows) = distances.rows(expected.len() / 2 + 1);
            let found: Vec<i64> = rows.iter().map(|row| row + first as i64).collect();
            assert_eq!(found, expected, "{buckets:?} {}", distances.furthest);
            assert_eq!(count as i64, rows.iter().max().unwrap() + 1);
        }
        assert!(golden.as_array().unwrap().len() > 5);
    }
}
