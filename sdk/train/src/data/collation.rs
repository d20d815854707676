//! From rows of features to a batch.

use std::borrow::Borrow;

use easytransfer_plugin::{Map, Row};

use crate::data::batching::BatchOptions;
use crate::error::Result;

/// How to batch while nothing is trained.
pub fn batch_options(tokens: u32) -> BatchOptions {
    BatchOptions { max_tokens: tokens, max_rows: 0, window: 4096, seed: 0, epoch: 0 }
}

/// Lengths of rows in tokens.
pub fn lengths(rows: &[impl Borrow<Row>]) -> Vec<u32> {
    rows.iter().map(|row| u32::try_from(row.borrow().tokens_len()).unwrap_or(u32::MAX)).collect()
}

/// A batch of some of the rows.
pub fn collate(rows: &[impl Borrow<Row>], indices: &[u32]) -> Result<Map> {
    let picked: Vec<&Row> = indices.iter().map(|&index| rows[index as usize].borrow()).collect();
    Ok(Map::from_rows(&picked)?)
}
