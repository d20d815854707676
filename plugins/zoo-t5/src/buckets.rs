//! Buckets of distances (Raffel et al. 2020, section 2.1).

/// The row of the bias for each distance from -`max_distance` to `max_distance` of a key from its query; greater
/// distances have the rows of the greatest. Half of the buckets of a direction stand for one distance each, the others
/// for spans that grow with the logarithm. With `both`, the second half of the rows is for keys that follow; else
/// those have the row of distance 0, since nobody sees them.
pub fn of_distances(both: bool, rows: usize, max_distance: usize) -> Vec<i64> {
    let reach = max_distance as i64;
    let rows = if both { rows / 2 } else { rows };
    let exact = rows / 2;
    // In single precision, because the reference rounds so.
    let widths = ((max_distance as f64 / exact as f64).ln() as f32, (rows - exact) as f32);
    let bucket = |distance: usize| {
        if distance < exact {
            return distance;
        }
        let far = (distance as f32 / exact as f32).ln() / widths.0 * widths.1;
        (exact + far as usize).min(rows - 1)
    };
    (-reach..=reach)
        .map(|distance| match distance {
            ..=0 => bucket(distance.unsigned_abs() as usize) as i64,
            _ if both => (rows + bucket(distance as usize)) as i64,
            _ => 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::of_distances;

    #[test]
    fn buckets_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/generate/buckets.json");
        let text = std::fs::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        for case in golden.as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let both = case["both"].as_bool().unwrap();
            let found = of_distances(both, number("buckets"), number("max_distance"));
            let expected: Vec<i64> = serde_json::from_value(case["rows"].clone()).unwrap();
            // The golden goes further than any bucket.
            let reach = found.len() / 2;
            let beyond = expected.len() / 2 - reach;
            assert_eq!(found, expected[beyond..expected.len() - beyond]);
            assert!(expected[..beyond].iter().all(|row| *row == found[0]));
            assert!(expected[expected.len() - beyond..].iter().all(|row| *row == found[2 * reach]));
        }
        assert!(golden.as_array().unwrap().len() > 5);
    }
}
